"""One simulated device: decides what an agent would send, and when.

Rule 1: nothing here reads a clock or a socket. The time comes as a :class:`Moment`; what is to be done comes back as
effects, which the caller carries out in their order.
Rule 2: whoever calls anything here looks at :attr:`Device.next_s` afterwards, and calls :meth:`Device.turn` then.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from broker_config import limits, mac, messages, telemetry, topics
from broker_config.ids import ContractError, DeviceId, shard_of
from broker_config.mac import MacKey, Purpose
from broker_config.messages import AskTime, Birth, Receipt, ServerState, Time, Will
from broker_config.telemetry import CONTENT_JSON, JOURNAL, PROPERTY_KEY, PROPERTY_LAST, Batch, Clock, Event, Events
from broker_config.topics import Down, Up
from fleet_server.cli.simulate import readings
from fleet_server.cli.simulate.readings import Signal
from fleet_server.cli.simulate.spool import Line, Payload
from fleet_server.cli.simulate.twin import Twin

EXPONENT_MAX: Final = 16
HOLDING_MAX: Final = 8
"""Batches that wait in memory while the disk takes nothing; what comes then is dropped."""
BIRTH_AGAIN_S: Final = 1.0
UPTIME_MS_MAX: Final = 86_400_000
CLOCK_UNC_MS: Final = 40
AGENT: Final = "simulate"
NEVER: Final = float("inf")


class State(StrEnum):
    """``off``: between a power cut and the boot; ``left``: stopped, for good."""

    OFF = "off"
    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LEFT = "left"


class Moment(NamedTuple):
    """``s``: seconds of a clock that never jumps; ``ms``: what time it really is, since the epoch."""

    s: float
    ms: int


class Connect(NamedTuple):
    """Open a connection with this will on ``up/status``, retained. *asked_s*: when it was due."""

    will: bytes
    asked_s: float


class Publish(NamedTuple):
    """QoS 1."""

    topic: str
    body: bytes
    content_type: str = CONTENT_JSON
    properties: tuple[tuple[str, str], ...] = ()
    retain: bool = False


class Break(NamedTuple):
    """The socket is gone, without a word."""


class Leave(NamedTuple):
    """Disconnect orderly, once what was published is written."""


Effect: TypeAlias = Connect | Publish | Break | Leave


@dataclass(frozen=True, slots=True)
class Habits:
    """What all devices of a run have in common; the defaults are the agent's own."""

    signals: tuple[Signal, ...]
    every_s: float
    rows: int
    device_class: str
    keep_alive_s: int = limits.KEEP_ALIVE_S
    in_flight_max: int = limits.UNRECEIPTED_BATCHES_MAX
    receipt_wait_s: float = limits.RECEIPT_WAIT_S
    backoff_s_min: float = 1.0
    backoff_s_cap: float = 60.0
    stable_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Keys:
    """What a device checks the server's word with."""

    receipt: MacKey
    time: MacKey


class Device:
    """See the module's docstring. Begins to connect with the first :meth:`turn` after :meth:`switch_on`.

    *life*: new for each run, or a server that knows an earlier one would find other bytes under the same numbers.
    """

    __slots__ = (
        "_asked",
        "_birth_s",
        "_birth_wanted",
        "_boot",
        "_booted_s",
        "_clock",
        "_clock_behind_ms",
        "_connected_s",
        "_disk_full",
        "_dropped",
        "_epoch",
        "_events",
        "_failures",
        "_habits",
        "_holding",
        "_keys",
        "_reading",
        "_rng",
        "_seal_s",
        "_sent_s",
        "_server_epochs",
        "_spread_s",
        "_store_epoch",
        "_values",
        "_wake_s",
        "lines",
        "name",
        "refused",
        "state",
        "twin",
    )

    def __init__(
        self,
        name: DeviceId,
        habits: Habits,
        keys: Keys,
        rng: random.Random,
        now: Moment,
        *,
        life: str,
    ) -> None:
        self.name = name
        self.state = State.WAITING
        self.refused = 0
        self._habits = habits
        self._keys = keys
        self._rng = rng
        self.lines = {stream: Line(stream, life) for stream in (*(s.stream for s in habits.signals), JOURNAL)}
        self._values = {signal.stream: readings.start(signal, rng) for signal in habits.signals}
        self._holding: list[Batch | Events] = []
        self._dropped: dict[str, int] = {}
        self._disk_full = False
        self._reading = True
        self._store_epoch = 0
        self._wake_s = NEVER
        self._clock_behind_ms = 0
        self._begin(now, booted_s=now.s - rng.uniform(0.0, UPTIME_MS_MAX / 1000), src="ntp", clean=True)
        self._seal_s = now.s + rng.uniform(0.0, habits.every_s)
        self.twin = Twin(self._boot)

    def _begin(self, now: Moment, *, booted_s: float, src: Literal["ntp", "none"], clean: bool) -> None:
        """What a start of the agent makes anew."""
        self._boot = _hex16(self._rng)
        self._booted_s = booted_s
        self._clock = Clock(src, 0, CLOCK_UNC_MS if src == "ntp" else 0)
        self._epoch = _hex16(self._rng)
        self._events: list[tuple[int, int, Event]] = []
        self._failures = 0
        self._connected_s = self._sent_s = self._birth_s = now.s
        self._birth_wanted = False
        self._asked: tuple[str, float] | None = None
        self._server_epochs: tuple[int, int] | None = None
        self._spread_s = 0.0
        self._seal_s = now.s + self._habits.every_s
        self._note(now, "agent.start", {"clean": clean})

    # What it is -------------------------------------------------------------------------------------------------

    @property
    def drained(self) -> bool:
        """Nothing waits for a receipt."""
        return not self._holding and not any(line.held for line in self.lines.values())

    @property
    def next_s(self) -> float:
        """When :meth:`turn` has something to do."""
        due = [self._seal_s if self._reading and self.state is not State.OFF else NEVER]
        if self.state in {State.OFF, State.WAITING}:
            due.append(self._wake_s)
        if self.state is State.CONNECTED:
            due.append(self._sent_s + self._habits.keep_alive_s)
            due.extend(at_s for line in self.lines.values() if (at_s := line.next_s) is not None)
            if self._birth_wanted:
                due.append(self._birth_s + BIRTH_AGAIN_S)
            if (say_again_s := self.twin.next_s) is not None:
                due.append(say_again_s)
        return min(due)

    @property
    def spread_s(self) -> float:
        """Over how long it comes back, by the server's word."""
        return self._spread_s

    @property
    def cadence_s(self) -> float:
        """From one batch of a stream to the next."""
        return self._habits.every_s

    def _mono_ms(self, now: Moment) -> int:
        return max(0, int((now.s - self._booted_s) * 1000))

    def _board_ms(self, now: Moment) -> int:
        return now.ms - self._clock_behind_ms

    def _wall_ms(self, now: Moment) -> int:
        return self._board_ms(now) + (self._clock.off_ms if self._clock.src == "server" else 0)

    # What happens to it -----------------------------------------------------------------------------------------

    def switch_on(self, at_s: float) -> None:
        """It begins to connect then."""
        self._wake_s = at_s

    def turn(self, now: Moment) -> list[Effect]:
        """Time has passed."""
        if self.state is State.OFF:
            if now.s < self._wake_s:
                return []
            self.state = State.WAITING
        if self._reading and now.s >= self._seal_s:
            self._seal(now)
            self._seal_s += self._habits.every_s * max(1, int((now.s - self._seal_s) / self._habits.every_s) + 1)
        match self.state:
            case State.WAITING if now.s >= self._wake_s:
                self.state = State.CONNECTING
                self._epoch = _hex16(self._rng)
                return [Connect(messages.encode(Will(1, self._epoch, "lost")), self._wake_s)]
            case State.CONNECTED:
                return self._turn_connected(now)
            case _:
                return []

    def _turn_connected(self, now: Moment) -> list[Effect]:
        if now.s - self._connected_s >= self._habits.stable_s:
            self._failures = 0
        out: list[Effect] = []
        silent = now.s - self._sent_s >= self._habits.keep_alive_s
        if silent or (self._birth_wanted and now.s - self._birth_s >= BIRTH_AGAIN_S):
            out.append(self._birth(now))
        return [*out, *self._of_twin(self.twin.turn(now.s, now.ms), now), *self._pump(now)]

    def up(self, now: Moment) -> list[Effect]:
        """The connection stands."""
        self.state = State.CONNECTED
        self._connected_s = now.s
        self._note(now, "link.up", {"attempts": float(self._failures + 1)})
        for line in self.lines.values():
            line.offer_again(now.s, self._rng.uniform)
        nonce = _hex16(self._rng)
        self._asked = (nonce, now.s)
        ask = self._publish(Up.TIME, messages.encode(AskTime(1, nonce)), now)
        return [self._birth(now), ask, *self._of_twin(self.twin.up(now.s, now.ms), now), *self._pump(now)]

    def failed(self, now: Moment) -> None:
        """The connection cannot be made."""
        if self.state is State.CONNECTING:
            self._wait(now.s + self._spread_s + self._rng.uniform(0.0, self._next_bound_s()))

    def lost(self, now: Moment, why: str) -> None:
        """The connection is gone."""
        if self.state is State.CONNECTED:
            self._note(now, "link.down", {"why": why[: limits.TEXT_CHARS_MAX]})
            self._wait(now.s + self._rng.uniform(0.0, max(self._next_bound_s(), self._spread_s)))

    def _wait(self, until_s: float) -> None:
        self.state, self._wake_s = State.WAITING, until_s

    def _next_bound_s(self) -> float:
        """Of full jitter, as the agent's; counts a failure."""
        self._failures += 1
        exponent = min(self._failures - 1, EXPONENT_MAX)
        return min(self._habits.backoff_s_cap, self._habits.backoff_s_min * 2.0**exponent)

    def power_cut(self, now: Moment, *, pause_s: float, clock_lost: bool) -> list[Effect]:
        """Off, and on again after *pause_s*; *clock_lost*: with a clock that begins in 1970."""
        if self.state in {State.OFF, State.LEFT}:
            return []
        back = Moment(now.s + pause_s, now.ms + int(pause_s * 1000))
        self._holding.clear()
        self._dropped.clear()
        self._disk_full = False
        self._clock_behind_ms = back.ms if clock_lost else 0
        self._begin(back, booted_s=back.s, src="none" if clock_lost else "ntp", clean=False)
        self.twin.boot = self._boot
        self.state = State.OFF
        self._wake_s = back.s
        return [Break()]

    def disk(self, now: Moment, *, full: bool) -> list[Effect]:
        """The spool takes nothing any more, or takes batches again."""
        if full == self._disk_full or self.state is State.OFF:
            return []
        self._disk_full = full
        if full:
            self._note(now, "spool.full", {})
            return []
        holding, self._holding = self._holding, []
        dropped, self._dropped = self._dropped, {}
        for stream, batches in dropped.items():
            self.lines[stream].bury(batches)
            self._note(now, "spool.evicted", {"stream": stream, "batches": float(batches)})
        self._birth_wanted |= bool(dropped)
        self._note(now, "spool.ok", {})
        for draft in holding:
            self._store(draft)
        return self._pump(now) if self.state is State.CONNECTED else []

    def stop(self, now: Moment) -> list[Effect]:
        """No more readings: say so in the journal and seal what is open; what is held still goes out."""
        self.disk(now, full=False)
        if self.state is State.OFF:
            self.state, self._wake_s = State.WAITING, now.s
        if self._reading:
            self._note(now, "agent.stop", {})
            self._seal(now)
            self._reading = False
        return self._pump(now) if self.state is State.CONNECTED else []

    def leave(self, now: Moment) -> list[Effect]:
        """Goodbye."""
        connected = self.state is State.CONNECTED
        self.state = State.LEFT
        will = messages.encode(Will(1, self._epoch, "stop"))
        return [self._publish(Up.STATUS, will, now, retain=True), Leave()] if connected else []

    # What it is told --------------------------------------------------------------------------------------------

    def told(self, topic: str, body: bytes, properties: Mapping[str, str], now: Moment) -> list[Effect]:
        """A message has come; what is not authentic is counted in ``refused`` and changes nothing."""
        if self.state in {State.OFF, State.LEFT}:
            return []
        try:
            if topic == topics.down(self.name, Down.RECEIPT):
                self._check(self._keys.receipt, Purpose.RECEIPT, topic, body, properties)
                self._told_receipt(messages.decode(body, Receipt), now)
            elif topic == topics.down(self.name, Down.TIME):
                self._check(self._keys.time, Purpose.TIME, topic, body, properties)
                self._told_time(messages.decode(body, Time), now)
            elif topic == topics.down(self.name, Down.TWIN):
                return self._of_twin(self.twin.told(body, now.s, now.ms), now)
            elif topic == topics.SERVER_STATE:
                self._told_server(messages.decode(body, ServerState), now)
        except ContractError:
            self.refused += 1
            return []
        unsent = any(line.has_unsent for line in self.lines.values())
        return self._pump(now) if unsent and self.state is State.CONNECTED else []

    @staticmethod
    def _check(key: MacKey, purpose: Purpose, topic: str, body: bytes, properties: Mapping[str, str]) -> None:
        if not mac.authentic(key, purpose, topic, body, dict(properties)):
            raise ContractError("not authentic")

    def _told_receipt(self, receipt: Receipt, now: Moment) -> None:
        line = self.lines.get(receipt.stream)
        if line is None or line.life != receipt.life or receipt.store_epoch < self._store_epoch:
            return
        if receipt.store_epoch > self._store_epoch:
            if self._store_epoch:
                self._offer_again(now)
            self._store_epoch = receipt.store_epoch
        self._birth_wanted |= line.mark(receipt)

    def _told_time(self, time: Time, now: Moment) -> None:
        asked, self._asked = self._asked, None
        if asked is None or asked[0] != time.nonce:
            return
        rtt_ms = int((now.s - asked[1]) * 1000)
        if rtt_ms > limits.RTT_MS_MAX or self._clock.src == "ntp":
            return
        self._seal_events(now)  # a batch has one clock
        off_ms = time.t_ms + rtt_ms // 2 - self._board_ms(now)
        self._clock = Clock("server", off_ms, time.unc_ms + rtt_ms // 2)
        self._note(now, "clock.source", {"src": "server"})

    def _told_server(self, state: ServerState, now: Moment) -> None:
        if state.state == "up":
            self._spread_s = state.spread_ms / 1000
        shard = int(shard_of(self.name), 16)
        epochs = (state.store_epoch, next((s.epoch for s in state.shards if s.first <= shard <= s.last), 0))
        if self._server_epochs is not None and epochs != self._server_epochs:
            self._offer_again(now)
        self._server_epochs = epochs

    def _offer_again(self, now: Moment) -> None:
        for line in self.lines.values():
            line.offer_again(now.s, self._rng.uniform)
        self._birth_wanted = True

    # What it says -----------------------------------------------------------------------------------------------

    def _publish(
        self,
        channel: Up,
        body: bytes,
        now: Moment,
        *,
        content_type: str = CONTENT_JSON,
        properties: tuple[tuple[str, str], ...] = (),
        retain: bool = False,
    ) -> Publish:
        self._sent_s = now.s
        return Publish(topics.up(self.name, channel), body, content_type, properties, retain)

    def _of_twin(self, bodies: list[bytes], now: Moment) -> list[Effect]:
        return [self._publish(Up.TWIN, body, now) for body in bodies]

    def _birth(self, now: Moment) -> Publish:
        self._birth_wanted = False
        self._birth_s = now.s
        every_ms = {
            signal.stream: int(self._habits.every_s * 1000 / self._habits.rows) for signal in self._habits.signals
        }
        birth = Birth(
            v=1,
            epoch=self._epoch,
            boot=self._boot,
            mono=self._mono_ms(now),
            keep_alive_s=self._habits.keep_alive_s,
            agent=AGENT,
            device_class=self._habits.device_class,
            profile=AGENT,
            store_epoch=self._store_epoch,
            seal_ms=int(self._habits.every_s * 1000),
            streams=tuple(line.state(every_ms.get(stream, 0)) for stream, line in self.lines.items()),
        )
        return self._publish(Up.STATUS, messages.encode(birth), now, retain=True)

    def _pump(self, now: Moment) -> list[Effect]:
        room = self._habits.in_flight_max - sum(line.in_flight for line in self.lines.values())
        out: list[Effect] = []
        for line in self.lines.values():
            sent = line.take(now.s, room=max(0, room), wait_s=self._habits.receipt_wait_s, uniform=self._rng.uniform)
            for seq in sent:
                payload = line.held[seq]
                key = telemetry.key_text(line.stream, line.life, seq)
                out.append(
                    self._publish(
                        Up.EVENT if line.stream == JOURNAL else Up.TELEMETRY,
                        payload.body,
                        now,
                        content_type=payload.content_type,
                        properties=((PROPERTY_KEY, key), (PROPERTY_LAST, str(line.last))),
                    )
                )
            room = self._habits.in_flight_max - sum(each.in_flight for each in self.lines.values())
        return out

    # What it seals ----------------------------------------------------------------------------------------------

    def _seal(self, now: Moment) -> None:
        """A batch of every stream, its rows evenly spaced up to now, and the journal's."""
        step_ms = int(self._habits.every_s * 1000 / self._habits.rows)
        span_ms = min(step_ms * (self._habits.rows - 1), self._mono_ms(now))
        count = span_ms // step_ms + 1
        dt = [row * step_ms for row in range(count)]
        for signal in self._habits.signals:
            batch = Batch(
                v=1,
                stream=signal.stream,
                life=self.lines[signal.stream].life,
                seq=1,
                boot=self._boot,
                t0=self._wall_ms(now) - dt[-1],
                mono=self._mono_ms(now) - dt[-1],
                clock=self._clock,
                fields=signal.names,
                dt=dt,
                rows=readings.rows(signal, self._values[signal.stream], count, self._rng),
            )
            self._keep(batch)
        self._seal_events(now)

    def _note(self, now: Moment, kind: str, data: Mapping[str, float | bool | str | None]) -> None:
        if len(self._events) == limits.EVENTS_MAX:
            self._seal_events(now)
        self._events.append((self._mono_ms(now), self._wall_ms(now), Event(kind, dict(data))))

    def _seal_events(self, now: Moment) -> None:
        if not self._events:
            return
        # ten minutes are the most that a batch spans
        mono_ms, wall_ms, _ = self._events[0]
        within = [entry for entry in self._events if entry[0] - mono_ms <= limits.BATCH_SPAN_MS_MAX]
        self._events = self._events[len(within) :]
        self._keep(
            Events(
                v=1,
                stream=JOURNAL,
                life=self.lines[JOURNAL].life,
                seq=1,
                boot=self._boot,
                t0=wall_ms,
                mono=mono_ms,
                clock=self._clock,
                prev=self.lines[JOURNAL].tip,
                dt=[at_ms - mono_ms for at_ms, _, _ in within],
                events=[event for _, _, event in within],
            )
        )
        self._seal_events(now)

    def _keep(self, draft: Batch | Events) -> None:
        if not self._disk_full:
            self._store(draft)
        elif len(self._holding) < HOLDING_MAX:
            self._holding.append(draft)
        else:
            self._dropped[draft.stream] = self._dropped.get(draft.stream, 0) + 1

    def _store(self, draft: Batch | Events) -> None:
        """Number it; from here on its bytes never change."""
        line = self.lines[draft.stream]
        if isinstance(draft, Events):
            record: Batch | Events = msgspec.structs.replace(draft, seq=line.last + 1, prev=line.tip)
        else:
            record = msgspec.structs.replace(draft, seq=line.last + 1)
        body, content_type = telemetry.encode(record)
        if draft.stream == JOURNAL:
            line.tip = hashlib.sha256(body).hexdigest()
        line.keep(Payload(body, content_type))


def _hex16(rng: random.Random) -> str:
    return f"{rng.getrandbits(64):016x}"
