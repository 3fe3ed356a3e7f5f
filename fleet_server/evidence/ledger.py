"""Expected, recorded, uploaded, verified: a device's journal held against the pieces that are kept. Values only.

A recording is expected from when the journal says that it began, so one whose device died is a row. The device says
how many segments it has, by closing it, or by the last one's manifest; each is verified once its piece is in the
index, and stays so if the piece is deleted later. Times of recordings are the device's, of arrivals the server's.

Rule 1: a row is never better than what is proved: until it is known how many segments there are, it is not verified.
Rule 2: a start that no recording answers is a row of its own, with an empty ``recording``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from broker_config import limits
from broker_config.ranges import Ranges, from_numbers, holes, minus, normal
from fleet_server.evidence.journal import Note, Noted
from fleet_server.evidence.pieces import Damage, HolderBy, Piece
from fleet_server.registry import assignments
from fleet_server.registry.assignments import Assignment

OVERDUE_MS: Final = 24 * 3_600_000
"""From the end of a recording, or the last that was heard of one that never ended, until all of it is to be here."""
ANSWER_MS: Final = 120_000
"""How far from its start a recording may be seen to begin: the folder is looked at now and then, and cameras keep
what was before.
"""
DAY_MS: Final = 86_400_000


class Standing(StrEnum):
    """How a recording is; the worst that is true. ``incomplete``: all is here that the device ever had, and it says
    itself that segments never came.
    """

    DAMAGED = "damaged"
    OVERDUE = "overdue"
    OPEN = "open"
    UPLOADING = "uploading"
    INCOMPLETE = "incomplete"
    VERIFIED = "verified"


DONE: Final = frozenset({Standing.VERIFIED, Standing.INCOMPLETE})


class Span(NamedTuple):
    """``from_ms <= time < to_ms``, by the device's clock."""

    from_ms: int
    to_ms: int


class Place(NamedTuple):
    """Where a row stands in its device's order."""

    begin_ms: int
    file_class: str
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """A recording, or a file that stands alone.

    ``recording``: empty if the journal only says that one began, or if it stands alone, as ``upload`` does.
    ``end_ms``: None: not ended, or not known. ``closed``: it is known how many ``segments`` there are; else that is
    how many are known of. ``sealed``, ``verified``, ``skipped``, ``missing``: numbers of segments; ``missing`` are
    those neither verified nor skipped. ``done_ms``: when the last of it was verified. ``due_ms``: when all of it is
    to be here. ``holder_by``: who says who had the device; None: nobody, and ``holder`` is empty. ``path``: of the
    organisation node at its arrival, empty if nothing has come.
    """

    recording: str
    upload: str
    file_class: str
    trigger: str
    reason: str
    holder: str
    holder_by: HolderBy | None
    path: str
    begin_ms: int
    end_ms: int | None
    closed: bool
    segments: int
    sealed: Ranges
    verified: Ranges
    skipped: Ranges
    missing: Ranges
    size: int
    done_ms: int | None
    due_ms: int
    standing: Standing

    @property
    def place(self) -> Place:
        """See :class:`Place`."""
        return Place(self.begin_ms, self.file_class, self.recording or self.upload)

    def late_ms(self, now_ms: int) -> int:
        """How long after it was due all of it was here; of what is not yet, until now."""
        return max(0, (now_ms if self.done_ms is None else self.done_ms) - self.due_ms)


class Key(NamedTuple):
    """What a row is of: a recording of a folder, or an upload that stands alone, or a start (``begun``: its time)."""

    file_class: str = ""
    recording: str = ""
    upload: str = ""
    begun: int = 0


@dataclass(slots=True)
class _Making:
    key: Key
    begin_ms: int
    heard_ms: int
    trigger: str = ""
    reason: str = ""
    holder: str = ""
    holder_by: HolderBy | None = None
    ended_ms: int | None = None
    closed_at: int | None = None  # the number of segments
    sealed: set[int] = field(default_factory=set)
    skipped: list[tuple[int, int]] = field(default_factory=list)
    pieces: dict[int, Piece] = field(default_factory=dict)

    def given_to(self, holder: str, by: HolderBy) -> None:
        """Who says so first is believed."""
        if holder and not self.holder:
            self.holder, self.holder_by = holder, by

    def hear(self, at_ms: int) -> None:
        self.begin_ms, self.heard_ms = min(self.begin_ms, at_ms), max(self.heard_ms, at_ms)


def rows(
    notes: Sequence[Note], pieces: Iterable[Piece], *, now_ms: int, held: Sequence[Assignment] = ()
) -> list[Row]:
    """All that *notes* and *pieces* of one device tell of, in their order.

    Args:
        notes: oldest first, of a time that holds a recording whole; one that began before is told of from there.
        pieces: whose recordings touch that time.
        held: who had the device then, by the book of assignments.
    """
    making: dict[Key, _Making] = {}
    for note in notes:
        _take_note(making, note)
    for piece in pieces:
        _take_piece(making, piece)
    _take_starts(making, notes)
    _assign(making, notes, held)
    return sorted((_row(each, now_ms) for each in making.values()), key=lambda row: row.place)


def _take_note(making: dict[Key, _Making], note: Note) -> None:
    if note.kind not in {Noted.OPENED, Noted.CLOSED, Noted.SKIPPED, Noted.SEALED}:
        return
    recording, upload = note.text("recording"), note.text("upload")
    key = Key(note.text("file_class"), recording, "" if recording else upload)
    if not (recording or (upload and note.kind is Noted.SEALED)):
        return
    found = making.setdefault(key, _Making(key, note.at_ms, note.at_ms))
    found.hear(note.at_ms)
    match note.kind:
        case Noted.OPENED:
            found.trigger = note.text("trigger")
        case Noted.CLOSED:
            found.reason, found.ended_ms = note.text("reason"), note.at_ms
            found.closed_at = _bounded(note.number("segments"))
        case Noted.SKIPPED:
            first, last = _bounded(note.number("first")), _bounded(note.number("last"))
            if first and last:
                found.skipped.append((first, last))
        case _:
            number = 1 if upload == key.upload else _bounded(note.number("number"))
            if number:
                found.sealed.add(number)


def _bounded(number: int | None) -> int | None:
    return None if number is None or number > limits.SEGMENTS_MAX else number


def _take_piece(making: dict[Key, _Making], piece: Piece) -> None:
    key = Key(piece.file_class, piece.recording, "" if piece.recording else piece.piece)
    found = making.setdefault(key, _Making(key, piece.begin_ms, piece.end_ms))
    found.hear(piece.begin_ms)
    found.hear(piece.end_ms)
    found.given_to(piece.holder, HolderBy.MANIFEST)
    found.pieces[piece.segment or 1] = piece


def _take_starts(making: dict[Key, _Making], notes: Sequence[Note]) -> None:
    """Starts that nothing answers. A recording answers one ``rec.start``, and each interview that it covers."""
    recordings = sorted((each for each in making.values() if each.key.recording), key=lambda each: each.begin_ms)
    free = list(recordings)
    for at, note in enumerate(notes):
        if note.kind is Noted.BEGUN:
            answer = next((each for each in free if abs(each.begin_ms - note.at_ms) <= ANSWER_MS), None)
            if answer is not None:
                free.remove(answer)
                answer.trigger = answer.trigger or note.text("trigger")
                continue
        elif note.kind is not Noted.INTERVIEW_BEGUN or any(_covers(each, note.at_ms) for each in recordings):
            continue
        key = Key(begun=note.at_ms)
        trigger = note.text("trigger") or note.kind.value
        made = making[key] = _Making(key, note.at_ms, note.at_ms, trigger)
        end = Noted.ENDED if note.kind is Noted.BEGUN else Noted.INTERVIEW_ENDED
        ended = next((each for each in notes[at + 1 :] if each.kind in {note.kind, end}), None)
        if ended is not None and ended.kind is end:
            made.ended_ms, made.reason = ended.at_ms, ended.text("reason")
            made.hear(ended.at_ms)


def _covers(recording: _Making, at_ms: int) -> bool:
    ends = recording.heard_ms if recording.ended_ms is not None or recording.pieces else at_ms
    return recording.begin_ms - ANSWER_MS <= at_ms <= ends + ANSWER_MS


def _assign(making: dict[Key, _Making], notes: Sequence[Note], held: Sequence[Assignment]) -> None:
    """Whose device it was when it began, where no manifest says; never whoever had it last."""
    handed = [note for note in notes if note.kind in {Noted.ASSIGNED, Noted.UNASSIGNED}]
    for each in making.values():
        before = [note for note in handed if note.at_ms <= each.begin_ms]
        if before and before[-1].kind is Noted.ASSIGNED:
            each.given_to(before[-1].text("holder"), HolderBy.JOURNAL)
        given = assignments.holding(held, each.begin_ms)
        if given is not None:
            each.given_to(given.whom.officer, HolderBy.ASSIGNMENT)


def _row(made: _Making, now_ms: int) -> Row:
    pieces = made.pieces
    last = next((number for number, piece in pieces.items() if piece.last), None)
    alone = bool(made.key.upload)
    stated = 1 if alone else made.closed_at if made.closed_at is not None else last
    verified, sealed, skipped = from_numbers(pieces), from_numbers(made.sealed), normal(made.skipped)
    known = max(stated or 0, *(ranges[-1][1] for ranges in (verified, sealed, skipped) if ranges), 0)
    missing = minus(holes(verified, known), skipped)
    ended = made.ended_ms
    if ended is None and (alone or (stated is not None and stated in pieces)):
        ended = made.heard_ms
    standing = _standing(made, stated, missing, skipped)
    done_ms = max((piece.received_ms for piece in pieces.values()), default=None) if standing in DONE else None
    due_ms = (made.heard_ms if ended is None else ended) + OVERDUE_MS
    if standing not in DONE and standing is not Standing.DAMAGED and now_ms > due_ms:
        standing = Standing.OVERDUE
    paths = [pieces[number].path for number in sorted(pieces)]
    return Row(
        recording=made.key.recording,
        upload=made.key.upload,
        file_class=made.key.file_class,
        trigger=made.trigger,
        reason=made.reason,
        holder=made.holder,
        holder_by=made.holder_by,
        path=paths[0] if paths else "",
        begin_ms=made.begin_ms,
        end_ms=ended,
        closed=stated is not None,
        segments=known,
        sealed=sealed,
        verified=verified,
        skipped=skipped,
        missing=missing,
        size=sum(piece.size for piece in pieces.values()),
        done_ms=done_ms,
        due_ms=due_ms,
        standing=standing,
    )


def _standing(made: _Making, stated: int | None, missing: Ranges, skipped: Ranges) -> Standing:
    """Whatever the time is."""
    if any(piece.damage is not Damage.NONE for piece in made.pieces.values()):
        return Standing.DAMAGED
    if stated is not None and made.pieces and not missing:
        return Standing.INCOMPLETE if skipped else Standing.VERIFIED
    return Standing.OPEN if stated is None and made.ended_ms is None else Standing.UPLOADING


@dataclass(frozen=True, slots=True)
class Totals:
    """Recordings that began on a day, counted; ``late``: here, and after they were due; ``begun_only``: of which the
    journal has the start and nothing more. They add up.
    """

    expected: int = 0
    closed: int = 0
    verified: int = 0
    incomplete: int = 0
    damaged: int = 0
    overdue: int = 0
    late: int = 0
    late_ms_max: int = 0
    begun_only: int = 0
    segments_missing: int = 0
    size: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        own = {name: getattr(self, name) + getattr(other, name) for name in Totals.__slots__}
        return Totals(**{**own, "late_ms_max": max(self.late_ms_max, other.late_ms_max)})


def totals(row: Row, *, now_ms: int) -> Totals:
    """Of one row."""
    late_ms = row.late_ms(now_ms)
    return Totals(
        expected=1,
        closed=int(row.closed),
        verified=int(row.standing is Standing.VERIFIED),
        incomplete=int(row.standing is Standing.INCOMPLETE),
        damaged=int(row.standing is Standing.DAMAGED),
        overdue=int(row.standing is Standing.OVERDUE),
        late=int(row.done_ms is not None and late_ms > 0),
        late_ms_max=late_ms,
        begun_only=int(not row.recording and not row.upload),
        segments_missing=sum(high - low + 1 for low, high in row.missing),
        size=row.size,
    )


def days(found: Iterable[Row], *, now_ms: int) -> dict[int, Totals]:
    """By the day (UTC) on which they began: ms since the epoch of its first moment, ascending."""
    out: dict[int, Totals] = {}
    for row in found:
        day = row.begin_ms - row.begin_ms % DAY_MS
        out[day] = out.get(day, Totals()) + totals(row, now_ms=now_ms)
    return dict(sorted(out.items()))


def within(found: Iterable[Row], span: Span) -> Iterator[Row]:
    """Those that began in that time."""
    return (row for row in found if span.from_ms <= row.begin_ms < span.to_ms)
