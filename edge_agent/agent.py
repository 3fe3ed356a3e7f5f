"""The loop: carries out what the cores decide. One task reads each wire, one holds the connection, one turns."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar, assert_never

import msgspec

from broker_config import mac, messages, topics
from broker_config.device_classes import SpoolClass
from broker_config.ids import ContractError, Hex16, shard_of
from broker_config.mac import MacKey, Purpose
from broker_config.messages import AskTime, Birth, Receipt, ServerState, Time, Will
from broker_config.telemetry import CONTENT_JSON, JOURNAL, PROPERTY_KEY, PROPERTY_LAST
from broker_config.text import shown
from broker_config.topics import Down, Up
from edge_agent import clock, session, spool
from edge_agent.adapters import files, mqtt
from edge_agent.adapters.mqtt import DatesRefusedError, Endpoint, Incoming, Link, LinkError, Outgoing
from edge_agent.adapters.sqlite import SqliteSpool, summary
from edge_agent.adapters.system import System, give_back_memory, random_hex16
from edge_agent.clock import ClockState, Facts
from edge_agent.config import Settings, Wire
from edge_agent.holding import Holding
from edge_agent.journal import Data, Journal, Kind
from edge_agent.sampler import Sampler
from edge_agent.session import Effect, Event, State
from edge_agent.spool import CorruptSpoolError, Draft, Ledger, SpoolError
from edge_agent.window import Window
from firmware_bridge.driver import Driver
from firmware_bridge.readings import Failed, Quality, Results

logger = logging.getLogger(__name__)

AGENT: Final = "fieldfleet/0.1.0"
TURN_S: Final = 1.0
"""The loop looks at its clocks at least this often."""
DISK_RETRY_S: Final = 3.0
FLUSH_EVERY_S: Final = 60.0
"""Marks that no new batch has written down with it are written after this long."""
TRIM_EVERY_S: Final = 300.0
STATUS_EVERY_S: Final = 60.0
BIRTH_AGAIN_S: Final = 5.0
"""A birth that explains what a receipt misses is not repeated sooner."""
FAREWELL_S: Final = 1.0
GRACE_S: Final = 0.5
"""A driver is given up this long after its deadline, which it should have kept itself."""

M = TypeVar("M", Receipt, Time, ServerState)


@dataclass(slots=True)
class _Timers:
    """When things were last done, seconds of the monotonic clock."""

    connected: float = 0.0
    stable: bool = False
    sent: float = 0.0
    birth: float = 0.0
    disk_retry: float = 0.0
    flush: float = 0.0
    trim: float = 0.0
    status: float = 0.0
    drain_until: float = 0.0


class Agent:
    """One device. ``run`` is called once."""

    def __init__(self, settings: Settings, system: System, keys: files.DeviceKeys, wired: frozenset[str]) -> None:
        """*wired*: the streams that have something to read them."""
        file = settings.file
        self._settings = settings
        self._system = system
        self._keys = keys
        self._uniform: Callable[[float, float], float] = random.uniform
        self._streams = {
            name: SpoolClass(settings.device_class.streams[name].spool_class)
            for name in (JOURNAL, *(wire.stream for wire in settings.wires if wire.stream in wired))
        }
        seal_ms = int(file.seal_s * 1000)
        points = {wire.stream: wire.points for wire in settings.wires}
        self._sampler = Sampler(points, boot=system.boot, seal_ms=seal_ms)
        self._journal = Journal(system.boot, seal_ms)
        self._holding = Holding()
        self._window = Window(
            in_flight_max=file.receipts.unreceipted_batches_max,
            wait_s=file.receipts.receipt_wait_s,
            uniform=self._uniform,
        )
        self._clock = ClockState()
        self._spool: SqliteSpool | None = None
        self._disk_bad = False
        self._state = State.OFFLINE
        self._failures = 0
        self._link: Link | None = None
        self._epoch: Hex16 = random_hex16()
        self._server_epochs: tuple[int, int] | None = None
        self._asked_mono_ms: int | None = None
        self._birth_wanted = False
        self._why_down = ""
        self._t = _Timers()
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None
        self._connection: asyncio.Task[None] | None = None
        self._wires: list[asyncio.Task[None]] = []
        self._stopping = False

    # The run ----------------------------------------------------------------------------------------------------

    async def run(self, drivers: Mapping[str, Driver], stop: asyncio.Event) -> None:
        """Run until *stop* is set and the stop is done. *drivers*: stream -> what reads it."""
        self._clock, _ = clock.look(self._clock, self._system.facts())
        events = self._open_spool()
        clean = self._spool is not None and self._spool.clean
        self._note(Kind.AGENT_START, {"clean": clean})  # the first event of a run, whatever else there is to tell
        self._note_all(events)
        self._keep(self._seal_all())
        began_s = self._system.mono_s()
        for wire in self._settings.wires:
            if wire.stream in drivers:
                self._wires.append(asyncio.create_task(self._read_wire(wire, drivers[wire.stream], began_s)))
        while not self._left.is_set():
            if stop.is_set() and not self._stopping:
                await self._begin_stop(drivers)
            self._turn()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_turn_s()):
                    await self._wait_any(stop)
        if self._connection is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._connection
        self._finish()

    async def _wait_any(self, stop: asyncio.Event) -> None:
        if self._stopping or stop.is_set():
            await self._wake.wait()
            return
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _begin_stop(self, drivers: Mapping[str, Driver]) -> None:
        self._stopping = True
        for task in self._wires:
            task.cancel()
        await asyncio.gather(*self._wires, return_exceptions=True)
        for driver in drivers.values():
            await driver.close()
        self._look(self._system.facts())
        self._note(Kind.AGENT_STOP, {})
        self._keep(self._seal_all())
        self._happened(Event.STOP)

    def _finish(self) -> None:
        kept = not self._holding
        if self._spool is not None:
            try:
                self._spool.close(clean=kept, floor_ms=self._clock.floor_ms)
            except SpoolError as error:
                logger.warning("spool not closed cleanly", extra={"why": shown(error)})
        self._write_status()
        logger.info("stopped", extra={"unstored_records": len(self._holding.drafts)})

    def _turn(self) -> None:
        """One look at everything that time alone can make due."""
        facts = self._system.facts()
        now_s = facts.mono_ms / 1000
        self._look(facts)
        due_ms = self._journal.due_ms()
        drafts: list[Draft] = list(self._sampler.seal_due(facts.mono_ms))
        if drafts or (due_ms is not None and facts.mono_ms >= due_ms):
            drafts = [*drafts, *self._seal_all()]
        self._keep(drafts)
        if self._spool is None and now_s >= self._t.disk_retry:
            self._note_all(self._open_spool())
        if self._spool is not None and self._state is State.OFFLINE and not self._stopping:
            self._happened(Event.START)
        self._turn_connection(facts, now_s)
        self._look_after_spool(facts, now_s)
        if now_s - self._t.status >= STATUS_EVERY_S:
            self._write_status()

    def _until_next_turn_s(self) -> float:
        now_ms = self._system.mono_ms()
        dues = [due for due in (self._sampler.due_ms(), self._journal.due_ms()) if due is not None]
        again_s = self._window.next_s() if self._link is not None else None
        if again_s is not None:
            dues.append(int(again_s * 1000) + 1)
        if self._state is State.DRAINING:
            dues.append(int(self._t.drain_until * 1000) + 1)
        return min(TURN_S, max(0.01, (min(dues, default=now_ms + 60_000) - now_ms) / 1000))

    # Readings and events ----------------------------------------------------------------------------------------

    async def _read_wire(self, wire: Wire, driver: Driver, began_s: float) -> None:
        """Read at *began_s* and every ``every_s`` after it; a late reading leaves out those that it missed."""
        at = 0
        failing = False
        while True:
            results = await self._read_once(wire, driver)
            failing = self._take_row(wire, results, failing=failing)
            self._wake.set()
            passed = (self._system.mono_s() - began_s) / wire.every_s
            at = max(at + 1, int(passed) + (passed > int(passed)))
            await asyncio.sleep(max(0.0, began_s + at * wire.every_s - self._system.mono_s()))

    async def _read_once(self, wire: Wire, driver: Driver) -> Results:
        try:
            async with asyncio.timeout(wire.deadline_s + GRACE_S):
                return await driver.read(wire.points, wire.deadline_s)
        except TimeoutError:
            return {point: Failed(f"no answer within {wire.deadline_s} s") for point in wire.points}
        except Exception as error:  # noqa: BLE001  # a mistake in one driver must not stop the others
            return {point: Failed(f"{type(error).__name__}: {shown(error)}") for point in wire.points}

    def _take_row(self, wire: Wire, results: Results, *, failing: bool) -> bool:
        """One row, null where a point failed or is bad; returns whether any failed."""
        facts = self._system.facts()
        self._look(facts)
        values: list[float | None] = []
        whys: list[str] = []
        for point in wire.points:
            result = results.get(point, Failed("the driver did not say"))
            if isinstance(result, Failed):
                whys.append(f"{point}: {result.why}")
                values.append(None)
            else:
                values.append(None if result.quality is Quality.BAD else result.value)
        if whys and not failing:
            logger.warning(
                "driver fault", extra={"driver": wire.driver, "stream": wire.stream, "why": shown(whys[0])}
            )
            self._note(Kind.DRIVER_FAULT, {"driver": wire.driver, "stream": wire.stream, "error": whys[0]})
        elif failing and not whys:
            logger.info("driver reads again", extra={"driver": wire.driver, "stream": wire.stream})
            self._note(Kind.DRIVER_OK, {"driver": wire.driver, "stream": wire.stream})
        self._keep(self._sampler.add(wire.stream, values, clock.stamp(self._clock, facts)))
        return bool(whys)

    def _look(self, facts: Facts) -> None:
        """Take notice of the clocks; what was sampled under the old one is sealed first."""
        state, found = clock.look(self._clock, facts)
        if found.jump is None and not found.source_changed:
            self._clock = state
            return
        self._keep(self._seal_all())
        self._clock = state
        if found.jump is not None:
            logger.warning("clock moved", extra={"old_ms": found.jump.old_ms, "new_ms": found.jump.new_ms})
            self._note(Kind.CLOCK_SET, {"old_ms": found.jump.old_ms, "new_ms": found.jump.new_ms}, facts)
        if found.source_changed:
            logger.info("clock source", extra={"src": state.source.value})
            self._note(Kind.CLOCK_SOURCE, {"src": state.source.value}, facts)

    def _note(self, kind: Kind, data: Data, facts: Facts | None = None) -> None:
        told = clock.stamp(self._clock, facts or self._system.facts())
        self._holding.add(self._journal.add(kind, data, told))

    def _seal_all(self) -> list[Draft]:
        return [*self._journal.seal(), *self._sampler.seal_all()]

    # The spool --------------------------------------------------------------------------------------------------

    @property
    def _spool_path(self) -> Path:
        return self._settings.state_dir / files.SPOOL_NAME

    def _open_spool(self) -> list[tuple[Kind, Data]]:
        """Open it; a damaged one is set aside and a new one begun. Returns what is to be noted."""
        events: list[tuple[Kind, Data]] = []
        self._t.disk_retry = self._system.mono_s() + DISK_RETRY_S
        try:
            try:
                self._spool = self._opened()
            except CorruptSpoolError as error:
                aside = files.set_aside(self._spool_path)
                logger.error("spool damaged, set aside", extra={"why": shown(error), "aside": aside})  # noqa: TRY400
                events.append((Kind.SPOOL_NEW, {"aside": aside, "error": str(error)}))
                self._spool = self._opened()
                self._spool.clean = False
        except (SpoolError, OSError) as error:
            return [*events, *self._disk_fault(error)]
        self._clock = replace(self._clock, floor_ms=max(self._clock.floor_ms, self._spool.floor_ms))
        return events

    def _note_all(self, events: Sequence[tuple[Kind, Data]]) -> None:
        for kind, data in events:
            self._note(kind, data)

    def _opened(self) -> SqliteSpool:
        return SqliteSpool(
            self._spool_path,
            streams=self._streams,
            bytes_max=self._settings.file.spool.bytes_max,
            new_life=random_hex16(),
        )

    def _disk_fault(self, error: Exception) -> list[tuple[Kind, Data]]:
        """The disk takes nothing for now. Returns what is to be noted, the first time."""
        self._t.disk_retry = self._system.mono_s() + DISK_RETRY_S
        if self._disk_bad:
            return []
        self._disk_bad = True
        logger.warning("spool takes nothing", extra={"why": shown(error)})
        return [(Kind.SPOOL_FULL, {"error": str(error)})]

    def _spool_failed(self, error: SpoolError) -> None:
        """What the spool could not do is tried again later; a damaged spool is set aside at once."""
        if not isinstance(error, CorruptSpoolError):
            self._note_all(self._disk_fault(error))
            return
        if self._spool is not None:
            with contextlib.suppress(SpoolError):
                self._spool.close(clean=False, floor_ms=self._clock.floor_ms)
            self._spool = None
        self._note_all(self._open_spool() if self._set_aside(error) else ())
        self._birth_wanted = True

    def _set_aside(self, error: CorruptSpoolError) -> bool:
        try:
            aside = files.set_aside(self._spool_path)
        except OSError as failed:
            self._note_all(self._disk_fault(failed))
            return False
        logger.error("spool damaged, set aside", extra={"why": shown(error), "aside": aside})
        self._note(Kind.SPOOL_NEW, {"aside": aside, "error": str(error)})
        return True

    def _keep(self, drafts: Sequence[Draft]) -> None:
        """Store *drafts* and what waits in memory, if the disk may take it by now."""
        self._holding.add(drafts)
        now_s = self._system.mono_s()
        if not self._holding or self._spool is None or (self._disk_bad and now_s < self._t.disk_retry):
            return
        held = self._holding.drafts
        dropped = self._holding.dropped
        try:
            stored = self._spool.store(held, dropped=dropped, now_ms=None)
        except SpoolError as error:
            self._spool_failed(error)
            return
        self._holding.clear()
        self._window.stored(stored.keys)
        self._wake.set()
        if self._disk_bad:
            self._disk_bad = False
            logger.info("spool takes batches again", extra={"dropped_records": sum(dropped.values())})
            self._note(Kind.SPOOL_OK, {"stored": len(held), "dropped": sum(dropped.values())})
        for stream, batches in stored.evicted.items():
            logger.warning("batches evicted", extra={"stream": stream, "batches": batches})
            self._note(Kind.SPOOL_EVICTED, {"stream": stream, "batches": batches})
        self._birth_wanted |= bool(stored.evicted)

    def _look_after_spool(self, facts: Facts, now_s: float) -> None:
        """Write marks down, drop what was held long enough."""
        if self._spool is None or self._disk_bad:
            return
        try:
            if now_s - self._t.flush >= FLUSH_EVERY_S:
                self._t.flush = now_s
                self._spool.flush(floor_ms=self._clock.floor_ms)
            trusted_ms = clock.trusted_ms(self._clock, facts)
            if now_s - self._t.trim >= TRIM_EVERY_S and trusted_ms is not None:
                self._t.trim = now_s
                hold_ms = int(self._settings.file.spool.hold_h * 3_600_000)
                trimmed = self._spool.trim(now_ms=trusted_ms, hold_ms=hold_ms)
                if trimmed:
                    logger.debug("trimmed", extra={"batches": trimmed})
        except SpoolError as error:
            self._spool_failed(error)

    # The connection ---------------------------------------------------------------------------------------------

    def _happened(self, event: Event) -> None:
        self._state, effects = session.step(self._state, event)
        for effect in effects:
            self._do(effect)
        self._wake.set()

    def _do(self, effect: Effect) -> None:
        now_s = self._system.mono_s()
        match effect:
            case Effect.CONNECT:
                self._connection = asyncio.create_task(self._connect())
            case Effect.RETRY_LATER:
                self._failures += 1
                backoff = self._settings.file.backoff
                delay_s = session.backoff_s(
                    self._failures, s_min=backoff.s_min, s_cap=backoff.s_cap, uniform=self._uniform
                )
                self._retry = asyncio.get_running_loop().call_later(delay_s, self._happened, Event.RETRY)
            case Effect.BIRTH:
                self._send_birth()
            case Effect.OFFER_AGAIN:
                self._window.offer_again(now_s)
            case Effect.ASK_TIME:
                self._ask_time()
            case Effect.FORGET_FAILURES:
                self._failures = 0
            case Effect.DISTRUST_CLOCK:
                self._keep(self._seal_all())
                self._clock = clock.dates_refused(self._clock)
                self._note(Kind.CLOCK_SOURCE, {"src": self._clock.source.value, "why": "handshake failed on dates"})
            case Effect.NOTE_UP:
                self._t.connected, self._t.stable = now_s, False
                logger.info("connected", extra={"attempts": self._failures + 1})
                self._note(Kind.LINK_UP, {"attempts": self._failures + 1})
                self._write_status()
            case Effect.NOTE_DOWN:
                logger.warning("disconnected", extra={"why": self._why_down})
                self._note(Kind.LINK_DOWN, {"why": self._why_down})
                self._write_status()
            case Effect.DRAIN:
                self._t.drain_until = now_s + self._settings.file.stop_drain_s
            case Effect.FAREWELL:
                self._send(Up.STATUS, messages.encode(Will(1, self._epoch, "stop")), retain=True)
            case Effect.LEAVE:
                if self._retry is not None:
                    self._retry.cancel()
                if self._link is None and self._connection is not None:
                    self._connection.cancel()
                self._left.set()
            case _:
                assert_never(effect)

    async def _connect(self) -> None:
        """One attempt, and the connection if it succeeds; tells the session how it ended."""
        device = self._settings.device
        broker = self._settings.file.broker
        endpoint = Endpoint(
            broker.host,
            broker.port,
            device,
            broker.keep_alive_s,
            self._settings.ca_file,
            self._settings.cert_file,
            self._settings.key_file,
        )
        self._epoch = random_hex16()
        will = messages.encode(Will(1, self._epoch, "lost"))
        skip_dates = clock.skips_dates(self._clock, self._system.facts())
        ended = Event.FAILED
        try:
            async with mqtt.connected(
                endpoint,
                will=Outgoing(topics.up(device, Up.STATUS), will, CONTENT_JSON, retain=True),
                subscriptions=(topics.down_filter(device), topics.SERVER_STATE),
                skip_dates=skip_dates,
            ) as link:
                self._link = link
                self._happened(Event.UP)
                ended = Event.LOST
                await self._listen(link)
                return
        except DatesRefusedError as error:
            self._why_down = str(error)
            ended = Event.DATES_REFUSED
        except LinkError as error:
            self._why_down = str(error)
        finally:
            self._link = None
        if ended is not Event.LOST:
            log = logger.warning if self._failures == 0 else logger.debug
            log("cannot connect", extra={"why": self._why_down})
        if not self._left.is_set():
            self._happened(ended)

    async def _listen(self, link: Link) -> None:
        """Hear the broker until the connection ends (LinkError) or the agent leaves."""

        async def hear() -> None:
            async for message in link.incoming():
                self._told(message)

        hearing = asyncio.create_task(hear())
        leaving = asyncio.create_task(self._left.wait())
        try:
            await asyncio.wait((hearing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                await hearing
            else:
                await link.sent(FAREWELL_S)
        finally:
            for task in (hearing, leaving):
                task.cancel()
            await asyncio.gather(hearing, leaving, return_exceptions=True)

    def _turn_connection(self, facts: Facts, now_s: float) -> None:
        if self._link is None:
            return
        file = self._settings.file
        if self._state is State.CONNECTED:
            if not self._t.stable and now_s - self._t.connected >= file.backoff.stable_s:
                self._t.stable = True
                self._happened(Event.STABLE)
            if self._birth_wanted and now_s - self._t.birth >= BIRTH_AGAIN_S:
                self._send_birth()
            elif now_s - self._t.sent >= file.broker.keep_alive_s:
                self._happened(Event.SILENT)
            wait_s = clock.next_ask_s(
                self._clock,
                mono_ms=facts.mono_ms,
                last_ask_mono_ms=self._asked_mono_ms,
                every_s=file.clock.ask_every_s,
            )
            if wait_s <= 0:
                self._ask_time()
        if self._state in {State.CONNECTED, State.DRAINING}:
            self._pump(now_s)
        if self._state is State.DRAINING and (
            now_s >= self._t.drain_until or not any(ledger.waiting for ledger in self._ledgers())
        ):
            self._happened(Event.DRAINED)

    def _ledgers(self) -> Sequence[Ledger]:
        return () if self._spool is None else self._spool.ledgers()

    def _pump(self, now_s: float) -> None:
        """Send what the window lets go."""
        if self._spool is None:
            return
        lasts = {(ledger.stream, ledger.life): ledger.last for ledger in self._spool.ledgers()}
        for key in self._window.take(self._spool.ledgers(), now_s):
            try:
                found = self._spool.read(key)
            except SpoolError as error:
                self._spool_failed(error)
                return
            if found is None:
                self._window.forget(key)
                continue
            payload, content_type = found
            properties = ((PROPERTY_KEY, str(key)), (PROPERTY_LAST, str(lasts[key.stream, key.life])))
            channel = Up.EVENT if key.stream == JOURNAL else Up.TELEMETRY
            self._send(channel, payload, content_type=content_type, properties=properties)

    def _send(
        self,
        channel: Up,
        payload: bytes,
        *,
        content_type: str = CONTENT_JSON,
        properties: tuple[tuple[str, str], ...] = (),
        retain: bool = False,
    ) -> None:
        if self._link is None:
            return
        topic = topics.up(self._settings.device, channel)
        self._link.send(Outgoing(topic, payload, content_type, properties, retain))
        self._t.sent = self._system.mono_s()

    def _send_birth(self) -> None:
        every_ms = {wire.stream: int(wire.every_s * 1000) for wire in self._settings.wires}
        self._birth_wanted = False
        self._t.birth = self._system.mono_s()
        birth = Birth(
            v=1,
            epoch=self._epoch,
            boot=self._system.boot,
            mono=self._system.mono_ms(),
            keep_alive_s=self._settings.file.broker.keep_alive_s,
            agent=AGENT,
            device_class=self._settings.device_class.name,
            profile=self._settings.profile[:64],
            store_epoch=0 if self._spool is None else self._spool.store_epoch,
            seal_ms=int(self._settings.file.seal_s * 1000),
            streams=tuple(
                spool.stream_state(ledger, every_ms.get(ledger.stream, 0) if ledger.current else 0)
                for ledger in spool.told(self._ledgers())
            ),
        )
        self._send(Up.STATUS, messages.encode(birth), retain=True)

    def _ask_time(self) -> None:
        nonce = random_hex16()
        self._asked_mono_ms = self._system.mono_ms()
        self._clock = clock.ask(self._clock, nonce, self._asked_mono_ms)
        self._send(Up.TIME, messages.encode(AskTime(1, nonce)))

    # What the server says ---------------------------------------------------------------------------------------

    def _told(self, message: Incoming) -> None:
        device = self._settings.device
        if message.topic == topics.down(device, Down.RECEIPT):
            receipt = self._authentic(message, self._keys.receipt, Purpose.RECEIPT, Receipt)
            if receipt is not None:
                self._told_receipt(receipt)
        elif message.topic == topics.down(device, Down.TIME):
            time = self._authentic(message, self._keys.time, Purpose.TIME, Time)
            if time is not None:
                self._told_time(time)
        elif message.topic == topics.SERVER_STATE:
            state = self._decoded(message, ServerState)
            if state is not None:
                self._told_server(state)

    def _authentic(self, message: Incoming, key: MacKey, purpose: Purpose, kind: type[M]) -> M | None:
        if not mac.authentic(key, purpose, message.topic, message.payload, message.properties):
            logger.warning("not authentic, ignored", extra={"topic": shown(message.topic)})
            return None
        return self._decoded(message, kind)

    @staticmethod
    def _decoded(message: Incoming, kind: type[M]) -> M | None:
        try:
            return messages.decode(message.payload, kind)
        except ContractError as error:
            logger.warning("not understood", extra={"topic": shown(message.topic), "why": shown(error)})
            return None

    def _told_receipt(self, receipt: Receipt) -> None:
        if self._spool is None:
            return
        now_ms = clock.trusted_ms(self._clock, self._system.facts())
        try:
            marked = self._spool.mark(receipt, now_ms=now_ms, new_life=random_hex16())
        except SpoolError as error:
            self._spool_failed(error)
            return
        if marked.epoch_raised:
            logger.warning("another store; offering again", extra={"store_epoch": receipt.store_epoch})
            self._window.offer_again(self._system.mono_s())
        if marked.life_changed:
            logger.error("conflict; new batches take a new life", extra={"stream": receipt.stream})
        ledger = next((x for x in self._ledgers() if (x.stream, x.life) == (receipt.stream, receipt.life)), None)
        if ledger is not None and not marked.ignored:
            self._birth_wanted |= self._window.told(ledger, receipt)
        self._birth_wanted |= marked.epoch_raised or marked.life_changed
        self._wake.set()

    def _told_time(self, time: Time) -> None:
        facts = self._system.facts()
        state, refused = clock.answered(
            self._clock,
            nonce=time.nonce,
            t_ms=time.t_ms,
            unc_ms=time.unc_ms,
            mono_ms=facts.mono_ms,
            rtt_ms_max=self._settings.file.clock.rtt_ms_max,
        )
        self._clock = state
        if refused is not None:
            logger.info("time answer ignored", extra={"why": refused})
            return
        logger.debug("time", extra={"off_ms": clock.off(state, facts)})
        self._look(facts)

    def _told_server(self, state: ServerState) -> None:
        """A server that may be another one, or has lost what it had in memory. Nobody vouches for this message, so it
        can only make the agent repeat itself.
        """
        shard = int(shard_of(self._settings.device), 16)
        owned = next((s.epoch for s in state.shards if s.first <= shard <= s.last), 0)
        epochs = (state.store_epoch, owned)
        if self._server_epochs is not None and epochs != self._server_epochs:
            self._window.offer_again(self._system.mono_s())
            self._birth_wanted = True
            self._wake.set()
        self._server_epochs = epochs

    # For people -------------------------------------------------------------------------------------------------

    def _write_status(self) -> None:
        give_back_memory()
        self._t.status = self._system.mono_s()
        facts = self._system.facts()
        status = {
            "device": self._settings.device,
            "at_ms": facts.wall_ms,
            "connection": self._state.value,
            "in_flight": self._window.in_flight,
            "failures": self._failures,
            "why_down": "" if self._link is not None else self._why_down,
            "clock": {"src": self._clock.source.value, "off_ms": clock.off(self._clock, facts)},
            "disk_ok": not self._disk_bad and self._spool is not None,
            "in_memory": len(self._holding.drafts),
            "streams": [summary(ledger) for ledger in self._ledgers()],
        }
        files.write_status(self._settings.state_dir, msgspec.json.encode(status))
