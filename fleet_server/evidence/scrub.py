"""Reads everything that is kept again, and names what is missing, altered, unreadable, unlike the log or unexpected.

Of each piece: does the index say what the log says (the chain of its events, whole, with the hash of the content)?
And then of each copy: does the content have that hash? What changed since the last time is an event of the piece, and
each scrub is one of the ``store``, whatever it found. Nothing is repaired or removed here.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import BinaryIO, Final, NamedTuple, Protocol

from broker_config.text import shown
from fleet_server.access import audit
from fleet_server.access.audit import GENESIS, AuditError
from fleet_server.evidence import custody
from fleet_server.evidence.content import Content, ContentError, MissingContentError
from fleet_server.evidence.custody import EVENTS_READ, Entered
from fleet_server.evidence.pieces import BEGINNING, After, Damage, Piece, PieceFilter, Pieces, State
from fleet_server.telemetry.store import StoreError

READ_BYTES: Final = 1024 * 1024
PIECES_A_READ: Final = 200
NAMES_MAX: Final = 100
"""Of those that a scrub names; it counts all."""
TOLD_MAX: Final = 1_000
"""Events of pieces that one scrub enters; the next one goes on."""
UNEXPECTED_MAX: Final = 10_000
"""Names that nobody knows, of which a scrub makes sure."""
COPY_MS_MAX: Final = 3_600_000
"""A second copy is made after the first was entered; that it is not there yet is no fault for so long."""

logger = logging.getLogger(__name__)


class Scrub(NamedTuple):
    """What one came to. ``why``: it was not finished, empty: it was. ``names``: ``WHAT NAME [COPY]`` of the first."""

    begun_ms: int
    ended_ms: int
    pieces: int
    bytes: int
    missing: int
    altered: int
    unreadable: int
    unlike_log: int
    unexpected: int
    names: tuple[str, ...]
    why: str = ""

    @property
    def found(self) -> int:
        """How many are not as they should be."""
        return self.missing + self.altered + self.unreadable + self.unlike_log + self.unexpected


class Progress(NamedTuple):
    """Of one that runs."""

    begun_ms: int
    pieces: int
    of: int
    bytes: int


class Scrubs(Protocol):
    """What scrubs need of the index. Every method raises StoreError."""

    def events(self, piece: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """As :meth:`fleet_server.evidence.store.Keeping.history`."""

    def mark(self, piece: str, damage: Damage, *, copy: str, now_ms: int) -> None:
        """Enter that a piece is damaged, or sound again, and let the index say so."""

    def keep(self, scrub: Scrub) -> None:
        """Enter it; durable once it returns."""

    def all(self, *, before_ms: int | None, rows_max: int) -> Sequence[Scrub]:
        """The newest first."""


class StoppedError(Exception):
    """The server stops."""


@dataclass
class _Tally:
    counts: dict[Damage, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    unexpected: int = 0
    told: int = 0

    def note(self, damage: Damage, name: str, copy: str) -> None:
        self.counts[damage] = self.counts.get(damage, 0) + 1
        self.name(f"{damage} {name} {copy}".rstrip())

    def name(self, text: str) -> None:
        if len(self.names) < NAMES_MAX:
            self.names.append(text)


class Scrubber:
    """One thread scrubs, any asks how far it is. *copies*: the first is where originals are read."""

    def __init__(
        self,
        pieces: Pieces,
        scrubs: Scrubs,
        copies: Sequence[Content],
        *,
        bytes_a_second: int,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pieces = pieces
        self.scrubs = scrubs
        self._copies = copies
        self._bytes_a_second = bytes_a_second
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._lock = Lock()
        self._progress: Progress | None = None

    @property
    def progress(self) -> Progress | None:
        """Of the one that runs; None if none does."""
        with self._lock:
            return self._progress

    def run(self, stop: Event) -> Scrub:
        """Read everything once, and enter what was found.

        Raises:
            StoppedError: *stop* was set; nothing but single pieces' events was entered.
            StoreError: the index cannot be read, or takes nothing.
        """
        begun_ms, tally, why = self._now_ms(), _Tally(), ""
        with self._lock:
            self._progress = Progress(begun_ms, 0, self._pieces.totals().pieces, 0)
        try:
            try:
                strangers = self._strangers()
                for piece in self._kept():
                    self._look_at(piece, tally, stop)
                self._still_strange(strangers, tally)
            except ContentError as error:
                why = shown(error)
            done = self.progress
            assert done is not None
            count = tally.counts.get
            scrub = Scrub(
                begun_ms,
                self._now_ms(),
                done.pieces,
                done.bytes,
                count(Damage.MISSING, 0),
                count(Damage.ALTERED, 0),
                count(Damage.UNREADABLE, 0),
                count(Damage.UNLIKE_LOG, 0),
                tally.unexpected,
                tuple(tally.names),
                why,
            )
            self.scrubs.keep(scrub)
            return scrub
        finally:
            with self._lock:
                self._progress = None

    def _kept(self) -> Iterator[Piece]:
        after = BEGINNING
        while True:
            page = self._pieces.pieces(PieceFilter(state=State.KEPT), after=after, rows_max=PIECES_A_READ)
            yield from page
            if len(page) < PIECES_A_READ:
                return
            after = After(page[-1].received_ms, page[-1].piece)

    def _look_at(self, piece: Piece, tally: _Tally, stop: Event) -> None:
        damage, copy = self._judged(piece, stop)
        if damage is not piece.damage and not self._is_gone(piece) and tally.told < TOLD_MAX:
            self._mark(piece, damage, copy)
            tally.told += 1
        if damage is not Damage.NONE and not self._is_gone(piece):
            tally.note(damage, piece.piece, copy)
        with self._lock:
            assert self._progress is not None
            self._progress = self._progress._replace(pieces=self._progress.pieces + 1)

    def _mark(self, piece: Piece, damage: Damage, copy: str) -> None:
        try:
            self.scrubs.mark(piece.piece, damage, copy=copy, now_ms=self._now_ms())
        except StoreError as error:
            # an index that was changed can stand against it: that must not keep the others from being read
            logger.warning("what was found of a piece is not entered", extra={"error": shown(error)})

    def _is_gone(self, piece: Piece) -> bool:
        """Whether it was deleted meanwhile."""
        found = self._pieces.piece(piece.piece)
        return found is None or found.state is State.DELETED

    def _judged(self, piece: Piece, stop: Event) -> tuple[Damage, str]:
        if not self._as_logged(piece):
            return Damage.UNLIKE_LOG, ""
        for number, copy in enumerate(self._copies):
            damage = self._of_copy(copy, piece, stop)
            young = number > 0 and self._now_ms() - piece.received_ms < COPY_MS_MAX
            if damage is not Damage.NONE and not (young and damage is Damage.MISSING):
                return damage, copy.name
        return Damage.NONE, ""

    def _of_copy(self, copy: Content, piece: Piece, stop: Event) -> Damage:
        try:
            sha256, size = self._read(copy, piece.sha256, stop)
        except MissingContentError:
            return Damage.MISSING
        except (ContentError, OSError):
            return Damage.UNREADABLE
        return Damage.NONE if (sha256, size) == (piece.sha256, piece.size) else Damage.ALTERED

    def _read(self, copy: Content, sha256: str, stop: Event) -> tuple[str, int]:
        made, size, begun = hashlib.sha256(), 0, self._monotonic()
        with copy.open(sha256) as file:
            _from_the_disk(file)
            while part := file.read(READ_BYTES):
                made.update(part)
                size += len(part)
                with self._lock:
                    assert self._progress is not None
                    self._progress = self._progress._replace(bytes=self._progress.bytes + len(part))
                ahead_s = size / self._bytes_a_second - (self._monotonic() - begun)
                if stop.wait(max(0.0, ahead_s)):
                    raise StoppedError
        return made.hexdigest(), size

    def _as_logged(self, piece: Piece) -> bool:
        """Whether the piece's events are a whole chain, and the index says what they say."""
        number, prev, verified = 0, GENESIS, False
        while True:
            events = self.scrubs.events(piece.piece, from_number=number, rows_max=EVENTS_READ)
            for each in events:
                try:
                    entry = audit.read(each.raw)
                except AuditError:
                    return False
                if not custody.follows(entry, each, piece.piece, number, prev):
                    return False
                if entry.action == custody.Event.VERIFIED:
                    verified = entry.data.get("sha256") == piece.sha256 and (each.log, each.entry) == (
                        piece.log,
                        piece.entry,
                    )
                number, prev = number + 1, audit.digest(each.raw)
            if len(events) < EVENTS_READ:
                return verified

    def _strangers(self) -> list[tuple[Content, str]]:
        found: list[tuple[Content, str]] = []
        for copy in self._copies:
            for name in copy.names():
                if len(found) < UNEXPECTED_MAX and not self._is_known(name):
                    found.append((copy, name))
        return found

    def _still_strange(self, found: Sequence[tuple[Content, str]], tally: _Tally) -> None:
        """What has just come, or was to go, is entered, or gone, by now."""
        there = {copy.name: frozenset(copy.names()) for copy, _ in found}
        for copy, name in found:
            if name in there[copy.name] and not self._is_known(name):
                tally.unexpected += 1
                tally.name(f"unexpected {shown(name)} {copy.name}")

    def _is_known(self, sha256: str) -> bool:
        return bool(self._pieces.pieces(PieceFilter(sha256=sha256, state=State.KEPT), rows_max=1))


def _from_the_disk(file: BinaryIO) -> None:
    """Not from memory, where it may be better than on the disk; if it is a file."""
    with suppress(OSError, AttributeError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
