"""The loop: carries out what the cores decide. One task reads each wire, one holds the connection, one turns."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, assert_never

import msgspec

from broker_config import mac, messages, topics
from broker_config.device_classes import Change
from broker_config.ids import ContractError, Hex16, shard_of
from broker_config.mac import MacKey, Purpose
from broker_config.messages import AskTime, Birth, CommandStatus, Receipt, ServerState, Time, Will
from broker_config.ranges import Ranges
from broker_config.signing import Kind as Ordered
from broker_config.telemetry import CONTENT_JSON, JOURNAL, PROPERTY_KEY, PROPERTY_LAST, Key
from broker_config.text import shown
from broker_config.topics import Down, Up
from edge_agent import clock, session, spool
from edge_agent.adapters import files, mqtt
from edge_agent.adapters.counters import COUNTERS_NAME, Counters
from edge_agent.adapters.mqtt import DatesRefusedError, Endpoint, Incoming, Link, LinkError, Outgoing
from edge_agent.adapters.sqlite import summary
from edge_agent.adapters.system import System, give_back_memory, hardware, random_hex16
from edge_agent.adapters.twin_file import TwinFile
from edge_agent.clock import Facts
from edge_agent.commanding import Commands, Handler
from edge_agent.commands import LOGS, supported
from edge_agent.config import Settings
from edge_agent.configuring import Configuring, Own
from edge_agent.identity import Pair
from edge_agent.journal import Kind
from edge_agent.keeper import Keeper
from edge_agent.last_lines import LastLines
from edge_agent.lease_watch import LeaseWatch
from edge_agent.lost import Lost
from edge_agent.orders import Orders, Times
from edge_agent.renewing import Hint, keep_renewed
from edge_agent.session import Effect, Event, State
from edge_agent.settling import settling
from edge_agent.window import Window
from edge_agent.wires import read_wire
from firmware_bridge.driver import Driver

if TYPE_CHECKING:
    from edge_agent.uploading import Uploading

logger = logging.getLogger(__name__)

AGENT: Final = "fieldfleet/0.1.0"
TURN_S: Final = 1.0
"""The loop looks at its clocks at least this often."""
TURN_S_MIN: Final = 0.01
STATUS_EVERY_S: Final = 60.0
BIRTH_AGAIN_S: Final = 5.0
"""A birth that explains what a receipt misses is not repeated sooner."""
FAREWELL_S: Final = 1.0

M = TypeVar("M", Receipt, Time, ServerState)
_Explained = Mapping[tuple[str, str], Ranges]
"""(stream, life) -> what is gone of it: what a birth explains."""


@dataclass(slots=True)
class _Timers:
    """When things were last done, seconds of the monotonic clock."""

    connected: float = 0.0
    stable: bool = False
    sent: float = 0.0
    birth: float = 0.0
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
        self._keeper = Keeper(settings, system, wired, self._stored)
        self._leases = LeaseWatch(
            settings.profile.guards,
            self._keeper,
            mono_ms=system.mono_ms,
            now_ms=self._trusted_ms,
        )
        self._window = Window(
            in_flight_max=file.receipts.unreceipted_batches_max,
            wait_s=file.receipts.receipt_wait_s,
            uniform=self._uniform,
        )
        self._lost = Lost(settings.state_dir)
        self._lines = LastLines()
        self._uploading = self._make_uploading() if settings.uploads is not None else None
        counters = Counters(settings.state_dir / COUNTERS_NAME)
        self._commands = self._make_commands(counters)
        broker = file.broker
        self._own = Own(broker.host, broker.port, broker.keep_alive_s)
        self._configuring = self._make_configuring()
        self._orders = Orders(
            settings.device,
            keys.roots,
            self._commands,
            counters,
            journal=self._keeper,
            tell=self._tell_command,
            times=self._order_times,
            carriers={
                Ordered.TWIN: self._configuring,
                **({} if self._uploading is None else {Ordered.EVIDENCE_RECEIPT: self._uploading}),
            },
        )
        self._state = State.OFFLINE
        self._failures = 0
        self._link: Link | None = None
        self._epoch: Hex16 = random_hex16()
        self._server_epochs: tuple[int, int] | None = None
        self._spread_s = 0.0
        self._asked_mono_ms: int | None = None
        self._birth_wanted = False
        self._explained: _Explained = {}
        self._hardware = hardware()
        self._why_down = ""
        self._t = _Timers()
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._new_identity = asyncio.Event()
        self._time_told = asyncio.Event()
        self._new_settings = asyncio.Event()
        self._hint = Hint(self._uniform)
        self._retry: asyncio.TimerHandle | None = None
        self._connection: asyncio.Task[None] | None = None
        self._wires: list[asyncio.Task[None]] = []
        self._stopping = False

    def _make_uploading(self) -> "Uploading":
        from edge_agent.uploading import Uploading  # noqa: PLC0415  # a megabyte that others do not need

        return Uploading(
            self._settings,
            self._system,
            self._keeper,
            send=self._send_upload,
            pending=lambda: 0 if self._link is None else self._link.unacknowledged_bytes,
            lost=self._lost,
        )

    def _make_commands(self, counters: Counters) -> Commands:
        settings, system = self._settings, self._system
        folders = () if settings.uploads is None else settings.uploads.paths
        if LOGS in folders:
            logging.getLogger().addHandler(self._lines)
        return Commands(
            settings.device_class,
            supported(settings.profile.programs, folders, reboots=bool(settings.file.commands.reboot)),
            self._handlers,
            counters,
            journal=self._keeper,
            tell=self._tell_command,
            boot=system.boot,
            mono_ms=system.mono_ms,
            now_ms=lambda: self._order_times().now_ms,
            lease=lambda: self._leases.waits_for(Change.COMMAND),
        )

    def _handlers(self) -> Mapping[str, Handler]:
        from edge_agent.built_in import handlers  # noqa: PLC0415  # memory that most runs do not need

        return handlers(
            self._settings,
            self._system,
            self._keeper,
            self._lost,
            sync_clock=self._sync_clock,
            pulling=self._uploading,
            lines=self._lines,
            status=self._status,
        )

    def _make_configuring(self) -> Configuring:
        settings = self._settings
        return Configuring(
            settings.device_class,
            settings.profile.handlers,
            self._own,
            TwinFile(settings.state_dir, lambda _step: None),
            self._system,
            journal=self._keeper,
            waits_for=lambda: self._leases.waits_for(Change.CONFIG),
            now_ms=self._trusted_ms,
            wall_ms=lambda: self._system.facts().wall_ms,
            say=lambda payload: self._send(Up.TWIN, payload),
            come_back=self._come_back,
            ready=lambda: self._orders.ready,
        )

    # The run ----------------------------------------------------------------------------------------------------

    async def run(self, drivers: Mapping[str, Driver], stop: asyncio.Event) -> None:
        """Run until *stop* is set and the stop is done. *drivers*: stream -> what reads it."""
        self._keeper.start()
        self._window.found(self._keeper.ledgers())
        began_s = self._system.mono_s()
        self._wires = [
            asyncio.create_task(
                read_wire(wire, drivers[wire.stream], self._keeper, self._leases, self._system, began_s, self._lost)
            )
            for wire in self._settings.profile.wires
            if wire.stream in drivers
        ]
        self._wires.append(asyncio.create_task(self._orders.run()))
        self._wires.append(asyncio.create_task(self._configuring.run()))
        if self._uploading is not None:
            self._wires.append(asyncio.create_task(self._uploading.run()))
        if self._settings.file.enrolment is not None:
            renewing = keep_renewed(
                self._settings.config_file, self._uniform, self._new_identity.set, self._look_at_keys, self._hint
            )
            self._wires.append(asyncio.create_task(renewing))
        while not self._left.is_set():
            if stop.is_set() and not self._stopping:
                await self._begin_stop(drivers)
            self._turn()
            self._raise_mistakes()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_turn_s()):
                    await self._wait_any(stop)
        if self._connection is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._connection
        self._finish()

    def _raise_mistakes(self) -> None:
        """A task that ended by an error of ours ends the agent: whoever watches over it starts it again."""
        for task in (*self._wires, *((self._connection,) if self._connection is not None else ())):
            if task.done() and not task.cancelled():
                error = task.exception()
                if error is not None:
                    raise error

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
        self._keeper.look(self._system.facts())
        await self._commands.stop()
        self._orders.turn(ending=True)
        self._keeper.note(Kind.AGENT_STOP, {})
        self._keeper.seal()
        self._happened(Event.STOP)

    def _finish(self) -> None:
        self._write_status()
        self._keeper.close()
        logger.info("stopped", extra={"unstored_records": self._keeper.in_memory})

    def _turn(self) -> None:
        """One look at everything that time alone can make due."""
        facts = self._system.facts()
        now_s = facts.mono_ms / 1000
        self._keeper.turn(facts)
        self._leases.turn()
        self._orders.turn()
        self._configuring.turn()
        if self._keeper.ready and self._state is State.OFFLINE and not self._stopping:
            self._happened(Event.START)
        self._turn_connection(facts, now_s)
        if now_s - self._t.status >= STATUS_EVERY_S:
            self._write_status()

    def _until_next_turn_s(self) -> float:
        now_ms = self._system.mono_ms()
        due_ms = self._keeper.due_ms()
        dues = [] if due_ms is None else [due_ms]
        if self._link is not None:
            agains = (self._window.next_s(), self._configuring.next_s())
            dues.extend(int(again_s * 1000) + 1 for again_s in agains if again_s is not None)
        if self._state is State.DRAINING:
            dues.append(int(self._t.drain_until * 1000) + 1)
        return min(TURN_S, max(TURN_S_MIN, (min(dues, default=now_ms + 60_000) - now_ms) / 1000))

    def _stored(self, keys: Sequence[Key]) -> None:
        self._window.stored(keys)
        self._wake.set()

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
            case Effect.RETURN_LATER:
                self._connect_later(session.return_s)
            case Effect.RETRY_LATER:
                self._connect_later(session.retry_s)
            case Effect.BIRTH:
                self._send_birth()
            case Effect.OFFER_AGAIN:
                self._window.offer_again(now_s)
            case Effect.ASK_TIME:
                self._ask_time()
            case Effect.FORGET_FAILURES:
                self._failures = 0
            case Effect.DISTRUST_CLOCK:
                self._keeper.distrust_clock()
            case Effect.NOTE_UP:
                self._t.connected, self._t.stable = now_s, False
                logger.info("connected", extra={"attempts": self._failures + 1})
                self._keeper.note(Kind.LINK_UP, {"attempts": self._failures + 1})
                self._write_status()
            case Effect.NOTE_DOWN:
                logger.warning("disconnected", extra={"why": self._why_down})
                self._keeper.note(Kind.LINK_DOWN, {"why": self._why_down})
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

    def _connect_later(self, wait_s: session.Wait) -> None:
        self._failures += 1
        backoff = self._settings.file.backoff
        bound_s = session.bound_s(self._failures, s_min=backoff.s_min, s_cap=backoff.s_cap)
        hurry_s = self._configuring.hurry_s
        spread_s = self._spread_s
        if hurry_s is not None:  # else a change could not prove itself in its time
            bound_s, spread_s = min(bound_s, hurry_s), min(spread_s, hurry_s)
        delay_s = wait_s(bound_s, spread_s=spread_s, uniform=self._uniform)
        self._retry = asyncio.get_running_loop().call_later(delay_s, self._happened, Event.RETRY)

    def _come_back(self) -> None:
        """To where the settings say now: at once where there is a connection, else as after a lost one."""
        self._new_settings.set()
        if self._state is State.WAITING and self._retry is not None:
            self._retry.cancel()
            self._failures = 0
            self._connect_later(session.return_s)

    async def _connect(self) -> None:
        """One attempt, and the connection if it succeeds; tells the session how it ended."""
        device = self._settings.device
        self._own = self._configuring.connecting()
        self._new_settings.clear()
        own = Pair(self._settings.cert_file, self._settings.key_file)
        pairs = files.pairs(own)
        pair = pairs[self._failures % len(pairs)]  # a new one first, and at each failure the other one
        # read first: if another pair comes before the broker has this one, it is not taken for the one that connected
        cert = b"" if pair is own else files.certificate(pair)
        self._new_identity.clear()
        endpoint = Endpoint(
            self._own.host,
            self._own.port,
            device,
            self._own.keep_alive_s,
            self._settings.ca_file,
            pair.cert_file,
            pair.key_file,
        )
        self._epoch = random_hex16()
        will = messages.encode(Will(1, self._epoch, "lost"))
        skip_dates = clock.skips_dates(self._keeper.clock, self._system.facts())
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
                self._configuring.connected()
                if self._uploading is not None:
                    self._uploading.connected()
                ended = Event.LOST
                async with settling(own, cert):
                    await self._listen(link)
                return
        except DatesRefusedError as error:
            self._why_down = str(error)
            ended = Event.DATES_REFUSED
        except LinkError as error:
            self._why_down = str(error)
        finally:
            self._link = None
            self._configuring.disconnected()
            if self._uploading is not None:
                self._uploading.disconnected()
        if ended is not Event.LOST:
            log = logger.warning if self._failures == 0 else logger.debug
            log("cannot connect", extra={"why": self._why_down})
        if not self._left.is_set():
            self._happened(ended)

    async def _listen(self, link: Link) -> None:
        """Hear the broker until the connection ends (LinkError), the agent leaves, or there is something new to
        connect with.
        """

        async def hear() -> None:
            async for message in link.incoming():
                self._told(message)

        hearing = asyncio.create_task(hear())
        leaving = asyncio.create_task(self._left.wait())
        renewed = asyncio.create_task(self._new_identity.wait())
        changed = asyncio.create_task(self._new_settings.wait())
        tasks = (hearing, leaving, renewed, changed)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                await hearing
            elif renewed.done() and not leaving.done():
                raise LinkError("to come back with the new certificate")
            elif changed.done() and not leaving.done():
                await link.sent(FAREWELL_S)
                raise LinkError("to come back with the new settings")
            else:
                await link.sent(FAREWELL_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _turn_connection(self, facts: Facts, now_s: float) -> None:
        if self._link is None:
            return
        file = self._settings.file
        if self._state is State.CONNECTED:
            if not self._t.stable and now_s - self._t.connected >= file.backoff.stable_s:
                self._t.stable = True
                self._happened(Event.STABLE)
            wanted = self._birth_wanted or self._explained != self._to_explain()
            if wanted and now_s - self._t.birth >= BIRTH_AGAIN_S:
                self._send_birth()
            elif now_s - self._t.sent >= self._lost.every_s(self._own.keep_alive_s):
                self._happened(Event.SILENT)
            wait_s = clock.next_ask_s(
                self._keeper.clock,
                mono_ms=facts.mono_ms,
                last_ask_mono_ms=self._asked_mono_ms,
                every_s=file.clock.ask_every_s,
            )
            if wait_s <= 0:
                self._ask_time()
        if self._state in {State.CONNECTED, State.DRAINING}:
            self._pump(now_s)
        if self._state is State.DRAINING and (
            now_s >= self._t.drain_until or not any(ledger.waiting for ledger in self._keeper.ledgers())
        ):
            self._happened(Event.DRAINED)

    def _pump(self, now_s: float) -> None:
        """Send what the window lets go."""
        lasts = {(ledger.stream, ledger.life): ledger.last for ledger in self._keeper.ledgers()}
        for key in self._window.take(self._keeper.ledgers(), now_s):
            found = self._keeper.read(key)
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

    def _send_upload(self, channel: Up, payload: bytes, content_type: str, then: Callable[[], None]) -> None:
        if self._link is not None:
            self._link.send(Outgoing(topics.up(self._settings.device, channel), payload, content_type), then)

    def _to_explain(self) -> _Explained:
        return {(ledger.stream, ledger.life): ledger.gone for ledger in spool.told(self._keeper.ledgers())}

    def _send_birth(self) -> None:
        every_ms = {wire.stream: int(wire.every_s * 1000) for wire in self._settings.profile.wires}
        self._birth_wanted = False
        self._explained = self._to_explain()
        self._t.birth = self._system.mono_s()
        birth = Birth(
            v=1,
            epoch=self._epoch,
            boot=self._system.boot,
            mono=self._system.mono_ms(),
            keep_alive_s=self._own.keep_alive_s,
            agent=AGENT,
            device_class=self._settings.device_class.name,
            profile=self._settings.profile.name[:64],
            store_epoch=self._keeper.store_epoch,
            seal_ms=int(self._settings.file.seal_s * 1000),
            streams=tuple(
                spool.stream_state(ledger, every_ms.get(ledger.stream, 0) if ledger.current else 0)
                for ledger in spool.told(self._keeper.ledgers())
            ),
            profile_digest=self._settings.profile.digest,
            hardware=self._hardware,
            signers=self._version,
            kid=self._keys.receipt.kid,
        )
        self._send(Up.STATUS, messages.encode(birth), retain=True)

    @property
    def _version(self) -> int:
        return 0 if self._keys.roots is None else self._keys.roots.version

    def _look_at_keys(self) -> None:
        """A child may have brought newer ones. The birth tells which receipts are to be made with, so what was made
        with the former key meanwhile is made again.
        """
        try:
            keys = files.read_all_keys(self._settings.mac_file, self._settings.signers_file)
        except files.BadKeysError as error:
            logger.warning("keys stay as they were", extra={"why": shown(error)})
            return
        if keys == self._keys:
            return
        self._keys = keys
        if keys.roots is not None:
            self._orders.trust(keys.roots)
        logger.info("newer keys", extra={"signers": self._version, "kid": keys.receipt.kid})
        self._birth_wanted = True
        self._wake.set()

    def _ask_time(self) -> None:
        nonce = random_hex16()
        self._asked_mono_ms = self._system.mono_ms()
        self._keeper.clock = clock.ask(self._keeper.clock, nonce, self._asked_mono_ms)
        self._send(Up.TIME, messages.encode(AskTime(1, nonce)))

    async def _sync_clock(self) -> int | None:
        """Ask the server for the time; how far the board's clock was off, ms, or None if no answer was believed."""
        self._time_told.clear()
        self._ask_time()
        try:
            async with asyncio.timeout(self._settings.file.clock.rtt_ms_max / 1000):
                await self._time_told.wait()
        except TimeoutError:
            return None
        return clock.off(self._keeper.clock, self._system.facts())

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
        elif message.topic == topics.down(device, Down.COMMAND):
            self._orders.told(Ordered.COMMAND, message.payload)
        elif message.topic == topics.down(device, Down.TWIN):
            if not self._configuring.told(message.payload):
                self._orders.told(Ordered.TWIN, message.payload)
        elif message.topic == topics.down(device, Down.UPLOAD):
            if self._uploading is not None and not self._uploading.told(message.payload):
                self._orders.told(Ordered.EVIDENCE_RECEIPT, message.payload)
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
        at = (receipt.stream, receipt.life)
        ledger = next((x for x in self._keeper.ledgers() if (x.stream, x.life) == at), None)
        if ledger is not None:
            diverged = self._window.doubts(receipt) and self._keeper.differs(receipt)
            receipt = self._window.doubted(ledger, receipt, diverged=diverged)
        marked = self._keeper.mark(receipt)
        if marked is None:
            return
        if marked.epoch_raised:
            logger.warning("another store; offering again", extra={"store_epoch": receipt.store_epoch})
            self._window.offer_again(self._system.mono_s())
            self._birth_wanted = True
            if self._uploading is not None:
                self._uploading.store_changed()
        if marked.life_changed:
            logger.error("conflict; new batches take a new life", extra={"stream": receipt.stream})
        ledger = next((x for x in self._keeper.ledgers() if (x.stream, x.life) == at), None)
        if ledger is not None and not marked.ignored:  # a life that is over may just have been forgotten
            self._birth_wanted |= self._window.told(ledger, receipt)
        self._wake.set()

    def _told_time(self, time: Time) -> None:
        facts = self._system.facts()
        state, refused = clock.answered(
            self._keeper.clock,
            nonce=time.nonce,
            t_ms=time.t_ms,
            unc_ms=time.unc_ms,
            mono_ms=facts.mono_ms,
            rtt_ms_max=self._settings.file.clock.rtt_ms_max,
        )
        self._keeper.clock = state
        if refused is not None:
            logger.info("time answer ignored", extra={"why": refused})
            return
        logger.debug("time", extra={"off_ms": clock.off(state, facts)})
        self._keeper.look(facts)
        self._time_told.set()
        self._configuring.heard_server()
        self._wake.set()

    def _told_server(self, state: ServerState) -> None:
        """A server that may be another one, or has lost what it had in memory. Nobody vouches for this message, so it
        can only make the agent repeat itself, and come back later, within a bound.
        """
        if state.state == "up":
            self._spread_s = state.spread_ms / 1000
            if state.signers > self._version or state.kid not in {"", self._keys.receipt.kid}:
                self._hint.give(self._spread_s)
        shard = int(shard_of(self._settings.device), 16)
        owned = next((s.epoch for s in state.shards if s.first <= shard <= s.last), 0)
        epochs = (state.store_epoch, owned)
        if self._server_epochs is not None and epochs != self._server_epochs:
            self._window.offer_again(self._system.mono_s())
            self._birth_wanted = True
            if self._uploading is not None:
                self._uploading.server_changed()
            self._wake.set()
        self._server_epochs = epochs

    def _tell_command(self, status: CommandStatus) -> None:
        self._send(Up.COMMAND, messages.encode(status))

    def _trusted_ms(self) -> int | None:
        return clock.trusted_ms(self._keeper.clock, self._system.facts())

    def _order_times(self) -> Times:
        facts = self._system.facts()
        state = self._keeper.clock
        return Times(facts.mono_ms, clock.trusted_ms(state, facts), clock.served_ms(state, facts))

    # For people -------------------------------------------------------------------------------------------------

    def _write_status(self) -> None:
        give_back_memory()
        self._t.status = self._system.mono_s()
        files.write_status(self._settings.state_dir, msgspec.json.encode(self._status()))

    def _status(self) -> dict[str, object]:
        facts = self._system.facts()
        status: dict[str, object] = {
            "device": self._settings.device,
            "at_ms": facts.wall_ms,
            "connection": self._state.value,
            "in_flight": self._window.in_flight,
            "failures": self._failures,
            "why_down": "" if self._link is not None else self._why_down,
            "clock": {"src": self._keeper.clock.source.value, "off_ms": clock.off(self._keeper.clock, facts)},
            "disk_ok": self._keeper.disk_ok,
            "in_memory": self._keeper.in_memory,
            "streams": [summary(ledger) for ledger in self._keeper.ledgers()],
            "lost": bool(self._lost),
        }
        status["twin"] = self._configuring.status()
        if self._uploading is not None:
            status["uploads"] = self._uploading.status()
        return status
