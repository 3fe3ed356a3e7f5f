"""Dispatches as somebody sees them who may only act at some nodes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from fleet_server.access.roles import Scope
from fleet_server.evidence.dispatches import After, Dispatch, Dispatches, DispatchFilter, Why
from fleet_server.evidence.pieces import RefusedError, UnknownPieceError
from fleet_server.registry.store import Imported


class ScopedDispatches:
    """A :class:`fleet_server.evidence.dispatches.Dispatches`; *scope* is asked at each call."""

    def __init__(self, inner: Dispatches, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._scope = scope

    def dispatch(self, dispatch: str) -> Dispatch | None:
        """See the port."""
        found = self._inner.dispatch(dispatch)
        return found if found is not None and self._scope().covers(found.path) else None

    def dispatches(self, wanted: DispatchFilter, *, after: After | None, rows_max: int) -> Sequence[Dispatch]:
        """See the port."""
        scope = self._scope()
        within = None if scope.everywhere else scope.paths
        return self._inner.dispatches(replace(wanted, within=within), after=after, rows_max=rows_max)

    def put(self, rows: Sequence[Dispatch], *, dry_run: bool) -> Imported:
        """See the port; for who may everywhere."""
        if not self._scope().everywhere:
            raise RefusedError("dispatches are imported by who may act everywhere")
        return self._inner.put(rows, dry_run=dry_run)

    def explain(self, dispatch: str, why: Why, note: str, *, by: str, now_ms: int) -> Dispatch:
        """See the port."""
        self._check(dispatch)
        return self._inner.explain(dispatch, why, note, by=by, now_ms=now_ms)

    def erase_notes(self, dispatch: str, *, by: str, now_ms: int) -> int:
        """See the port."""
        self._check(dispatch)
        return self._inner.erase_notes(dispatch, by=by, now_ms=now_ms)

    def _check(self, dispatch: str) -> None:
        if self.dispatch(dispatch) is None:
            raise UnknownPieceError("dispatch", dispatch)
