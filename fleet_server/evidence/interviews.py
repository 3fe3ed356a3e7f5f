"""Interviews in rooms, and how far their recording covers them: each gap with its reason. Values only.

An interview is from ``session.start`` to ``session.stop`` of a room's journal. Times within it are ms after its
start: by the monotonic clock where the boot is the start's, else by the device's clock. A segment that follows
another by number adjoins it as far as its manifest says so; everything else that no segment covers is
a gap, and so is what the recorder itself says is missing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from broker_config import manifest
from broker_config.manifest import Manifest, Moment
from broker_config.signing import Envelope
from fleet_server.evidence.journal import Note, Noted
from fleet_server.evidence.pieces import Damage, Piece, State

FRAME_MS: Final = 40
"""What is shorter than a frame at 25 a second is no gap."""
GAPS_MAX: Final = 500
"""Told of one interview; the rest are counted."""
_ENVELOPE: Final = msgspec.json.Decoder(Envelope)


class Cause(StrEnum):
    """Why a part is not covered; the first that is true."""

    RECORDER = "recorder"
    RESTARTED = "restarted"
    NOT_HERE = "not_here"
    NEVER_WRITTEN = "never_written"
    UNEXPLAINED = "unexplained"


class Part(NamedTuple):
    """ms after the start of the interview; *from_ms* < *to_ms*."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Gap:
    """``detail``: in the device's own words, or which segments."""

    part: Part
    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece that covers some of it."""

    piece: Piece
    part: Part


@dataclass(frozen=True, slots=True)
class Interview:
    """``begin``, ``end``: the journal's events; ``end`` None: it lasts, or nobody knows when it ended, and is looked
    at up to ``length_ms``. ``covered_ms``: of that. ``told``: what the recorder itself says is missing.
    """

    begin: Note
    end: Note | None
    length_ms: int
    covered_ms: int
    segments: tuple[Segment, ...]
    gaps: tuple[Gap, ...]
    gaps_total: int
    told: tuple[Gap, ...] = ()

    @property
    def reference(self) -> str:
        """As the room names it."""
        return self.begin.text("reference")

    @property
    def whole(self) -> bool:
        """It has ended, and nothing of it is missing or damaged."""
        sound = all(each.piece.damage is Damage.NONE and each.piece.state is State.KEPT for each in self.segments)
        return self.end is not None and not self.gaps and sound


def interviews(notes: Sequence[Note], pieces: Iterable[Piece], *, now_ms: int) -> list[Interview]:
    """All of one device, in the order of *notes*, oldest first; *pieces*: whose recordings touch that time."""
    said = [(piece, _manifest(piece)) for piece in pieces if piece.recording]
    found = []
    for at, note in enumerate(notes):
        if note.kind is Noted.INTERVIEW_BEGUN:
            marks = {Noted.INTERVIEW_BEGUN, Noted.INTERVIEW_ENDED}
            following = next((each for each in notes[at + 1 :] if each.kind in marks), None)
            end = following if following is not None and following.kind is Noted.INTERVIEW_ENDED else None
            until = following.at_ms if following is not None else now_ms
            found.append(_interview(note, end, until, notes, said))
    return found


def _manifest(piece: Piece) -> Manifest | None:
    """What the device signed; None if it cannot be read, and then the index's times count."""
    try:
        return manifest.decode(_ENVELOPE.decode(piece.envelope))
    except (manifest.BadManifestError, msgspec.MsgspecError):
        return None


def _interview(
    begin: Note,
    end: Note | None,
    until_ms: int,
    notes: Sequence[Note],
    said: Sequence[tuple[Piece, Manifest | None]],
) -> Interview:
    length_ms = max(0, until_ms - begin.at_ms if end is None else _after(begin, end.boot, end.mono, end.at_ms))
    whole = Part(0, length_ms)
    segments = sorted(_segments(begin, whole, said), key=lambda each: (each.part, each.piece.segment))
    here = [each.part for each in segments if each.piece.state is State.KEPT and each.piece.damage is Damage.NONE]
    told = list(_told(begin, whole, notes))
    uncovered = _minus([whole] if length_ms else [], here)
    covered = _minus(_minus([whole] if length_ms else [], uncovered), [each.part for each in told])
    gaps = [Gap(part, *_cause(begin, part, notes, segments, told)) for part in uncovered] + [
        each for each in told if not any(part.from_ms <= each.part.from_ms < part.to_ms for part in uncovered)
    ]
    gaps = sorted(
        (each for each in gaps if each.part.to_ms - each.part.from_ms > FRAME_MS), key=lambda each: each.part
    )
    covered_ms = sum(part.to_ms - part.from_ms for part in covered)
    return Interview(
        begin, end, length_ms, covered_ms, tuple(segments), tuple(gaps[:GAPS_MAX]), len(gaps), tuple(told[:GAPS_MAX])
    )


def _after(begin: Note, boot: str, mono: int, at_ms: int) -> int:
    """How long after the start, in ms."""
    return mono - begin.mono if boot == begin.boot else at_ms - begin.at_ms


def _at(begin: Note, moment: Moment) -> int:
    return _after(begin, moment.boot, moment.mono, moment.t_ms)


def _segments(begin: Note, whole: Part, said: Sequence[tuple[Piece, Manifest | None]]) -> Iterator[Segment]:
    ends: dict[tuple[str, int, str], int] = {}
    for piece, signed in sorted(said, key=lambda each: (each[0].recording, each[0].segment)):
        if signed is None:
            from_ms, to_ms = piece.begin_ms - begin.at_ms, piece.end_ms - begin.at_ms
        else:
            from_ms, to_ms = _at(begin, signed.begin), _at(begin, signed.end)
            before = ends.get((piece.recording, piece.segment - 1, signed.begin.boot))
            if signed.segment is not None and before is not None:
                # the folder is looked at now and then: where a segment begins, the one before knows better
                from_ms = before + signed.segment.gap_ms
            ends[piece.recording, piece.segment, signed.end.boot] = to_ms
        part = Part(max(whole.from_ms, from_ms), min(whole.to_ms, to_ms))
        if part.from_ms < part.to_ms:
            yield Segment(piece, part)


def _told(begin: Note, whole: Part, notes: Sequence[Note]) -> Iterator[Gap]:
    """What the recorder says is missing; its times are the device's clock."""
    for note in notes:
        from_ms, to_ms = note.number("from_ms"), note.number("to_ms")
        if note.kind is Noted.GAP and from_ms is not None and to_ms is not None:
            part = Part(max(whole.from_ms, from_ms - begin.at_ms), min(whole.to_ms, to_ms - begin.at_ms))
            if part.from_ms < part.to_ms:
                yield Gap(part, Cause.RECORDER, note.text("reason") or "no reason given")


def _minus(parts: Iterable[Part], other: Iterable[Part]) -> list[Part]:
    """What is in *parts*, which are in order and apart, and not in *other*."""
    left = list(parts)
    for cut in sorted(other):
        left = [
            piece
            for part in left
            for piece in (
                Part(part.from_ms, min(part.to_ms, cut.from_ms)),
                Part(max(part.from_ms, cut.to_ms), part.to_ms),
            )
            if piece.from_ms < piece.to_ms
        ]
    return left


def _cause(
    begin: Note, part: Part, notes: Sequence[Note], segments: Sequence[Segment], told: Sequence[Gap]
) -> tuple[Cause, str]:
    for gap in told:
        if _touch(gap.part, part):
            return Cause.RECORDER, gap.detail
    for each in segments:
        if _touch(each.part, part):
            lost = "deleted" if each.piece.state is State.DELETED else f"damaged: {each.piece.damage.value}"
            return Cause.NOT_HERE, f"{each.piece.recording} segment {each.piece.segment} is {lost}"
    for note in notes:
        if note.kind is Noted.BOOT and part.from_ms - FRAME_MS <= note.at_ms - begin.at_ms <= part.to_ms + FRAME_MS:
            return Cause.RESTARTED, "the device restarted"
    held = {(each.piece.recording, each.piece.segment) for each in segments}
    recordings = {name for name, _ in held}
    for note in notes:
        at_ms = _after(begin, note.boot, note.mono, note.at_ms)
        if note.kind is Noted.SKIPPED and note.text("recording") in recordings and at_ms >= part.from_ms:
            first, last = note.number("first"), note.number("last")
            return Cause.NEVER_WRITTEN, f"{note.text('recording')} segments {first} to {last} never came"
        if note.kind is Noted.SEALED and part.from_ms < at_ms and note.text("recording"):
            name, number = note.text("recording"), note.number("number")
            if number and (name, number) not in held and at_ms - part.to_ms < _slack(part):
                return Cause.NOT_HERE, f"{name} segment {number} is not here yet"
    return Cause.UNEXPLAINED, ""


def _touch(one: Part, other: Part) -> bool:
    return one.from_ms < other.to_ms and other.from_ms < one.to_ms


def _slack(part: Part) -> int:
    """A segment is sealed some time after its end."""
    return max(60_000, part.to_ms - part.from_ms)
