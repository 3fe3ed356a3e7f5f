"""Puts bundles together: what is asked for, from the stores that have it. The impure part beside ``bundle``.

**Before the first byte goes out** each piece has an ``evidence.exported`` in the log, with the digest of all that is
put in, and the checkpoint that covers it is signed. What was put together waits for who asked, in memory and bounded;
the contents are read when they are taken. Who does not come in time asks again, which is another export.
"""

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Final, NamedTuple, Protocol

from broker_config.ranges import Range, normal
from broker_config.text import shown
from fleet_server.access import audit, notes, tlog
from fleet_server.access.auditor import Auditor
from fleet_server.access.notes import Checkpoint, NoteError
from fleet_server.access.signing import SignerError
from fleet_server.access.timestamps import Timestamp, Timestamps
from fleet_server.evidence import bundle, report
from fleet_server.evidence.bundle import (
    ANCHORS_MAX,
    BATCHES_MAX,
    EVENTS_MAX,
    PIECES_MAX,
    SMALL_BYTES_MAX,
    Anchor,
    Covered,
    Journal,
    Original,
    Proved,
    Trust,
)
from fleet_server.evidence.content import Content, MissingContentError
from fleet_server.evidence.custody import Entered, Event
from fleet_server.evidence.pieces import Piece, PieceFilter, Pieces, RefusedError, State, UnknownPieceError
from fleet_server.evidence.store import Keeping
from fleet_server.telemetry.store import StoreError

EXPORT_BYTES: Final = 8
WAITING_MAX: Final = 16
WAITING_BYTES_MAX: Final = 2 * SMALL_BYTES_MAX
WAIT_MS: Final = 3_600_000


class Journals(Protocol):
    """Where devices' journals are kept. Any thread may call."""

    def journal(self, device: str, life: str, *, first: int, last: int) -> Sequence[tuple[int, bytes]]:
        """See :meth:`fleet_server.telemetry.store.BatchStore.journal`."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What an export is made of beside the pieces. ``zipped``: the file that goes out, in parts, from its members;
    raises ContentError in the middle of it. ``receipts``: signed anew, each for pieces of one device; raises
    SignerError. ``timestamps``: None: there are none.
    """

    journals: Journals
    trust: Callable[[], Trust]
    zipped: Callable[[Mapping[str, bytes | Original], Content], Iterator[bytes]]
    receipts: Callable[[Sequence[Piece]], Sequence[bytes]]
    timestamps: Timestamps | None = None


class Wanted(NamedTuple):
    """Either *pieces*, by id, or all that *filtered* finds. ``witnessed``: checkpoints with a witness's line."""

    pieces: Sequence[str]
    filtered: PieceFilter | None
    witnessed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """One that waits. ``size_bytes``: of its members; the zip around them is a little more."""

    export: str
    by: str
    made_ms: int
    pieces: tuple[str, ...]
    size_bytes: int
    members: Mapping[str, bytes | Original] = field(repr=False)


class Exporter:
    """See the module's docstring. Any thread may call; *pieces* and *keeping* decide what is there for whom."""

    def __init__(
        self, pieces: Pieces, keeping: Keeping, content: Content, auditor: Auditor, sources: Sources
    ) -> None:
        self._pieces = pieces
        self._keeping = keeping
        self._content = content
        self._auditor = auditor
        self._sources = sources
        self._lock = Lock()
        self._waiting: dict[str, Export] = {}

    def ask(self, wanted: Wanted, *, by: str, now_ms: int) -> Export:
        """Put it together, and enter that it was exported.

        Raises:
            UnknownPieceError, MissingContentError, ContentError: it is not there.
            RefusedError: a piece is deleted, more than a bundle has, or a *witnessed* that is not of this log.
            StoreError, BrokenLogError: it cannot be entered, or its receipts not be signed, now.
        """
        export = secrets.token_hex(EXPORT_BYTES)
        pieces = self._found(wanted)
        witnessed = [self._seen(note) for note in wanted.witnessed]
        told = [report.Told(piece, self._entries(piece.piece)) for piece in pieces]
        texts = report.texts(told, export=export, by=by, at_ms=now_ms)
        receipts = self._receipts(pieces)
        content = bundle.content(pieces, self._journals(pieces), receipts, self._sources.trust(), texts)
        if bundle.small_bytes(content) > SMALL_BYTES_MAX:
            raise RefusedError(
                f"its manifests, journals and reports are more than {SMALL_BYTES_MAX} bytes: ask for less"
            )
        digest = bundle.content_digest(content)
        data = {"export": export, "content_sha256": digest, "pieces": str(len(pieces))}
        for piece in pieces:
            self._keeping.record(piece.piece, Event.EXPORTED, by=by, data=data, now_ms=now_ms)
        histories = {piece.piece: self._until(piece.piece, export) for piece in pieces}
        members = bundle.whole(export, {**content, **self._proofs(histories, witnessed)})
        originals = sum(piece.size for piece in pieces)
        names = tuple(piece.piece for piece in pieces)
        made = Export(export, by, now_ms, names, originals + bundle.small_bytes(members), members)
        self._keep(made)
        return made

    def waiting(self, export: str, *, by: str, now_ms: int) -> Export:
        """One that *by* asked for, and may still see. Raises UnknownPieceError: there is none, or not any more."""
        with self._lock:
            found = self._waiting.get(export)
        if found is None or found.by != by or found.made_ms + WAIT_MS < now_ms:
            raise UnknownPieceError("export", export)
        for piece in found.pieces:
            self._known(piece)
        return found

    def parts(self, made: Export) -> Iterator[bytes]:
        """The file. Raises ContentError, in the middle of it: a content is not what was entered."""
        return self._sources.zipped(made.members, self._content)

    def _found(self, wanted: Wanted) -> list[Piece]:
        if wanted.filtered is None:
            found = [self._known(piece) for piece in dict.fromkeys(wanted.pieces)]
        else:
            kept = replace(wanted.filtered, state=State.KEPT)
            found = list(self._pieces.pieces(kept, rows_max=PIECES_MAX + 1))
        if not found:
            raise RefusedError("there is nothing to export: no piece that is kept is meant")
        if len(found) > PIECES_MAX:
            raise RefusedError(f"more than {PIECES_MAX} pieces: ask for less")
        for piece in found:
            if piece.state is State.DELETED:
                raise RefusedError(f"{piece.piece} is deleted")
            if not self._content.exists(piece.sha256):
                raise MissingContentError(piece.piece)
        return found

    def _known(self, piece: str) -> Piece:
        found = self._pieces.piece(piece)
        if found is None:
            raise UnknownPieceError("piece", piece)
        return found

    def _entries(self, piece: str) -> list[audit.Entry]:
        return [audit.read(each.raw) for each in self._history(piece)]

    def _until(self, piece: str, export: str) -> list[Entered]:
        """Its events up to this export: others may follow already."""
        events: list[Entered] = []
        for each in self._history(piece):
            events.append(each)
            if audit.read(each.raw).data.get("export") == export:
                return events
        raise StoreError(f"{piece}: its export is not in its history")

    def _history(self, piece: str) -> Sequence[Entered]:
        events = self._keeping.history(piece, from_number=0, rows_max=EVENTS_MAX + 1)
        if len(events) > EVENTS_MAX:
            raise RefusedError(f"{piece}: more than {EVENTS_MAX} events")
        return events

    def _receipts(self, pieces: Sequence[Piece]) -> Sequence[bytes]:
        try:
            return self._sources.receipts(pieces)
        except SignerError as error:
            raise StoreError(f"receipts: {shown(error)}") from error

    # journals

    def _journals(self, pieces: Iterable[Piece]) -> list[Journal]:
        """One for each device and life; parts of a journal that were not received are not there."""
        wanted: defaultdict[tuple[str, str], list[Range]] = defaultdict(list)
        for piece in pieces:
            first = max(piece.journal_first, piece.journal_last - BATCHES_MAX + 1)
            wanted[piece.device, piece.journal_life].append((first, piece.journal_last))
        found = []
        for (device, life), ranges in sorted(wanted.items()):
            batches: list[tuple[int, bytes]] = []
            for first, last in normal(ranges):
                if len(batches) < BATCHES_MAX:
                    batches += self._sources.journals.journal(device, life, first=first, last=last)
            if batches:
                found.append(Journal(device, life, batches))
        return found

    # what the log proves

    def _seen(self, note: str) -> tuple[Checkpoint, str]:
        try:
            notes.opened(note, self._auditor.verifier)
            return notes.checkpoint_of(note), note
        except NoteError as error:
            raise RefusedError(f"what was witnessed is no checkpoint of this log: {shown(error)}") from error

    def _proofs(
        self, histories: Mapping[str, Sequence[Entered]], witnessed: Sequence[tuple[Checkpoint, str]]
    ) -> dict[str, bytes]:
        newest = self._auditor.sign()
        logs = sorted({each.log for events in histories.values() for each in events})
        covered = {log: self._checkpoint(log, newest) for log in logs}
        proved = {piece: [self._proved(each, covered) for each in events] for piece, events in histories.items()}
        arrivals = [events[0] for events in histories.values()]
        return bundle.proofs(
            proved,
            [
                Covered(log, note, self._anchors(checkpoint, log, arrivals, witnessed))
                for log, (checkpoint, note) in covered.items()
            ],
        )

    def _checkpoint(self, log: int, newest: str | None) -> tuple[Checkpoint, str]:
        """The one that was just signed, or the last one of a log that is over."""
        note = newest
        if note is None or audit.log_number(notes.checkpoint_of(note).origin) != log:
            note = self._auditor.store.checkpoint(log)
        if note is None:
            raise StoreError(f"nothing of log {log} is signed")
        return notes.checkpoint_of(note), note

    def _proved(self, event: Entered, covered: Mapping[int, tuple[Checkpoint, str]]) -> Proved:
        size = covered[event.log][0].size
        if event.entry >= size:
            raise StoreError(f"entry {event.entry} of log {event.log} is not signed: {size} are")
        return Proved(event.log, event.raw, self._auditor.store.hashes(event.log, tlog.inclusion(event.entry, size)))

    def _anchors(
        self,
        end: Checkpoint,
        log: int,
        arrivals: Sequence[Entered],
        witnessed: Sequence[tuple[Checkpoint, str]],
    ) -> list[Anchor]:
        """The first checkpoints that cover each arrival, stamped or not, and what witnesses saw."""
        found: dict[str, tuple[Checkpoint, bytes | None]] = {}
        for arrival in (each for each in arrivals if each.log == log):
            size = arrival.entry + 2  # that it was received, and that it was read again
            note = self._auditor.store.checkpoint_from(log, size)
            if note is not None:
                found.setdefault(note, (notes.checkpoint_of(note), None))
            stamp = self._stamp(log, size)
            if stamp is not None:
                found[stamp.note] = notes.checkpoint_of(stamp.note), stamp.token
        plain = sorted(found.items(), key=lambda item: (item[1][1] is None, item[1][0].size))
        mine = [(each, note, None) for each, note in witnessed if each.origin == end.origin]
        every = [*mine, *((each, note, token) for note, (each, token) in plain)]
        return [
            Anchor(note, self._consistency(log, each.size, end.size), token)
            for each, note, token in every[:ANCHORS_MAX]
            if 0 < each.size <= end.size
        ]

    def _stamp(self, log: int, size: int) -> Timestamp | None:
        stamps = self._sources.timestamps
        return None if stamps is None else next(iter(stamps.all(log, from_size=size, rows_max=1)), None)

    def _consistency(self, log: int, old: int, size: int) -> list[bytes]:
        return self._auditor.store.hashes(log, tlog.consistency(old, size))

    # what waits

    def _keep(self, made: Export) -> None:
        with self._lock:
            kept = [*self._waiting.values(), made]
            while (
                len(kept) > WAITING_MAX or sum(bundle.small_bytes(each.members) for each in kept) > WAITING_BYTES_MAX
            ):
                kept.pop(0)
            fresh = [each for each in kept if each.made_ms + WAIT_MS >= made.made_ms]
            self._waiting = {each.export: each for each in fresh}
