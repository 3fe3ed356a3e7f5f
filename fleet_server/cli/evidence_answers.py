"""What the commands of evidence read of the API's answers, and as tables. What they do not show they do not read."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from rich.console import Group
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli.moments import utc
from fleet_server.cli.tables import _table

SHORT_CHARS: Final = 12
FOR_EVER: Final = "for ever"


class Piece(Struct, frozen=True):
    """See the API's ``EvidencePiece``."""

    piece: str
    device: str
    org: str | None
    file_class: str
    name: str
    size: int
    sha256: str
    recording: str | None
    segment: int | None
    last: bool
    begin_ms: int
    end_ms: int
    begin_unc_ms: int
    clock: str
    holder: str | None
    holder_by: str | None
    received_ms: int
    state: str
    damage: str
    classes: list[str]
    holds: list[str]
    due_ms: int | None
    retention: str
    log: int
    entry: int
    via: str


class Pieces(Struct, frozen=True):
    """A list of them."""

    pieces: list[Piece]


class CustodyEvent(Struct, frozen=True):
    """See the API's ``CustodyEvent``."""

    number: int
    action: str
    actor: str
    at_ms: int
    data: dict[str, str]
    note: str | None
    log: int
    entry: int


class Events(Struct, frozen=True):
    """A list of them."""

    events: list[CustodyEvent]


class NotesErased(Struct, frozen=True):
    """See the API's ``NotesErased``."""

    notes: int


class Hold(Struct, frozen=True):
    """See the API's ``EvidenceHold``."""

    hold: str
    piece: str
    reason: str
    placed_by: str
    placed_ms: int
    released_by: str | None
    released_ms: int | None


class Holds(Struct, frozen=True):
    """A list of them."""

    holds: list[Hold]


class Deletion(Struct, frozen=True):
    """See the API's ``EvidenceDeletion``."""

    deletion: str
    piece: str
    device: str
    cause: str
    reason: str
    asked_by: str
    asked_ms: int
    not_before_ms: int
    approved_by: str | None
    withdrawn_by: str | None
    done_ms: int | None
    gone_ms: int | None
    holds: list[str]


class Deletions(Struct, frozen=True):
    """A list of them."""

    deletions: list[Deletion]


class Change(Struct, frozen=True):
    """See the API's ``RetentionChange``."""

    change: str
    evidence_class: str
    keep_days: int | None
    reason: str
    proposed_by: str
    approved_by: str | None
    effective_ms: int | None
    withdrawn_ms: int | None


class Rule(Struct, frozen=True):
    """See the API's ``RetentionRule``."""

    evidence_class: str
    keep_days: int | None


class Retention(Struct, frozen=True):
    """See the API's ``RetentionState``."""

    rules: list[Rule]
    recordings_floor_days: int
    changes: list[Change]


class Effect(Struct, frozen=True):
    """See the API's ``RetentionEffect``."""

    piece: str
    device: str
    before_ms: int | None
    after_ms: int | None
    holds: list[str]


class Proposal(Struct, frozen=True):
    """See the API's ``RetentionProposal``."""

    change: Change | None
    pieces: int
    changed: int
    due_now: int
    held: int
    first: list[Effect]


class Item(Struct, frozen=True):
    """See the API's ``EvidenceItem``."""

    item: str
    org: str | None
    description: str
    case: str
    state: str
    place: str
    with_whom: str
    due_ms: int | None
    overdue: bool


class Items(Struct, frozen=True):
    """A list of them."""

    items: list[Item]


class ScrubProgress(Struct, frozen=True):
    """See the API's ``ScrubProgress``."""

    begun_ms: int
    pieces: int
    of: int


class Scrub(Struct, frozen=True):
    """See the API's ``EvidenceScrub``."""

    begun_ms: int
    ended_ms: int
    pieces: int
    bytes: int
    missing: int
    altered: int
    unreadable: int
    unlike_log: int
    unexpected: int
    names: list[str]
    why: str

    @property
    def sound(self) -> bool:
        """Finished, and nothing found."""
        counts = (self.missing, self.altered, self.unreadable, self.unlike_log, self.unexpected)
        return not self.why and not any(counts)


class Scrubs(Struct, frozen=True):
    """A list of them."""

    running: ScrubProgress | None
    scrubs: list[Scrub]


def pieces(found: Sequence[Piece]) -> Table:
    """One line a piece."""
    table = _table("piece", "device", "place", "begin", "s", "recording", "bytes", "classes", "holds", "kept until")
    for each in found:
        where = "" if each.recording is None else f"{each.recording}/{each.segment}{' end' if each.last else ''}"
        table.add_row(
            Text(each.piece),
            Text(shown(each.device)),
            Text(shown(each.org or "")),
            Text(utc(each.begin_ms)),
            Text(str(round((each.end_ms - each.begin_ms) / 1000)), justify="right"),
            Text(shown(where)),
            Text(f"{each.size}", justify="right"),
            Text(", ".join(each.classes) or "unclassified"),
            Text(", ".join(each.holds), style="bold yellow"),
            _kept(each),
        )
    return table


def piece(found: Piece) -> Table:
    """A line for each thing that is known."""
    table = _table("", "")
    rows = {
        "piece": found.piece,
        "device": found.device,
        "place at arrival": found.org or "none",
        "file": f"{shown(found.name)}, {found.file_class}, {found.size} bytes, by {found.via}",
        "sha256": found.sha256,
        "recording": "stands alone" if found.recording is None else f"{found.recording}, segment {found.segment}",
        "recorded": f"{utc(found.begin_ms)} to {utc(found.end_ms)}, within {found.begin_unc_ms} ms by {found.clock}",
        "holder": f"{found.holder}, by its {found.holder_by}" if found.holder else "not known",
        "received": utc(found.received_ms),
        "classes": ", ".join(found.classes) or "unclassified",
        "holds": ", ".join(found.holds) or "none",
        "retention": f"{found.retention}; {utc(found.due_ms) or FOR_EVER}",
        "state": f"{found.state} {found.damage}".strip(),
        "log": f"entry {found.entry} of {found.log}",
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(shown(value)))
    return table


def events(found: Sequence[CustodyEvent]) -> Table:
    """One line an event."""
    table = _table("number", "time", "what", "by", "data", "note", "entry")
    for each in found:
        hidden = {"number", "prev", "note_sha256"}
        data = " ".join(f"{name}={value[:SHORT_CHARS]}" for name, value in each.data.items() if name not in hidden)
        table.add_row(
            Text(str(each.number), justify="right"),
            Text(utc(each.at_ms)),
            Text(each.action),
            Text(shown(each.actor)),
            Text(shown(data)),
            Text(shown(each.note or "")),
            Text(f"{each.log}/{each.entry}"),
        )
    return table


def holds(found: Sequence[Hold]) -> Table:
    """One line a piece and hold."""
    table = _table("hold", "piece", "placed", "by", "released", "reason")
    for each in found:
        table.add_row(
            Text(each.hold),
            Text(each.piece),
            Text(utc(each.placed_ms)),
            Text(shown(each.placed_by)),
            Text(utc(each.released_ms)),
            Text(shown(each.reason)),
        )
    return table


def deletions(found: Sequence[Deletion]) -> Table:
    """One line a deletion."""
    table = _table("deletion", "piece", "device", "cause", "asked by", "agreed", "not before", "state", "reason")
    for each in found:
        table.add_row(
            Text(each.deletion),
            Text(each.piece),
            Text(shown(each.device)),
            Text(each.cause),
            Text(shown(each.asked_by)),
            Text(shown(each.approved_by or "")),
            Text(utc(each.not_before_ms)),
            Text(_state(each)),
            Text(shown(each.reason)),
        )
    return table


def retention(found: Retention) -> Group:
    """What counts, and what was proposed."""
    rules = _table("class", "kept")
    for rule in found.rules:
        rules.add_row(Text(rule.evidence_class), Text(_days(rule.keep_days)))
    changes = _table("change", "class", "keep", "proposed by", "agreed", "counts from", "reason")
    for each in found.changes:
        withdrawn = Text("withdrawn", style="bold yellow")
        changes.add_row(
            Text(each.change),
            Text(each.evidence_class),
            Text(_days(each.keep_days)),
            Text(shown(each.proposed_by)),
            Text(shown(each.approved_by or "")),
            Text(utc(each.effective_ms)) if each.withdrawn_ms is None else withdrawn,
            Text(shown(each.reason)),
        )
    floor = Text(f"unclassified: for ever; recordings: {found.recordings_floor_days} days at least\n")
    return Group(rules, floor, changes)


def proposal(found: Proposal) -> Group:
    """What it does."""
    lines = _table("piece", "device", "before", "after", "holds")
    for each in found.first:
        lines.add_row(
            Text(each.piece),
            Text(shown(each.device)),
            Text(utc(each.before_ms) or FOR_EVER),
            Text(utc(each.after_ms) or FOR_EVER),
            Text(", ".join(each.holds)),
        )
    told = f"{found.pieces} pieces, {found.changed} get another date; {found.due_now} would be over now"
    held = f", {found.held} of them held" if found.held else ""
    return Group(Text(f"{told}{held}"), lines)


def scrubs(found: Sequence[Scrub]) -> Table:
    """One line a scrub."""
    table = _table(
        "begun", "s", "pieces", "bytes", "missing", "altered", "unreadable", "unlike log", "unexpected", ""
    )
    for each in found:
        counts = (each.missing, each.altered, each.unreadable, each.unlike_log, each.unexpected)
        table.add_row(
            Text(utc(each.begun_ms)),
            Text(str((each.ended_ms - each.begun_ms) // 1000), justify="right"),
            Text(str(each.pieces), justify="right"),
            Text(str(each.bytes), justify="right"),
            *(Text(str(count), style="bold red" if count else "", justify="right") for count in counts),
            Text(shown(each.why and f"not finished: {each.why}"), style="bold yellow"),
        )
    return table


def scrub(found: Scrub) -> Group:
    """One, and the first of what it found."""
    return Group(scrubs([found]), *(Text(shown(name), style="bold red") for name in found.names))


def items(found: Sequence[Item]) -> Table:
    """One line an item."""
    table = _table("item", "of", "what", "case", "state", "place", "with", "back by")
    for each in found:
        table.add_row(
            Text(each.item),
            Text(shown(each.org or "")),
            Text(shown(each.description)),
            Text(shown(each.case)),
            Text(each.state),
            Text(shown(each.place)),
            Text(shown(each.with_whom)),
            Text(utc(each.due_ms), style="bold red" if each.overdue else ""),
        )
    return table


def _kept(each: Piece) -> Text:
    if each.damage:
        return Text(each.damage, style="bold red")
    if each.state != "kept":
        return Text(each.state, style="bold yellow")
    return Text(utc(each.due_ms) or FOR_EVER)


def _state(each: Deletion) -> str:
    if each.done_ms is not None:
        return "deleted" if each.gone_ms is not None else "deleted, a copy waits to be removed"
    if each.withdrawn_by is not None:
        return f"withdrawn by {shown(each.withdrawn_by)}"
    if each.holds:
        return f"held: {', '.join(each.holds)}"
    return "waits" if each.approved_by is not None else "waits for a second person"


def _days(days: int | None) -> str:
    return FOR_EVER if days is None else f"{days} days"
