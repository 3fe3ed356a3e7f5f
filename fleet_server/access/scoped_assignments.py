"""Assignments as somebody sees them who may only act at some nodes: what was given out elsewhere is not there."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from fleet_server.access.roles import Scope
from fleet_server.registry.assignment_store import BEGINNING, After, AssignmentFilter, Assignments
from fleet_server.registry.assignments import Assignment, Correction, Handing
from fleet_server.registry.model import BeyondError, UnknownError
from fleet_server.registry.store import Imported, Registry


class ScopedAssignments:
    """A :class:`fleet_server.registry.assignment_store.Assignments`; *scope* is asked at each call, and the scoped
    *registry* whose device it is that is given out.
    """

    def __init__(self, inner: Assignments, registry: Registry, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._registry = registry
        self._scope = scope

    def holder_at(self, device: str, at_ms: int, *, known_ms: int | None = None) -> Assignment | None:
        """See the port."""
        found = self._inner.holder_at(device, at_ms, known_ms=known_ms)
        return found if found is not None and self._scope().covers(found.path) else None

    def assignments(
        self, wanted: AssignmentFilter, *, known_ms: int | None = None, after: After = BEGINNING, rows_max: int
    ) -> Sequence[Assignment]:
        """See the port."""
        scope = self._scope()
        within = None if scope.everywhere else scope.paths
        mine = replace(wanted, within=within)
        return self._inner.assignments(mine, known_ms=known_ms, after=after, rows_max=rows_max)

    def assignment(self, assignment: str) -> Assignment | None:
        """See the port."""
        found = self._inner.assignment(assignment)
        return found if found is not None and self._scope().covers(found.path) else None

    def history(self, assignment: str) -> Sequence[Assignment]:
        """See the port."""
        return self._inner.history(assignment) if self.assignment(assignment) is not None else ()

    def check_out(self, handing: Handing, *, now_ms: int, dry_run: bool = False) -> Assignment:
        """See the port."""
        self._check_device(handing.device)
        return self._inner.check_out(handing, now_ms=now_ms, dry_run=dry_run)

    def check_in(self, device: str, *, at_ms: int | None, reason: str, by: str, now_ms: int) -> Assignment:
        """See the port."""
        self._check_device(device)
        return self._inner.check_in(device, at_ms=at_ms, reason=reason, by=by, now_ms=now_ms)

    def hand_over(self, handing: Handing, *, now_ms: int) -> Assignment:
        """See the port."""
        self._check_device(handing.device)
        return self._inner.hand_over(handing, now_ms=now_ms)

    def correct(self, assignment: str, correction: Correction, *, expected: int | None, now_ms: int) -> Assignment:
        """See the port."""
        if self.assignment(assignment) is None:
            raise UnknownError("assignment", assignment)
        return self._inner.correct(assignment, correction, expected=expected, now_ms=now_ms)

    def enter(self, rows: Sequence[Handing], *, now_ms: int, dry_run: bool) -> Imported:
        """See the port; for who may everywhere."""
        if not self._scope().everywhere:
            raise BeyondError("import: only who may act everywhere")
        return self._inner.enter(rows, now_ms=now_ms, dry_run=dry_run)

    def _check_device(self, device: str) -> None:
        if self._registry.device(device) is None:
            raise UnknownError("device", device)
