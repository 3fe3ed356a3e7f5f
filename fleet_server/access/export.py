"""An export of the audit log, and what a stranger can prove of it, offline. Values only.

A file of lines: a header, entries as their canonical bytes, and the checkpoint that covers them. An export that
begins behind entry 0 has in its header the hashes of the subtrees before it, and so its tree can be computed too.
"""

import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from broker_config import merkle
from broker_config.text import shown
from fleet_server.access import audit, notes, tlog
from fleet_server.access.audit import AuditError, Digest, Entry, Phase
from fleet_server.access.notes import Checkpoint, NoteError, Verifier

LINE_BYTES_MAX: Final = 32 * 1024
MEDIA_TYPE: Final = "application/x-ndjson"
UNFINISHED_MAX: Final = 100_000
"""So many intents are remembered until their outcome comes."""
_HASHES_MAX: Final = tlog.PROOF_HASHES_MAX
_TRAILER_BEGINS: Final = b'{"t":'


class Header(Struct, frozen=True, tag="audit-export", tag_field="t"):
    """The first line. ``before``: hashes of the subtrees of entries 0 to ``from_index``, largest first."""

    v: int
    log: int
    from_index: Annotated[int, Meta(ge=0, le=audit.INDEX_MAX)]
    prev: Digest
    before: Annotated[list[Digest], Meta(max_length=_HASHES_MAX)]


class Trailer(Struct, frozen=True, tag="checkpoint", tag_field="t"):
    """The last line: a signed note."""

    note: Annotated[str, Meta(max_length=notes.NOTE_CHARS_MAX)]


class Claim(StrEnum):
    """What is said of an export, in this order."""

    FORM = "form"
    SEQUENCE = "sequence"
    CHAIN = "chain"
    TREE = "tree"
    SIGNATURE = "signature"
    WITNESS = "witness"


class Result(StrEnum):
    """SKIPPED: nothing was given to check it with, which proves nothing."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim's result; ``index``: of the first entry that is at fault, None if no single one is known to be."""

    claim: Claim
    result: Result
    detail: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings, one a claim, and figures: entries read, and intents whose outcome is not among them."""

    findings: tuple[Finding, ...]
    entries: int
    unfinished: int
    checkpoint: Checkpoint | None

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return all(finding.result is not Result.FAIL for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What a witness saw: its cosigned checkpoint of each log, and the key to check them with."""

    seen: tuple[str, ...]
    verifier: Verifier


def header_line(head: audit.Head, before: Iterable[bytes]) -> bytes:
    """Of an export of the entries from *head* on."""
    return _line(Header(audit.VERSION, head.log, head.size, head.prev, [each.hex() for each in before]))


def trailer_line(note: str) -> bytes:
    """The end of an export."""
    return _line(Trailer(note))


def verify(lines: Iterable[bytes], *, key: Verifier | None = None, witness: Witnessed | None = None) -> Verdict:
    """Check every claim. *lines* are read once, with or without line ends; one above LINE_BYTES_MAX is a fault."""
    return _Reading(witness).all_of(lines, key)


def _line(message: Header | Trailer) -> bytes:
    return msgspec.json.encode(message) + b"\n"


class _Reading:
    """Lines as they pass by: of each claim the first fault is kept."""

    def __init__(self, witness: Witnessed | None) -> None:
        self._faults: dict[Claim, Finding] = {}
        self._witness = witness
        self._seen: Checkpoint | None = None
        self._seen_root: bytes | None = None
        self._frontier = tlog.Frontier()
        self._head = audit.Head(0, 0, audit.GENESIS)
        self._entries = 0
        self._open: dict[str, int] = {}

    def fault(self, claim: Claim, detail: str, index: int | None = None) -> None:
        """Keep it, unless this claim has one."""
        self._faults.setdefault(claim, Finding(claim, Result.FAIL, detail, index))

    def all_of(self, lines: Iterable[bytes], key: Verifier | None) -> Verdict:
        """See :func:`verify`."""
        trailer: Trailer | None = None
        for number, line in enumerate(lines):
            raw = line.removesuffix(b"\n")
            if len(raw) > LINE_BYTES_MAX:
                self.fault(Claim.FORM, f"line {number + 1} is longer than {LINE_BYTES_MAX} bytes", self._head.size)
            elif number == 0:
                self._begin(raw)
            elif trailer is not None:
                self.fault(Claim.FORM, f"line {number + 1} is behind the checkpoint")
            else:
                trailer = _trailer(raw)
                if trailer is None:
                    self._take(raw)
        checkpoint = self._end(trailer)
        return Verdict(tuple(self._findings(key, trailer, checkpoint)), self._entries, len(self._open), checkpoint)

    def _begin(self, raw: bytes) -> None:
        try:
            header, self._frontier = _header(raw)
        except (msgspec.MsgspecError, ValueError) as error:
            self.fault(Claim.FORM, f"line 1 is no header of an export: {shown(error)}")
            return
        self._head = audit.Head(header.log, header.from_index, header.prev)
        self._seen = self._seen_of(header.log)
        self._look()

    def _take(self, raw: bytes) -> None:
        index = self._head.size
        try:
            entry = audit.read(raw)
        except AuditError as error:
            self.fault(Claim.FORM, str(error), index)
        else:
            self._judge(entry, index)
        self._frontier.append(merkle.leaf_hash(raw))
        self._head = audit.Head(self._head.log, index + 1, audit.digest(raw))
        self._entries += 1
        self._look()

    def _judge(self, entry: Entry, index: int) -> None:
        if entry.index != index or entry.log != self._head.log:
            self.fault(Claim.SEQUENCE, f"entry {entry.index} of log {entry.log} stands at {index}", index)
        if entry.prev != self._head.prev:
            self.fault(Claim.CHAIN, "it does not follow the entry that stands before it", index)
        if entry.phase is Phase.INTENT and len(self._open) < UNFINISHED_MAX:
            self._open[entry.request] = index
        elif entry.phase is Phase.OUTCOME:
            self._open.pop(entry.request, None)

    def _seen_of(self, log: int) -> Checkpoint | None:
        """What the witness saw of this log, once its signature is checked."""
        if self._witness is None:
            return None
        try:
            for note in self._witness.seen:
                checkpoint = notes.checkpoint_of(note)
                if audit.log_number(checkpoint.origin) == log:
                    notes.opened(note, self._witness.verifier)
                    return checkpoint
        except NoteError as error:
            self.fault(Claim.WITNESS, f"the witness's own state: {shown(error)}")
        return None

    def _look(self) -> None:
        if self._seen is not None and self._frontier.size == self._seen.size:
            self._seen_root = self._frontier.root()

    def _end(self, trailer: Trailer | None) -> Checkpoint | None:
        if trailer is None:
            self.fault(Claim.TREE, "there is no checkpoint at the end")
            return None
        try:
            checkpoint = notes.checkpoint_of(trailer.note)
        except NoteError as error:
            self.fault(Claim.TREE, str(error))
            return None
        size = self._frontier.size
        if checkpoint.size != size:
            text = f"the checkpoint covers {checkpoint.size} entries, and there are {size}"
            self.fault(Claim.TREE, text, min(size, checkpoint.size))
        elif checkpoint.root != self._frontier.root():
            self.fault(Claim.TREE, "the entries are not those that the checkpoint covers")
        return checkpoint

    def _findings(
        self, key: Verifier | None, trailer: Trailer | None, checkpoint: Checkpoint | None
    ) -> Iterator[Finding]:
        size = self._frontier.size
        yield self._faults.get(Claim.FORM) or _passed(Claim.FORM, f"{self._entries} entries")
        yield self._faults.get(Claim.SEQUENCE) or _passed(Claim.SEQUENCE, f"{size - self._entries} to {size - 1}")
        yield self._faults.get(Claim.CHAIN) or _passed(Claim.CHAIN, "each entry holds the hash of the one before")
        yield self._faults.get(Claim.TREE) or _passed(Claim.TREE, "the entries are those of the checkpoint")
        yield _signature(key, trailer)
        yield self._faults.get(Claim.WITNESS) or self._witnessed(checkpoint)

    def _witnessed(self, checkpoint: Checkpoint | None) -> Finding:
        seen = self._seen
        if self._witness is None:
            return Finding(Claim.WITNESS, Result.SKIPPED, "no --witness: a log cut short at its end looks whole")
        if seen is None or checkpoint is None or checkpoint.origin != seen.origin:
            return Finding(Claim.WITNESS, Result.FAIL, "the witness saw nothing of this log")
        if self._frontier.size < seen.size:
            text = f"the witness saw {seen.size} entries, and there are {self._frontier.size}"
            return Finding(Claim.WITNESS, Result.FAIL, text, self._frontier.size)
        if self._seen_root is None:
            text = f"it begins behind the {seen.size} entries that the witness saw"
            return Finding(Claim.WITNESS, Result.FAIL, text)
        if self._seen_root != seen.root:
            return Finding(Claim.WITNESS, Result.FAIL, f"not the first {seen.size} entries that the witness saw")
        return _passed(Claim.WITNESS, f"the first {seen.size} entries are those that the witness saw")


def _signature(key: Verifier | None, trailer: Trailer | None) -> Finding:
    if key is None:
        return Finding(Claim.SIGNATURE, Result.SKIPPED, "no --key: anyone could have made this file")
    try:
        notes.opened("" if trailer is None else trailer.note, key)
    except NoteError as error:
        return Finding(Claim.SIGNATURE, Result.FAIL, str(error))
    return _passed(Claim.SIGNATURE, f"by {key.name}")


def _passed(claim: Claim, detail: str) -> Finding:
    return Finding(claim, Result.PASS, detail)


def _header(raw: bytes) -> tuple[Header, tlog.Frontier]:
    header = msgspec.json.decode(raw, type=Header)
    if header.v != audit.VERSION or _line(header) != raw + b"\n":
        raise ValueError(f"expected version {audit.VERSION}, as it was written")
    return header, tlog.Frontier(header.from_index, [binascii.unhexlify(each) for each in header.before])


def _trailer(raw: bytes) -> Trailer | None:
    if not raw.startswith(_TRAILER_BEGINS):  # an entry's names are sorted, so it begins otherwise
        return None
    try:
        trailer = msgspec.json.decode(raw, type=Trailer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return trailer if _line(trailer) == raw + b"\n" else None
