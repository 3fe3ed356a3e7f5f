"""What the device writes down: readings and events, by which clock, and into which spool.

Disk faults end here: while the disk takes nothing, sealed records wait in bounded memory; a damaged spool is set
aside and a new one begun. Nobody above sees more of it than that ``ledgers`` may be empty for a while.
"""

import contextlib
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from broker_config.device_classes import SpoolClass
from broker_config.messages import Receipt
from broker_config.telemetry import JOURNAL, Key
from broker_config.text import shown
from edge_agent import clock
from edge_agent.adapters import files
from edge_agent.adapters.sqlite import SqliteSpool
from edge_agent.adapters.system import System, random_hex16
from edge_agent.clock import ClockState, Facts
from edge_agent.config import Settings
from edge_agent.holding import Holding
from edge_agent.journal import Data, Journal, Kind
from edge_agent.sampler import Sampler
from edge_agent.spool import CorruptSpoolError, Draft, Ledger, Marked, SpoolError

logger = logging.getLogger(__name__)

DISK_RETRY_S: Final = 3.0
FLUSH_EVERY_S: Final = 60.0
"""Marks that no new batch has written down with it are written after this long."""
TRIM_EVERY_S: Final = 300.0

_Note = tuple[Kind, Data]


class Keeper:
    """One caller at a time. ``on_stored`` is told the keys of what has just become durable; none of them when only
    :meth:`due_ms` may have changed.
    """

    def __init__(
        self, settings: Settings, system: System, wired: Iterable[str], on_stored: Callable[[Sequence[Key]], None]
    ) -> None:
        self._settings = settings
        self._system = system
        self._on_stored = on_stored
        points = {wire.stream: wire.fields for wire in settings.profile.wires}
        seal_ms = int(settings.file.seal_s * 1000)
        self._streams: Mapping[str, SpoolClass] = {
            name: settings.device_class.streams[name].spool_class for name in (JOURNAL, *wired)
        }
        self._sampler = Sampler(points, boot=system.boot, seal_ms=seal_ms)
        self._journal = Journal(system.boot, seal_ms)
        self._holding = Holding()
        self._spool: SqliteSpool | None = None
        self._spool_path = settings.state_dir / files.SPOOL_NAME
        self._disk_bad = False
        self._retry_s = self._flush_s = self._trim_s = 0.0
        self.clock = ClockState()
        self.failing: set[str] = set()
        """Streams whose driver does not read."""

    # Clock, readings, events ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the spool and write down that the agent began."""
        self.clock, _ = clock.look(self.clock, self._system.facts())
        notes = self._open()
        clean = self._spool is not None and self._spool.clean
        self.note(Kind.AGENT_START, {"clean": clean})  # the first event of a run, whatever else there is to tell
        self._note_all(notes)
        self.seal()

    def look(self, facts: Facts) -> None:
        """Take notice of the clocks; what was sampled under the old one is sealed first."""
        state, found = clock.look(self.clock, facts)
        if found.jump is not None or found.source_changed:
            self.seal()
        self.clock = state
        if found.jump is not None:
            moved = {"old_ms": found.jump.old_ms, "new_ms": found.jump.new_ms}
            logger.warning("clock moved", extra=moved)
            self.note(Kind.CLOCK_SET, moved, facts)
        if found.source_changed:
            logger.info("clock source", extra={"src": state.source.value})
            self.note(Kind.CLOCK_SOURCE, {"src": state.source.value}, facts)

    def distrust_clock(self) -> None:
        """A handshake failed on validity dates alone."""
        self.seal()
        self.clock = clock.dates_refused(self.clock)
        logger.warning("clock distrusted", extra={"why": "a handshake failed on dates alone"})
        self.note(Kind.CLOCK_SOURCE, {"src": self.clock.source.value, "why": "handshake failed on dates"})

    def row(self, stream: str, values: Sequence[float | None]) -> None:
        """A row of readings, as of now."""
        facts = self._system.facts()
        self.look(facts)
        self._keep(self._sampler.add(stream, values, clock.stamp(self.clock, facts)))
        self._on_stored(())

    def note(self, kind: Kind, data: Data, facts: Facts | None = None) -> None:
        """An event, as of *facts* or now; sealed when its time has come."""
        self._holding.add(self._journal.add(kind, data, clock.stamp(self.clock, facts or self._system.facts())))

    def _note_all(self, notes: Iterable[_Note]) -> None:
        for kind, data in notes:
            self.note(kind, data)

    def due_ms(self) -> int | None:
        """When (monotonic) something is to be sealed."""
        return min((due for due in (self._sampler.due_ms(), self._journal.due_ms()) if due is not None), default=None)

    def turn(self, facts: Facts) -> None:
        """Whatever time alone makes due."""
        now_s = facts.mono_ms / 1000
        self.look(facts)
        due = self.due_ms()
        if due is not None and facts.mono_ms >= due:
            self.seal()
        elif self._holding:
            self._keep(())
        if self._spool is None and now_s >= self._retry_s:
            self._note_all(self._open())
        if self._spool is not None and not self._disk_bad:
            self._look_after(self._spool, facts, now_s)

    def seal(self) -> None:
        """Seal everything that is open and keep it."""
        self._keep([*self._journal.seal(), *self._sampler.seal_all()])

    def close(self) -> None:
        """End of the run. A clean one only if everything reached the disk."""
        if self._spool is not None:
            try:
                self._spool.close(clean=not self._holding, floor_ms=self.clock.floor_ms)
            except SpoolError as error:
                logger.warning("spool not closed cleanly", extra={"why": shown(error)})

    # The spool --------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there is a spool, so that a birth can say what is in it."""
        return self._spool is not None

    @property
    def disk_ok(self) -> bool:
        """Whether the disk takes batches."""
        return not self._disk_bad and self._spool is not None

    @property
    def in_memory(self) -> int:
        """Sealed records that the disk has not taken."""
        return len(self._holding.drafts)

    @property
    def store_epoch(self) -> int:
        """The newest that an authentic receipt told."""
        return 0 if self._spool is None else self._spool.store_epoch

    def ledgers(self) -> Sequence[Ledger]:
        """What the spool holds; empty while there is none."""
        return () if self._spool is None else self._spool.ledgers()

    def read(self, key: Key) -> tuple[bytes, str] | None:
        """Payload and content type; None if it is not held, or cannot be read."""
        if self._spool is None:
            return None
        try:
            return self._spool.read(key)
        except SpoolError as error:
            self._failed(error)
            return None

    def differs(self, receipt: Receipt) -> bool:
        """Whether the batch held under the receipt's newest number is another than the server has under it."""
        found = self.read(Key(receipt.stream, receipt.life, receipt.up_to)) if receipt.up_to else None
        return found is not None and receipt.tip is not None and zlib.crc32(found[0]) != receipt.tip

    def mark(self, receipt: Receipt) -> Marked | None:
        """Take an authentic receipt; None if the spool cannot: the server says it again."""
        if self._spool is None:
            return None
        now_ms = clock.trusted_ms(self.clock, self._system.facts())
        try:
            return self._spool.mark(receipt, now_ms=now_ms, new_life=random_hex16())
        except SpoolError as error:
            self._failed(error)
            return None

    def _keep(self, drafts: Sequence[Draft]) -> None:
        """Store *drafts* and what waits in memory, if the disk may take it by now."""
        self._holding.add(drafts)
        waits = self._disk_bad and self._system.mono_s() < self._retry_s
        if not self._holding or self._spool is None or waits:
            return
        held, dropped = self._holding.drafts, self._holding.dropped
        try:
            stored = self._spool.store(held, dropped=dropped)
        except SpoolError as error:
            self._failed(error)
            return
        self._holding.clear()
        self._on_stored(stored.keys)
        if self._disk_bad:
            self._disk_bad = False
            logger.info("spool takes batches again", extra={"dropped_records": sum(dropped.values())})
            self.note(Kind.SPOOL_OK, {"stored": len(held), "dropped": sum(dropped.values())})
        for stream, batches in stored.evicted.items():
            logger.warning("batches evicted", extra={"stream": stream, "batches": batches})
            self.note(Kind.SPOOL_EVICTED, {"stream": stream, "batches": batches})

    def _look_after(self, spool: SqliteSpool, facts: Facts, now_s: float) -> None:
        """Write marks down, drop what was held long enough."""
        try:
            if now_s - self._flush_s >= FLUSH_EVERY_S:
                self._flush_s = now_s
                spool.flush(floor_ms=self.clock.floor_ms)
            trusted_ms = clock.trusted_ms(self.clock, facts)
            if now_s - self._trim_s >= TRIM_EVERY_S and trusted_ms is not None:
                self._trim_s = now_s
                batches = spool.trim(now_ms=trusted_ms, hold_ms=int(self._settings.file.spool.hold_h * 3_600_000))
                logger.debug("trimmed", extra={"batches": batches})
        except SpoolError as error:
            self._failed(error)

    def _open(self) -> list[_Note]:
        """Open the spool; a damaged one is set aside and a new one begun. Returns what is to be noted."""
        notes: list[_Note] = []
        self._retry_s = self._system.mono_s() + DISK_RETRY_S
        try:
            try:
                self._spool = self._opened()
            except CorruptSpoolError as error:
                notes += self._set_aside(error)
                self._spool = self._opened()
                self._spool.clean = False
        except (SpoolError, OSError) as error:
            return [*notes, *self._disk_fault(error)]
        self.clock = replace(self.clock, floor_ms=max(self.clock.floor_ms, self._spool.floor_ms))
        return notes

    def _opened(self) -> SqliteSpool:
        return SqliteSpool(
            self._spool_path,
            streams=self._streams,
            bytes_max=self._settings.file.spool.bytes_max,
            new_life=random_hex16(),
        )

    def _set_aside(self, error: CorruptSpoolError) -> list[_Note]:
        """Raises OSError."""
        aside = files.set_aside(self._spool_path)
        logger.error("spool damaged, set aside", extra={"why": shown(error), "aside": aside})
        return [(Kind.SPOOL_NEW, {"aside": aside, "error": str(error)})]

    def _disk_fault(self, error: Exception) -> list[_Note]:
        """The disk takes nothing for now. Returns what is to be noted, the first time."""
        self._retry_s = self._system.mono_s() + DISK_RETRY_S
        if self._disk_bad:
            return []
        self._disk_bad = True
        logger.warning("spool takes nothing", extra={"why": shown(error)})
        return [(Kind.SPOOL_FULL, {"error": str(error)})]

    def _failed(self, error: SpoolError) -> None:
        """What the spool could not do is tried again later; a damaged spool is set aside at once."""
        if not isinstance(error, CorruptSpoolError):
            self._note_all(self._disk_fault(error))
            return
        if self._spool is not None:
            with contextlib.suppress(SpoolError):
                self._spool.close(clean=False, floor_ms=self.clock.floor_ms)
            self._spool = None
        try:
            notes = self._set_aside(error)
        except OSError as failed:
            notes = self._disk_fault(failed)
        else:
            notes += self._open()
        self._note_all(notes)
