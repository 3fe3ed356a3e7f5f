"""The certificate of an interview: what the room's journal and the custody log say of it, signed by the audit key.

A certificate is a JSON file of ``document``, the canonical bytes as text, and ``note``, a C2SP signed note over the
readable text that follows from the document and ends with the document's SHA-256. So both are signed, and neither
can say what the other does not. The text's first line keeps it apart from a checkpoint's.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from broker_config.text import shown
from fleet_server.access import notes
from fleet_server.access.notes import NoteError, Verifier
from fleet_server.evidence.interviews import Interview

CERTIFICATE_BYTES_MAX: Final = 4 * 1024 * 1024
SEGMENTS_MAX: Final = 10_000
GAPS_IN_TEXT_MAX: Final = 60
TITLE: Final = "fieldfleet session certificate v1"

Word = Annotated[str, Meta(max_length=256)]


class CertificateError(ValueError):
    """Not a certificate, or not what was signed."""


class CertifiedSegment(Struct, frozen=True, forbid_unknown_fields=True):
    """``from_ms``, ``to_ms``: after the begin. ``log``, ``entry``: where the custody log has its verification."""

    piece: Word
    recording: Word
    number: int
    sha256: Word
    manifest_sha256: Word
    size: int
    from_ms: int
    to_ms: int
    state: Word
    damage: Word
    log: int
    entry: int


class CertifiedGap(Struct, frozen=True, forbid_unknown_fields=True):
    """``from_ms``, ``to_ms``: after the begin."""

    from_ms: int
    to_ms: int
    cause: Word
    detail: Word


class CertifiedEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """An event of the room's journal: by its clock, and where it is."""

    at_ms: int
    life: Word
    seq: int
    place: int


class Document(Struct, frozen=True, forbid_unknown_fields=True, tag_field="t", tag="session_certificate"):
    """``checkpoint``: of the audit log when it was made, which has all of ``entry``."""

    v: Literal[1]
    device: Word
    org: Word
    reference: Word
    begin: CertifiedEvent
    end: CertifiedEvent | None
    length_ms: int
    covered_ms: int
    whole: bool
    gaps_total: int
    segments: Annotated[tuple[CertifiedSegment, ...], Meta(max_length=SEGMENTS_MAX)]
    gaps: Annotated[tuple[CertifiedGap, ...], Meta(max_length=SEGMENTS_MAX)]
    issued_ms: int
    issued_by: Word
    checkpoint: Annotated[str, Meta(max_length=notes.NOTE_CHARS_MAX)]


class Certificate(Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    document: str
    note: str


def document(
    interview: Interview, *, device: str, org: str, issued_ms: int, issued_by: str, checkpoint: str
) -> Document:
    """What is certified. Raises CertificateError: more segments than one has."""
    if len(interview.segments) > SEGMENTS_MAX:
        raise CertificateError(f"segments: expected at most {SEGMENTS_MAX}, got {len(interview.segments)}")
    begin, end = interview.begin, interview.end
    return Document(
        v=1,
        device=device,
        org=org,
        reference=shown(interview.reference),
        begin=CertifiedEvent(begin.at_ms, begin.life, begin.seq, begin.place),
        end=None if end is None else CertifiedEvent(end.at_ms, end.life, end.seq, end.place),
        length_ms=interview.length_ms,
        covered_ms=interview.covered_ms,
        whole=interview.whole,
        gaps_total=interview.gaps_total,
        segments=tuple(
            CertifiedSegment(
                piece=each.piece.piece,
                recording=each.piece.recording,
                number=each.piece.segment,
                sha256=each.piece.sha256,
                manifest_sha256=each.piece.manifest_sha256,
                size=each.piece.size,
                from_ms=each.part.from_ms,
                to_ms=each.part.to_ms,
                state=each.piece.state.value,
                damage=each.piece.damage.value,
                log=each.piece.log,
                entry=each.piece.entry,
            )
            for each in interview.segments
        ),
        gaps=tuple(CertifiedGap(*each.part, each.cause.value, shown(each.detail)) for each in interview.gaps),
        issued_ms=issued_ms,
        issued_by=shown(issued_by),
        checkpoint=checkpoint,
    )


def encoded(found: Document) -> str:
    """The canonical bytes, as text."""
    return msgspec.json.encode(found).decode()


def text(found: Document) -> str:
    """What people read, and what is signed."""
    end = "not ended" if found.end is None else f"{found.end.at_ms} ms since 1970 by the room's clock"
    share = 100 * found.covered_ms // found.length_ms if found.length_ms else 100
    return "\n".join(
        (
            TITLE,
            f"room: {found.device}, of {found.org or 'no place'}",
            f"reference: {found.reference or 'none'}",
            f"begin: {found.begin.at_ms} ms since 1970 by the room's clock",
            f"end: {end}",
            f"length: {_clock(found.length_ms)}, of which recorded: {_clock(found.covered_ms)} ({share} %)",
            f"verdict: {'recorded without a gap' if found.whole else 'NOT recorded without a gap'}",
            f"segments: {len(found.segments)}, {sum(each.size for each in found.segments)} bytes",
            f"gaps: {found.gaps_total}",
            *_gap_lines(found.gaps),
            f"issued: {found.issued_ms} ms since 1970, for {found.issued_by}",
            f"document sha256: {hashlib.sha256(encoded(found).encode()).hexdigest()}",
            "",
        )
    )


def _gap_lines(gaps: Iterable[CertifiedGap]) -> Iterable[str]:
    for number, gap in enumerate(gaps):
        if number == GAPS_IN_TEXT_MAX:
            yield "  more: see the document"
            return
        detail = f", {gap.detail}" if gap.detail else ""
        yield f"  {_clock(gap.from_ms)} to {_clock(gap.to_ms)}: {gap.cause}{detail}"


def _clock(ms: int) -> str:
    seconds, rest = divmod(ms, 1_000)
    return f"{seconds // 3_600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


def verified(data: bytes, key: Verifier) -> tuple[Document, str]:
    """What a certificate says, and its text. Raises CertificateError: not one, or not signed by *key*."""
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise CertificateError(f"certificate: expected at most {CERTIFICATE_BYTES_MAX} bytes, got {len(data)}")
    try:
        found = msgspec.json.decode(data, type=Certificate)
        said = msgspec.json.decode(found.document, type=Document)
        notes.opened(found.note, key)
    except NoteError as error:
        raise CertificateError(f"signature: {shown(error)}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CertificateError(f"certificate: {shown(error)}") from error
    told = found.note.rpartition("\n\n")[0] + "\n"
    if encoded(said) != found.document:
        raise CertificateError("document: expected its canonical form")
    if text(said) != told:
        raise CertificateError("text: what is signed is not what the document says")
    return said, told
