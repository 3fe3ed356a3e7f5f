"""The book of assignments. This is its port.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Every method raises StoreError. Trusted: whoever can write here decides whose a recording seems to be.

``known_ms``: by what had been said until then; None is by all that was said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from fleet_server.registry.assignments import Assignment, Correction, Handing
from fleet_server.registry.store import Imported


class After(NamedTuple):
    """A place in the order of lists: by begin, then by id."""

    from_ms: int
    assignment: str


BEGINNING: Final = After(-(2**62), "")


@dataclass(frozen=True, slots=True)
class AssignmentFilter:
    """Which assignments; None is any. ``from_ms``, ``to_ms``: that touch this time. ``lasting``: True: those that
    have not ended. ``path``: given out at that node or below; ``within``: at one of these, beside all else; empty is
    nowhere.
    """

    device: str | None = None
    officer: str | None = None
    vehicle: str | None = None
    shift: str | None = None
    unit: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    lasting: bool | None = None
    path: str | None = None
    within: tuple[str, ...] | None = None


class Holders(Protocol):
    """What other rooms ask: who had it."""

    def holder_at(self, device: str, at_ms: int, *, known_ms: int | None = None) -> Assignment | None:
        """Who had a device at a moment; None: nobody."""

    def assignments(
        self, wanted: AssignmentFilter, *, known_ms: int | None = None, after: After = BEGINNING, rows_max: int
    ) -> Sequence[Assignment]:
        """Those meant that count, in their order, behind *after*. What was withdrawn is not among them."""


class Assignments(Holders, Protocol):
    """See the module's docstring. Errors are those of :mod:`fleet_server.registry.assignments`, and UnknownError for
    a device, a unit or an assignment that is not there.
    """

    def assignment(self, assignment: str) -> Assignment | None:
        """The last revision of one, withdrawn or not."""

    def history(self, assignment: str) -> Sequence[Assignment]:
        """All revisions of one, oldest first; empty: there is none."""

    def check_out(self, handing: Handing, *, now_ms: int, dry_run: bool = False) -> Assignment:
        """Give a registered device out. *dry_run*: only tell what it would say, or why not."""

    def check_in(self, device: str, *, at_ms: int | None, reason: str, by: str, now_ms: int) -> Assignment:
        """Take it back."""

    def hand_over(self, handing: Handing, *, now_ms: int) -> Assignment:
        """From who has it to another, without a moment between; the new assignment."""

    def correct(self, assignment: str, correction: Correction, *, expected: int | None, now_ms: int) -> Assignment:
        """Say something else. Raises StaleError: it is not revision *expected* any more."""

    def enter(self, rows: Sequence[Handing], *, now_ms: int, dry_run: bool) -> Imported:
        """All of them or none; what is there exactly so is as it was. Names are of devices, in the rows' order."""
