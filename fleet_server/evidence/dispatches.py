"""Dispatches, as the control room has them, held against recordings: a call without one is to be explained. Values,
and the port.

A dispatch is answered by a recording of its officer, or of its device, that overlaps it within the tolerances. One
that nothing answers once its grace is over is *unexplained*, until a person gives it one of a closed list of reasons;
that is done once, and in the audit log. Who imports dispatches explains none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, Protocol

from msgspec import Meta, Struct

from fleet_server.evidence.ledger import DAY_MS, Row, Span
from fleet_server.registry import imports
from fleet_server.registry.imports import Fault, Read, Time, ms
from fleet_server.registry.model import Slug
from fleet_server.registry.store import Imported

BEFORE_MS: Final = 5 * 60_000
"""A recording may end so long before its dispatch begins: who is near is there before it is written down."""
AFTER_MS: Final = 15 * 60_000
"""And begin so long after its end."""
GRACE_MS: Final = DAY_MS
"""From the end of a dispatch until it is unexplained: recordings come when the camera is docked."""
DURATION_MS_MAX: Final = DAY_MS
DISPATCHES_MAX: Final = 20_000
"""Of one import."""
DISPATCH: Final = "dispatch:"
"""Before its id: the subject of its event in the audit log."""
WORDS_PATTERN: Final = r"^[^\x00-\x1f\x7f]{0,64}$"

Words = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{0,64}\Z")]


class Why(StrEnum):
    """Why there is no recording; a closed list, so that they can be counted."""

    NOBODY_MET = "nobody_met"
    CANCELLED = "cancelled"
    NOT_REQUIRED = "not_required"
    NO_CAMERA = "no_camera"
    CAMERA_FAULTY = "camera_faulty"
    BATTERY_EMPTY = "battery_empty"
    RECORDED_BY_ANOTHER = "recorded_by_another"
    FORGOTTEN = "forgotten"
    PRIVACY = "privacy"
    RECORDING_LOST = "recording_lost"


class Outcome(StrEnum):
    """``pending``: it lasts, or its grace does."""

    RECORDED = "recorded"
    PENDING = "pending"
    UNEXPLAINED = "unexplained"
    EXPLAINED = "explained"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Given once. ``note``: empty, or what was written beside it; the log has a salted hash."""

    why: Why
    note: str
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """``path``: of the organisation node; ``holder``: the officer, as manifests name them; one of ``holder`` and
    ``device`` is not empty. ``end_ms``: None while it lasts. ``kind``: the control room's own word.
    """

    dispatch: str
    path: str
    holder: str
    device: str
    unit: str
    kind: str
    begin_ms: int
    end_ms: int | None
    explanation: Explanation | None = None


class After(NamedTuple):
    """A place in the order of lists: by begin, then by id."""

    begin_ms: int
    dispatch: str


@dataclass(frozen=True, slots=True)
class DispatchFilter:
    """Which dispatches, by their begin; None is any. ``within``: as in other filters, beside ``path``."""

    span: Span
    path: str | None = None
    holder: str | None = None
    device: str | None = None
    unit: str | None = None
    explained: bool | None = None
    within: tuple[str, ...] | None = None


class Dispatches(Protocol):
    """The port. Any thread may call; every method raises StoreError."""

    def dispatch(self, dispatch: str) -> Dispatch | None:
        """One of them."""

    def dispatches(self, wanted: DispatchFilter, *, after: After | None, rows_max: int) -> Sequence[Dispatch]:
        """Those meant, in their order, behind *after*."""

    def put(self, rows: Sequence[Dispatch], *, dry_run: bool) -> Imported:
        """All of them or none. Raises RefusedError: one that is explained would change."""

    def explain(self, dispatch: str, why: Why, note: str, *, by: str, now_ms: int) -> Dispatch:
        """With its event in the audit log. Raises UnknownPieceError; RefusedError: it is explained."""

    def erase_notes(self, dispatch: str, *, by: str, now_ms: int) -> int:
        """Take away what was written beside its explanation; how many notes. The reason of the closed list stays, and
        the log's salted hash. Raises UnknownPieceError.
        """


class DispatchLine(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of CSV."""

    dispatch: Slug
    node: Slug
    begin: Time
    end: Time | None = None
    holder: Words = ""
    device: Slug | None = None
    unit: Slug | None = None
    kind: Words = ""


def read_csv(data: bytes) -> Read[DispatchLine]:
    """Columns dispatch, node, begin, and any of end, holder, device, unit, kind; times in RFC 3339."""
    read = imports.read_rows(data, DispatchLine, "dispatch", rows_max=DISPATCHES_MAX)
    for row, line in zip(read.rows, read.lines, strict=True):
        wrong = fault_of(row)
        if wrong:
            read.faults.append(Fault(line, wrong, ""))
    return read


def fault_of(line: DispatchLine) -> str:
    """What is expected of a row beyond its types; empty if it is sound."""
    if not line.holder and not line.device:
        return "a holder or a device"
    begin_ms, end_ms = ms(line.begin), None if line.end is None else ms(line.end)
    if end_ms is not None and not begin_ms <= end_ms <= begin_ms + DURATION_MS_MAX:
        return f"an end of at most {DURATION_MS_MAX // 3_600_000} h after its begin"
    return ""


def of_line(line: DispatchLine, path: str) -> Dispatch:
    """At the node of *path*."""
    end_ms = None if line.end is None else ms(line.end)
    device, unit = line.device or "", line.unit or ""
    return Dispatch(line.dispatch, path, line.holder, device, unit, line.kind, ms(line.begin), end_ms)


def reach(dispatch: Dispatch, *, now_ms: int) -> Span:
    """When a recording that answers it may begin; one that was running then began up to a day earlier."""
    end_ms = min(now_ms, dispatch.begin_ms + DURATION_MS_MAX) if dispatch.end_ms is None else dispatch.end_ms
    return Span(dispatch.begin_ms - DURATION_MS_MAX, max(end_ms, dispatch.begin_ms) + AFTER_MS)


@dataclass(frozen=True, slots=True)
class Judged:
    """A dispatch and what is known of it; ``device``, ``row``: of the recording that answers it."""

    dispatch: Dispatch
    outcome: Outcome
    device: str = ""
    row: Row | None = None


def judge(dispatch: Dispatch, found: Iterable[tuple[str, Row]], *, now_ms: int) -> Judged:
    """*found*: recordings, each with its device; those that do not answer it are passed over.

    Of several the one that was begun first answers; an explanation that was given stays beside a recording that came
    later.
    """
    answers = [(device, row) for device, row in found if _answers(dispatch, device, row, now_ms)]
    if answers:
        device, row = min(answers, key=lambda each: (each[1].begin_ms, each[0]))
        return Judged(dispatch, Outcome.RECORDED, device, row)
    if dispatch.explanation is not None:
        return Judged(dispatch, Outcome.EXPLAINED)
    end_ms = dispatch.begin_ms + DURATION_MS_MAX if dispatch.end_ms is None else dispatch.end_ms
    return Judged(dispatch, Outcome.PENDING if now_ms < end_ms + GRACE_MS else Outcome.UNEXPLAINED)


def _answers(dispatch: Dispatch, device: str, row: Row, now_ms: int) -> bool:
    if not row.recording:
        return False  # a start alone is no recording
    if not (dispatch.device == device or (dispatch.holder and dispatch.holder == row.holder)):
        return False
    if dispatch.device and dispatch.device != device:
        return False
    ends_ms = now_ms if row.end_ms is None else row.end_ms
    span = reach(dispatch, now_ms=now_ms)
    return row.begin_ms < span.to_ms and ends_ms >= dispatch.begin_ms - BEFORE_MS


@dataclass(frozen=True, slots=True)
class Rate:
    """Dispatches of a node and day, counted; they add up."""

    dispatches: int = 0
    recorded: int = 0
    pending: int = 0
    unexplained: int = 0
    explained: int = 0

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(**{name: getattr(self, name) + getattr(other, name) for name in Rate.__slots__})


def rates(found: Iterable[Judged]) -> dict[tuple[str, int], Rate]:
    """By path and the day (UTC) of their begin, ascending."""
    out: dict[tuple[str, int], Rate] = {}
    for each in found:
        begin_ms = each.dispatch.begin_ms
        key = each.dispatch.path, begin_ms - begin_ms % DAY_MS
        out[key] = out.get(key, Rate()) + Rate(**{"dispatches": 1, each.outcome.value: 1})
    return dict(sorted(out.items()))
