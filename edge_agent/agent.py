"""The loop: carries out what the cores decide. One task reads each wire, one holds the connection, one turns."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import msgspec

from broker_config import messages
from broker_config.messages import CommandStatus, Will
from broker_config.signing import Kind as Ordered
from broker_config.telemetry import CONTENT_JSON, JOURNAL, PROPERTY_KEY, PROPERTY_LAST, Key
from broker_config.topics import Up
from edge_agent import clock, parts, session, tasks
from edge_agent.adapters import files
from edge_agent.adapters.counters import COUNTERS_NAME, Counters
from edge_agent.adapters.system import System, give_back_memory
from edge_agent.births import Births
from edge_agent.config import Settings
from edge_agent.configuring import Own
from edge_agent.connecting import Connecting
from edge_agent.hearing import Hearing
from edge_agent.journal import Kind
from edge_agent.keeper import Keeper
from edge_agent.lease_watch import LeaseWatch
from edge_agent.lost import Lost
from edge_agent.orders import Orders, Times
from edge_agent.renewing import Hint, keep_renewed
from edge_agent.session import Effect, Event, State
from edge_agent.updating import Updating
from edge_agent.window import Window
from edge_agent.wires import read_wire
from firmware_bridge.driver import Driver

logger = logging.getLogger(__name__)

TURN_S: Final = 1.0
"""The loop looks at its clocks at least this often."""
TURN_S_MIN: Final = 0.01
STATUS_EVERY_S: Final = 60.0


@dataclass(slots=True)
class _Timers:
    """When things were last done, seconds of the monotonic clock."""

    connected: float = 0.0
    stable: bool = False
    sent: float = 0.0
    status: float = 0.0
    drain_until: float = 0.0


class Agent:
    """One device. ``run`` is called once."""

    def __init__(self, settings: Settings, system: System, keys: files.DeviceKeys, wired: frozenset[str]) -> None:
        """*wired*: the streams that have something to read them."""
        file = settings.file
        self._settings = settings
        self._system = system
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
        self._uploading = parts.uploading(
            settings, system, self._keeper, self._lost, send=self._send_upload, pending=self._pending
        )
        counters = Counters(settings.state_dir / COUNTERS_NAME)
        self._commands = parts.commands(
            settings,
            system,
            self._keeper,
            self._lost,
            self._leases,
            self._uploading,
            counters,
            tell=self._tell_command,
            now_ms=self._trusted_ms,
            sync_clock=self._sync_clock,
            status=self._status,
        )
        self._updating = Updating()
        self._relay = parts.release_relay(settings, self._send_question)
        own = Own(file.broker.host, file.broker.port, file.broker.keep_alive_s)
        self._configuring = parts.configuring(
            settings,
            own,
            system,
            self._keeper,
            self._leases,
            now_ms=self._trusted_ms,
            say=lambda payload: self._send(Up.TWIN, payload),
            come_back=lambda: self._connecting.come_back(waiting=self._state is State.WAITING),
            ready=lambda: self._orders.ready,
            not_before_ms=lambda: self._keeper.clock.floor_ms,
            restart=self._restart,
            updating=self._updating,
            relay=self._relay,
        )
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
        self._hint = Hint(self._uniform)
        self._hearing = Hearing(
            settings,
            system,
            keys,
            self._keeper,
            self._window,
            self._orders,
            self._configuring,
            self._uploading,
            self._relay,
            self._hint,
            wake=self._look_again,
        )
        self._connecting = Connecting(
            settings,
            own,
            self._uniform,
            now_in_force=self._configuring.connecting,
            hurry_s=lambda: self._configuring.hurry_s,
            spread_s=lambda: self._hearing.spread_s,
            skips_dates=lambda: clock.skips_dates(self._keeper.clock, self._system.facts()),
            happened=self._happened,
            told=self._hearing.told,
            down=self._down,
        )
        self._state = State.OFFLINE
        self._births = Births(settings, system, self._keeper)
        self._t = _Timers()
        self._wake = asyncio.Event()
        self._wires: list[asyncio.Task[None]] = []
        self._stopping = False
        self.restarts = False
        """Whether another agent is to go on, once this one has ended."""

    # The run ----------------------------------------------------------------------------------------------------

    async def run(self, drivers: Mapping[str, Driver], stop: asyncio.Event) -> None:
        """Run until *stop* is set and the stop is done. *drivers*: stream -> what reads it."""
        self._keeper.start()
        self._window.found(self._keeper.ledgers())
        began_s = self._system.mono_s()
        self._wires = [
            asyncio.create_task(
                read_wire(
                    wire,
                    drivers[wire.stream],
                    self._keeper,
                    self._leases,
                    self._system,
                    began_s,
                    self._lost,
                    self._updating,
                )
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
                self._settings.config_file,
                self._uniform,
                self._connecting.new_identity.set,
                self._hearing.look_at_keys,
                self._hint,
            )
            self._wires.append(asyncio.create_task(renewing))
        while not self._connecting.left.is_set():
            if (stop.is_set() or self.restarts) and not self._stopping:
                await self._begin_stop(drivers)
            self._turn()
            task = self._connecting.task
            tasks.raise_mistakes(self._wires if task is None else (*self._wires, task))
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_turn_s()):
                    await tasks.any_of(self._wake, *(() if self._stopping else (stop,)))
        if self._connecting.task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting.task
        self._finish()

    def _restart(self) -> None:
        logger.info("another agent goes on")
        self.restarts = True
        self._wake.set()

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
        self._configuring.stop()
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
        self._turn_connection(now_s)
        if now_s - self._t.status >= STATUS_EVERY_S:
            self._write_status()

    def _until_next_turn_s(self) -> float:
        now_ms = self._system.mono_ms()
        due_ms = self._keeper.due_ms()
        dues = [] if due_ms is None else [due_ms]
        if self._connecting.link is not None:
            agains = (self._window.next_s(), self._configuring.next_s())
            dues.extend(int(again_s * 1000) + 1 for again_s in agains if again_s is not None)
        if self._state is State.DRAINING:
            dues.append(int(self._t.drain_until * 1000) + 1)
        return min(TURN_S, max(TURN_S_MIN, (min(dues, default=now_ms + 60_000) - now_ms) / 1000))

    def _look_again(self) -> None:
        self._wake.set()

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
                self._connecting.begin()
            case Effect.RETURN_LATER:
                self._connecting.later(session.return_s)
            case Effect.RETRY_LATER:
                self._connecting.later(session.retry_s)
            case Effect.HAND_OVER:
                self._up()
            case Effect.BIRTH:
                self._send_birth()
            case Effect.OFFER_AGAIN:
                self._window.offer_again(now_s)
            case Effect.ASK_TIME:
                self._ask_time()
            case Effect.FORGET_FAILURES:
                self._connecting.failures = 0
            case Effect.DISTRUST_CLOCK:
                self._keeper.distrust_clock()
            case Effect.NOTE_UP:
                self._t.connected, self._t.stable = now_s, False
                logger.info("connected", extra={"attempts": self._connecting.failures + 1})
                self._keeper.note(Kind.LINK_UP, {"attempts": self._connecting.failures + 1})
                self._write_status()
            case Effect.NOTE_DOWN:
                logger.warning("disconnected", extra={"why": self._connecting.why_down})
                self._keeper.note(Kind.LINK_DOWN, {"why": self._connecting.why_down})
                self._write_status()
            case Effect.DRAIN:
                self._t.drain_until = now_s + self._settings.file.stop_drain_s
            case Effect.FAREWELL:
                self._send(Up.STATUS, messages.encode(Will(1, self._connecting.epoch, "stop")), retain=True)
            case Effect.LEAVE:
                self._connecting.leave()
            case _:
                assert_never(effect)

    def _up(self) -> None:
        self._configuring.connected()
        if self._uploading is not None:
            self._uploading.connected()

    def _down(self) -> None:
        self._configuring.disconnected()
        if self._uploading is not None:
            self._uploading.disconnected()
        if self._relay is not None:
            self._relay.disconnected()

    def _turn_connection(self, now_s: float) -> None:
        if self._connecting.link is None:
            return
        file = self._settings.file
        if self._state is State.CONNECTED:
            if not self._t.stable and now_s - self._t.connected >= file.backoff.stable_s:
                self._t.stable = True
                self._happened(Event.STABLE)
            if self._births.due(now_s, wanted=self._hearing.birth_wanted):
                self._send_birth()
            elif now_s - self._t.sent >= self._lost.every_s(self._connecting.own.keep_alive_s):
                self._happened(Event.SILENT)
            if self._hearing.asks_time():
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
        if self._connecting.send(channel, payload, content_type, properties, retain=retain):
            self._t.sent = self._system.mono_s()

    def _send_upload(self, channel: Up, payload: bytes, content_type: str, then: Callable[[], None]) -> None:
        self._connecting.send(channel, payload, content_type, then=then)

    def _send_question(self, payload: bytes) -> bool:
        return self._connecting.send(Up.RELEASE, payload)

    def _send_birth(self) -> None:
        hearing, connecting = self._hearing, self._connecting
        hearing.birth_wanted = False
        birth = self._births.make(
            connecting.epoch, connecting.own.keep_alive_s, signers=hearing.version, kid=hearing.keys.receipt.kid
        )
        self._send(Up.STATUS, messages.encode(birth), retain=True)

    def _pending(self) -> int:
        link = self._connecting.link
        return 0 if link is None else link.unacknowledged_bytes

    def _ask_time(self) -> None:
        self._send(Up.TIME, self._hearing.ask_time())

    async def _sync_clock(self) -> int | None:
        """Ask the server for the time; how far the board's clock was off, ms, or None if no answer was believed."""
        self._ask_time()
        return await self._hearing.time_told()

    # What is asked ---------------------------------------------------------------------------------------------

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
        return parts.status(
            self._settings,
            self._system,
            self._keeper,
            self._lost,
            self._window,
            self._connecting,
            self._configuring,
            self._uploading,
            self._state,
        )
