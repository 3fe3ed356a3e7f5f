"""How long a piece is kept, and when it may be deleted. Values only.

Counted from the server's own clock at arrival: no device's clock can shorten it. Of several classes the longest wins;
without one, or with one that nobody has set, a piece is kept for ever. Recordings are kept for six months whatever is
set, and whoever asks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from broker_config.device_classes import FileKind
from fleet_server.evidence.pieces import Piece, State

DAY_MS: Final = 86_400_000
KEEP_D_MAX: Final = 36_500
RECORDING_FLOOR_D: Final = 184
"""Six months, the longest six."""
CHANGE_DELAY_D: Final = 7
"""From the second person's agreement to a change of retention until it counts."""
DELETION_DELAY_D: Final = 7
"""From when a deletion is asked for until it may be done."""
DELETIONS_A_DAY_MAX: Final = 200
"""A mistake, or somebody who means it, gets no further in a day; everybody can see what waits."""
CLASSES_MAX: Final = 64
OPEN_CHANGES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one class's retention. ``keep_d``: days, None is for ever; ``effective_ms``: from when it counts,
    once a second person has agreed.
    """

    change: str
    evidence_class: str
    keep_d: int | None
    reason: str
    proposed_by: str
    proposed_ms: int
    approved_by: str | None = None
    approved_ms: int | None = None
    effective_ms: int | None = None
    withdrawn_ms: int | None = None

    @property
    def waits(self) -> bool:
        """For a second person."""
        return self.approved_ms is None and self.withdrawn_ms is None


class Cause(StrEnum):
    """Why a piece is to be deleted."""

    RETENTION = "retention"
    ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion that was asked for, and what became of it. ``gone_ms``: when no copy of the content was left, or
    only those of another piece.
    """

    deletion: str
    piece: str
    cause: Cause
    reason: str
    asked_by: str
    asked_ms: int
    approved_by: str | None = None
    approved_ms: int | None = None
    withdrawn_by: str | None = None
    withdrawn_ms: int | None = None
    done_ms: int | None = None
    gone_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Neither done nor withdrawn."""
        return self.done_ms is None and self.withdrawn_ms is None


Rules: TypeAlias = Mapping[str, int | None]
"""Class -> days, None is for ever."""


class Due(NamedTuple):
    """When the retention of a piece is over, and what says so; ``at_ms`` None: never."""

    at_ms: int | None
    why: str


def rules_at(changes: Iterable[Change], *, now_ms: int) -> dict[str, int | None]:
    """What counts at a time. A class whose first change does not count yet is kept for ever."""
    agreed = sorted((each for each in changes if each.effective_ms is not None), key=_in_order)
    rules: dict[str, int | None] = {each.evidence_class: None for each in agreed}
    for each in agreed:
        assert each.effective_ms is not None
        if each.effective_ms <= now_ms:
            rules[each.evidence_class] = each.keep_d
    return rules


def is_recording(piece: Piece) -> bool:
    """Whether the floor holds for it; what is not known counts as a recording."""
    return piece.kind in {None, FileKind.RECORDING} or piece.recording != ""


def floor_ms(piece: Piece) -> int:
    """Before this nobody deletes it."""
    return piece.received_ms + (RECORDING_FLOOR_D * DAY_MS if is_recording(piece) else 0)


def due(piece: Piece, rules: Rules) -> Due:
    """When its retention is over."""
    if not piece.classes:
        return Due(None, "unclassified")
    for name in piece.classes:
        if rules.get(name) is None:
            return Due(None, f"{name}: for ever")
    longest = max(piece.classes, key=lambda name: (rules[name] or 0, name))
    at_ms = piece.received_ms + (rules[longest] or 0) * DAY_MS
    if at_ms < floor_ms(piece):
        return Due(floor_ms(piece), f"{longest}: {rules[longest]} d, recordings {RECORDING_FLOOR_D} d")
    return Due(at_ms, f"{longest}: {rules[longest]} d")


def why_not_ask(piece: Piece, rules: Rules, cause: Cause, *, now_ms: int) -> str:
    """Why a deletion cannot be asked for; empty if it can. Holds are looked at again when it is done."""
    if piece.state is State.DELETED:
        return "it is deleted already"
    found = due(piece, rules)
    if found.at_ms is None:
        return f"it is kept for ever ({found.why}): classify it otherwise first"
    if now_ms < floor_ms(piece):
        return f"recordings are kept {RECORDING_FLOOR_D} days"
    if cause is Cause.RETENTION and now_ms < found.at_ms:
        return f"its retention is not over ({found.why})"
    if piece.holds:
        return f"it is held: {', '.join(piece.holds)}"
    return ""


def why_not_delete(deletion: Deletion, piece: Piece, rules: Rules, *, delay_ms: int, now_ms: int) -> str:
    """Why a deletion is not done now; empty if it is. *piece* as it is in the transaction that deletes it."""
    if not deletion.is_open:
        return "it is not open"
    if deletion.approved_by is None:
        return "nobody else has agreed"
    if deletion.approved_by == deletion.asked_by:
        return "who agreed is who asked"
    if now_ms < deletion.asked_ms + delay_ms:
        return "its delay is not over"
    return why_not_ask(piece, rules, deletion.cause, now_ms=now_ms)


def _in_order(change: Change) -> tuple[int, int, str]:
    return change.effective_ms or 0, change.approved_ms or 0, change.change
