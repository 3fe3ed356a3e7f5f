"""Who had which device when: assignments as intervals of time, and what was said of them, when, and by whom. Pure.

A device is with an officer (a badge's id, never a name), a vehicle or a duty unit, ``from_ms <= time < to_ms`` by the
server's clock.

Rule 1: no two assignments of a device that count share a moment; nor did they ever, by what was known at any time.
Rule 2: what was said is not changed. A check-in, a correction and a withdrawal are further revisions of the same
assignment, and the last one counts, so that what was believed on any day can still be told.
Rule 3: nothing is said of the future.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from broker_config.ids import exact
from fleet_server.registry import imports
from fleet_server.registry.imports import Read
from fleet_server.registry.model import TEXT_PATTERN, RegistryError, Slug

BADGE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"
"""Of an officer's badge, and of a vehicle and a shift: no blank, so that no name comes here by mistake."""
ASSIGNMENT_PATTERN: Final = r"^[0-9a-f]{16}$"
REASON_CHARS_MAX: Final = 500
REVISIONS_MAX: Final = 100
"""Of one assignment: who corrects more often withdraws it, and enters another."""
ROWS_MAX: Final = 20_000
"""Of one import."""

Badge = Annotated[str, Meta(pattern=exact(BADGE_PATTERN))]
Reason = Annotated[str, Meta(max_length=REASON_CHARS_MAX, pattern=exact(TEXT_PATTERN))]


class Act(StrEnum):
    """What a revision says."""

    CHECKED_OUT = "checked_out"
    CHECKED_IN = "checked_in"
    HANDED_OVER = "handed_over"
    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"
    IMPORTED = "imported"


class With(NamedTuple):
    """With whom a device is; empty is nobody, at least one of officer, vehicle and unit is not."""

    officer: str = ""
    vehicle: str = ""
    shift: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One revision of an assignment; the last one counts.

    ``path``: of the device's organisation node when it was given out, empty without one. ``to_ms``: None while it
    lasts. ``withdrawn``: it never was. ``reason``: of a correction, a withdrawal, or of giving out what is not ready;
    ``unready``: the rules that it then broke. ``by``: who said it, at ``said_ms``.
    """

    assignment: str
    revision: int
    device: str
    path: str
    whom: With
    from_ms: int
    to_ms: int | None
    withdrawn: bool
    act: Act
    reason: str
    unready: tuple[str, ...]
    by: str
    said_ms: int

    def covers(self, at_ms: int) -> bool:
        """Whether the device was so at that moment."""
        return not self.withdrawn and self.from_ms <= at_ms and (self.to_ms is None or at_ms < self.to_ms)

    def touches(self, from_ms: int, to_ms: int | None) -> bool:
        """Whether it shares a moment with another interval."""
        begins_before = to_ms is None or self.from_ms < to_ms
        return not self.withdrawn and begins_before and (self.to_ms is None or from_ms < self.to_ms)


class Handing(NamedTuple):
    """What somebody says who gives a device out. ``from_ms``: None is now; ``to_ms``: None while it lasts."""

    device: str
    whom: With
    by: str
    from_ms: int | None = None
    to_ms: int | None = None
    reason: str = ""
    unready: tuple[str, ...] = ()


class Correction(NamedTuple):
    """What is to be said instead; None is as it was. ``lasting``: it has not ended, whatever was said. ``withdraw``:
    it never was, and the rest stays as it was said.
    """

    reason: str
    by: str
    officer: str | None = None
    vehicle: str | None = None
    shift: str | None = None
    unit: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    lasting: bool = False
    withdraw: bool = False


class AssignmentError(RegistryError):
    """It breaks a rule of assignments."""


class HeldError(AssignmentError):
    """The device is, or was, with somebody else then; ``held`` says with whom."""

    def __init__(self, held: Assignment) -> None:
        until = "" if held.to_ms is None else f" until {_utc(held.to_ms)}"
        super().__init__(f"{held.device} is with somebody else from {_utc(held.from_ms)} on{until}")
        self.held = held


class NotHeldError(AssignmentError):
    """The device is with nobody, so it cannot be taken back or handed over."""


# what is said: each gives the revisions to enter, in order


def checked_out(
    held: Iterable[Assignment], handing: Handing, *, name: str, path: str, now_ms: int, act: Act = Act.CHECKED_OUT
) -> Assignment:
    """A new assignment of the id *name*.

    Args:
        held: those of the device that count and may touch it.
        path: of the device's node, now.

    Raises:
        HeldError, AssignmentError: see there; nothing is to be entered.
    """
    from_ms = now_ms if handing.from_ms is None else handing.from_ms
    made = Assignment(
        name,
        1,
        handing.device,
        path,
        handing.whom,
        from_ms,
        handing.to_ms,
        withdrawn=False,
        act=act,
        reason=handing.reason,
        unready=handing.unready,
        by=handing.by,
        said_ms=now_ms,
    )
    _check(made, held, now_ms)
    return made


def checked_in(held: Iterable[Assignment], *, at_ms: int | None, reason: str, by: str, now_ms: int) -> Assignment:
    """The end of the one that lasts. Raises NotHeldError: none does; AssignmentError: as for *checked_out*."""
    return _ended(held, Act.CHECKED_IN, at_ms, reason, by, now_ms)


def handed_over(
    held: Sequence[Assignment], handing: Handing, *, name: str, path: str, now_ms: int
) -> tuple[Assignment, Assignment]:
    """The end of the one that lasts, and the next from the same moment on. Raises as *checked_in*."""
    ended = _ended(held, Act.HANDED_OVER, handing.from_ms, handing.reason, handing.by, now_ms)
    if ended.whom == handing.whom:
        raise AssignmentError(f"{handing.device} is with them already")
    others = [ended if each.assignment == ended.assignment else each for each in held]
    begun = handing._replace(from_ms=ended.to_ms)
    return ended, checked_out(others, begun, name=name, path=path, now_ms=now_ms, act=Act.HANDED_OVER)


def corrected(found: Assignment, held: Iterable[Assignment], correction: Correction, *, now_ms: int) -> Assignment:
    """What is said of *found* instead. Raises as *checked_out*; a correction without a reason is refused too."""
    if not correction.reason:
        raise AssignmentError("a correction gives its reason")
    if found.withdrawn:
        raise AssignmentError(f"{found.assignment} is withdrawn; enter another")
    act = Act.WITHDRAWN if correction.withdraw else Act.CORRECTED
    made = _next(found, act, correction.reason, correction.by, now_ms)
    if correction.withdraw:
        return replace(made, withdrawn=True)
    said = {name: getattr(correction, name) for name in With._fields}
    to_ms = found.to_ms if correction.to_ms is None else correction.to_ms
    made = replace(
        made,
        whom=found.whom._replace(**{name: value for name, value in said.items() if value is not None}),
        from_ms=found.from_ms if correction.from_ms is None else correction.from_ms,
        to_ms=None if correction.lasting else to_ms,
    )
    if (made.whom, made.from_ms, made.to_ms) == (found.whom, found.from_ms, found.to_ms):
        raise AssignmentError(f"{found.assignment} is so already")
    _check(made, held, now_ms)
    return made


def _ended(held: Iterable[Assignment], act: Act, at_ms: int | None, reason: str, by: str, now_ms: int) -> Assignment:
    lasting = next((each for each in held if each.to_ms is None and not each.withdrawn), None)
    if lasting is None:
        raise NotHeldError("it is with nobody")
    made = replace(_next(lasting, act, reason, by, now_ms), to_ms=now_ms if at_ms is None else at_ms)
    _check(made, (), now_ms)
    return made


def _next(found: Assignment, act: Act, reason: str, by: str, now_ms: int) -> Assignment:
    if found.revision >= REVISIONS_MAX:
        raise AssignmentError(f"{found.assignment} has {REVISIONS_MAX} revisions; withdraw it and enter another")
    return replace(found, revision=found.revision + 1, act=act, reason=reason, by=by, said_ms=now_ms)


def _check(made: Assignment, held: Iterable[Assignment], now_ms: int) -> None:
    whom = made.whom
    if not (whom.officer or whom.vehicle or whom.unit):
        raise AssignmentError("expected an officer, a vehicle or a unit, got none")
    if made.from_ms > now_ms or (made.to_ms or 0) > now_ms:
        raise AssignmentError("expected times up to now: nothing is said of the future")
    if made.to_ms is not None and made.to_ms <= made.from_ms:
        raise AssignmentError("expected an end behind its beginning")
    for each in held:
        if each.assignment != made.assignment and each.touches(made.from_ms, made.to_ms):
            raise HeldError(each)


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


# what is told


def known(said: Iterable[Assignment], known_ms: int | None = None) -> list[Assignment]:
    """Of every assignment the last revision, of those said until *known_ms* inclusive; withdrawn ones too."""
    last: dict[str, Assignment] = {}
    for each in said:
        before = last.get(each.assignment)
        heard = known_ms is None or each.said_ms <= known_ms
        if heard and (before is None or each.revision > before.revision):
            last[each.assignment] = each
    return list(last.values())


def holding(said: Iterable[Assignment], at_ms: int) -> Assignment | None:
    """Who had the device at a moment. *said*: those of it that count."""
    return next((each for each in said if each.covers(at_ms)), None)


# CSV


class AssignmentLine(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of CSV; ``begin`` and ``end`` in RFC 3339."""

    device: Slug
    begin: imports.Time
    end: imports.Time | None = None
    officer: Badge = ""
    vehicle: Badge = ""
    shift: Badge = ""
    unit: Slug | None = None


def read_csv(data: bytes) -> Read[AssignmentLine]:
    """Columns device, begin, and any of end, officer, vehicle, shift, unit; a device has many rows."""
    return imports.read_rows(data, AssignmentLine, None, rows_max=ROWS_MAX)


def handing_of(line: AssignmentLine, by: str) -> Handing:
    """What a row says."""
    whom = With(line.officer, line.vehicle, line.shift, line.unit or "")
    end_ms = None if line.end is None else imports.ms(line.end)
    return Handing(line.device, whom, by, imports.ms(line.begin), end_ms)
