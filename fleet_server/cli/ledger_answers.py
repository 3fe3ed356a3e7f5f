"""What the commands of the ledger read of the API's answers, and as tables."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli.moments import utc
from fleet_server.cli.tables import _table

HOUR_MS: Final = 3_600_000
_STYLES: Final = {"overdue": "bold red", "damaged": "bold red", "unexplained": "bold red", "incomplete": "yellow"}


class Row(Struct, frozen=True):
    """See the API's ``LedgerRow``."""

    device: str
    org: str | None
    recording: str | None
    upload: str | None
    holder: str | None
    trigger: str
    begin_ms: int
    end_ms: int | None
    closed: bool
    segments: int
    missing: list[tuple[int, int]]
    skipped: list[tuple[int, int]]
    verified: list[tuple[int, int]]
    late_ms: int
    standing: str


class Rows(Struct, frozen=True):
    """A list of them."""

    rows: list[Row]


class Day(Struct, frozen=True):
    """See the API's ``LedgerDay``."""

    device: str
    org: str | None
    unit: str | None
    day_at: str | None
    expected: int
    closed: int
    verified: int
    incomplete: int
    damaged: int
    overdue: int
    late: int
    late_ms_max: int
    begun_only: int
    size: int


class Days(Struct, frozen=True):
    """A list of them."""

    days: list[Day]


class Dispatch(Struct, frozen=True):
    """See the API's ``EvidenceDispatch``."""

    dispatch: str
    org: str | None
    holder: str | None
    device: str | None
    kind: str | None
    begin_ms: int
    end_ms: int | None
    outcome: str
    answered_by: str | None
    recording: str | None
    why: str | None
    explained_by: str | None


class Dispatches(Struct, frozen=True):
    """A list of them."""

    dispatches: list[Dispatch]


class Rate(Struct, frozen=True):
    """See the API's ``DispatchRate``."""

    org: str | None
    day_at: str | None
    dispatches: int
    recorded: int
    pending: int
    unexplained: int
    explained: int


class Rates(Struct, frozen=True):
    """A list of them, of which several may be of one node and day."""

    rates: list[Rate]


class Gap(Struct, frozen=True):
    """See the API's ``InterviewGap``."""

    from_ms: int
    to_ms: int
    cause: str
    detail: str


class Interview(Struct, frozen=True):
    """See the API's ``EvidenceInterview``."""

    device: str
    reference: str | None
    begin_ms: int
    end_ms: int | None
    length_ms: int
    covered_ms: int
    whole: bool
    gaps_total: int
    gaps: list[Gap]


class Interviews(Struct, frozen=True):
    """A list of them."""

    interviews: list[Interview]


def rows(found: Sequence[Row]) -> Table:
    """One line a recording."""
    table = _table("device", "recording", "begin", "end", "holder", "segments", "missing", "late", "standing")
    for each in found:
        name = each.recording or each.upload or f"none after {each.trigger}"
        here = sum(high - low + 1 for low, high in each.verified)
        table.add_row(
            Text(each.device),
            Text(shown(name)),
            Text(utc(each.begin_ms)),
            Text(utc(each.end_ms)),
            Text(shown(each.holder or "")),
            Text(f"{here} of {each.segments}{'' if each.closed else ' or more'}"),
            Text(_ranges(each.missing) or (f"never came: {_ranges(each.skipped)}" if each.skipped else "")),
            Text(f"{each.late_ms / HOUR_MS:.1f} h" if each.late_ms else ""),
            _standing(each.standing),
        )
    return table


BY: Final[dict[str, Callable[[Day], str]]] = {
    "device": lambda each: each.device,
    "node": lambda each: each.org or "no place",
    "unit": lambda each: each.unit or "no unit",
}


def days(found: Iterable[Day], by: str) -> Table:
    """Counts by day, and by device, node or unit."""
    names = ("expected", "closed", "verified", "incomplete", "damaged", "overdue", "late", "begun_only")
    sums: dict[tuple[str, str], list[int]] = {}
    for each in found:
        line = sums.setdefault(((each.day_at or "")[:10], BY[by](each)), [0] * (len(names) + 1))
        for at, name in enumerate(names):
            line[at] += getattr(each, name)
        line[-1] = max(line[-1], each.late_ms_max)
    table = _table("day", by, *(name.replace("_", " ") for name in names), "latest by")
    for (day, what), (*counts, late_ms) in sorted(sums.items()):
        late = f"{late_ms / HOUR_MS:.1f} h" if late_ms else ""
        table.add_row(Text(day), Text(shown(what)), *(Text(str(count), justify="right") for count in counts), late)
    return table


def dispatches(found: Sequence[Dispatch]) -> Table:
    """One line a call."""
    table = _table("dispatch", "of", "begin", "end", "officer", "device", "kind", "outcome", "recording or reason")
    for each in found:
        answer = f"{each.answered_by}: {each.recording}" if each.recording else (each.why or "")
        table.add_row(
            Text(each.dispatch),
            Text(shown(each.org or "")),
            Text(utc(each.begin_ms)),
            Text(utc(each.end_ms)),
            Text(shown(each.holder or "")),
            Text(shown(each.device or "")),
            Text(shown(each.kind or "")),
            _standing(each.outcome),
            Text(shown(answer)),
        )
    return table


def rates(found: Iterable[Rate]) -> Table:
    """Counts by day and node, and the share that is recorded of those that are over."""
    names = ("dispatches", "recorded", "pending", "unexplained", "explained")
    sums: dict[tuple[str, str], list[int]] = {}
    for each in found:
        line = sums.setdefault(((each.day_at or "")[:10], each.org or "no place"), [0] * len(names))
        for at, name in enumerate(names):
            line[at] += getattr(each, name)
    table = _table("day", "node", *names, "rate")
    for (day, node), counts in sorted(sums.items()):
        total, recorded, pending, *_ = counts
        rate = f"{100 * recorded / (total - pending):.0f} %" if total > pending else ""
        table.add_row(Text(day), Text(shown(node)), *(Text(str(count), justify="right") for count in counts), rate)
    return table


def interviews(found: Sequence[Interview]) -> Table:
    """One line an interview, and one for each gap."""
    table = _table("room", "reference", "begin", "end", "recorded", "gap", "why")
    for each in found:
        share = f"{100 * each.covered_ms // each.length_ms} %" if each.length_ms else ""
        verdict = "whole" if each.whole else f"{share}, {each.gaps_total} gaps"
        begin, end = Text(utc(each.begin_ms)), Text(utc(each.end_ms) or "not ended")
        recorded = Text(verdict, style="" if each.whole else "bold red")
        table.add_row(Text(each.device), Text(shown(each.reference or "")), begin, end, recorded)
        for gap in each.gaps:
            why = f"{gap.cause}: {gap.detail}" if gap.detail else gap.cause
            part = f"{gap.from_ms / 1_000:.1f} to {gap.to_ms / 1_000:.1f} s"
            table.add_row("", "", "", "", "", Text(part), Text(shown(why)))
    return table


def _standing(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def _ranges(found: Iterable[tuple[int, int]]) -> str:
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in found)
