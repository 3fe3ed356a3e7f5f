"""Carries out what simulated devices decide: a connection for each, in one loop, none with a task of its own.

The connections are the fleet server's own :class:`Link`, which is the same protocol seen from the other side.
"""

import asyncio
import heapq
import random
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import mqtt5

from broker_config import limits, topics
from broker_config.telemetry import CONTENT_JSON
from broker_config.topics import Up
from fleet_server.adapters.mqtt import QOS, Link, LinkError, LinkSettings, connect
from fleet_server.cli.simulate.device import NEVER, Break, Connect, Device, Effect, Leave, Moment, Publish
from fleet_server.cli.simulate.faults import Fault, Strike
from fleet_server.cli.simulate.gate import Gate, peak_a_second

TICK_S: Final = 0.02
CONNECTING_MAX: Final = 500
"""Handshakes under way at once; the others wait their turn."""
PAUSE_S: Final = (1.0, 5.0)
"""From a power cut to the boot."""
FULL_CADENCES: Final = 4.0
"""A disk stays full for so many cadences."""
COPY_S_MAX: Final = 30.0
"""After that a copy of a device gives up, if the device has not taken its session back."""
DISCONNECT_S_MAX: Final = 10.0


@dataclass(slots=True)
class Figures:
    """Of one run. Times are of the monotonic clock. ``asked_s``: when a device's back-off asked for a connection;
    ``begun_s``: when the gate, and a busy machine, let it; ``up_s``: when the broker had granted its subscriptions.
    """

    asked_s: list[float] = field(default_factory=list)
    begun_s: list[float] = field(default_factory=list)
    up_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    late_s_max: float = 0.0
    held_max: int = 0
    struck: Counter[Fault] = field(default_factory=Counter)
    storm_s: float | None = None
    broker_back_s: float | None = None
    all_back_s: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The devices' listener. ``security``: of the device at a place in the list."""

    host: str
    port: int
    keep_alive_s: int
    security: Callable[[int], ssl.SSLContext]


def moment() -> Moment:
    """Now."""
    return Moment(time.monotonic(), time.time_ns() // 1_000_000)


class Sessions:
    """The connections of all *devices*. Everything happens in the loop that runs :meth:`run`."""

    def __init__(
        self, devices: Sequence[Device], endpoint: Endpoint, *, connect_rate: int, rng: random.Random
    ) -> None:
        self.devices = devices
        self.figures = Figures()
        self._endpoint = endpoint
        self._gate = Gate(connect_rate)
        self._rng = rng
        self._links: dict[int, Link] = {}
        self._muted: set[int] = set()
        self._broken = False
        self._asking: deque[tuple[int, Connect]] = deque()
        self._wishes: dict[int, Connect] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake_s = [device.next_s for device in devices]
        self._due = [(at_s, at) for at, at_s in enumerate(self._wake_s)]
        heapq.heapify(self._due)
        self._later: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def held(self) -> int:
        """Sessions that stand."""
        return len(self._links)

    @property
    def sealed(self) -> int:
        """Numbers given, of all devices."""
        return sum(line.last for device in self.devices for line in device.lines.values())

    @property
    def receipted(self) -> int:
        """Numbers that receipts cover."""
        return sum(line.receipted for device in self.devices for line in device.lines.values())

    async def run(self, until: Callable[[], bool]) -> None:
        """Go on until *until*."""
        while not until():
            self._tick()
            await asyncio.sleep(TICK_S)

    def _tick(self) -> None:
        now = moment()
        while self._later and self._later[0][0] <= now.s:
            heapq.heappop(self._later)[2]()
        while self._due and self._due[0][0] <= now.s:
            at_s, at = heapq.heappop(self._due)
            if at_s == self._wake_s[at]:  # else an earlier one has taken its place
                self._wake_s[at] = NEVER
                self._carry_out(at, self.devices[at].turn(now))
                self._look_later(at)
        free = min(len(self._asking), max(0, CONNECTING_MAX - len(self._tasks)))
        for _ in range(self._gate.take(free, now.s)):
            at, wish = self._asking.popleft()
            self.figures.begun_s.append(now.s)
            self.figures.late_s_max = max(self.figures.late_s_max, now.s - wish.asked_s)
            self._task(self._connect(at, wish))
        self.figures.held_max = max(self.figures.held_max, self.held)
        figures = self.figures
        if figures.storm_s is not None and figures.all_back_s is None:
            # the sessions that break are only heard of after the storm began
            self._broken = self._broken or self.held < len(self.devices)
            if self._broken and self.held == len(self.devices):
                figures.all_back_s = now.s

    def _look_later(self, at: int) -> None:
        next_s = self.devices[at].next_s
        if next_s < self._wake_s[at]:
            self._wake_s[at] = next_s
            heapq.heappush(self._due, (next_s, at))

    def _task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, at: int, wish: Connect) -> None:
        device = self.devices[at]
        try:
            link = await self._link(at, wish.will)
        except LinkError as error:
            self.figures.failed[str(error).rpartition(": ")[2]] += 1
            if self._wishes.get(at) is wish:
                device.failed(moment())
                self._look_later(at)
            return
        if self._wishes.get(at) is not wish:
            link.close("power cut")
            return
        now = moment()
        self.figures.up_s.append(now.s)
        self._links[at] = link
        link.gone.add_done_callback(lambda gone: self._gone(at, link, gone.result()))
        self._carry_out(at, device.up(now))
        self._look_later(at)

    async def _link(self, at: int, will: bytes | None) -> Link:
        """Raises LinkError."""
        device = self.devices[at].name
        said = (
            None
            if will is None
            else mqtt5.Will(
                topics.up(device, Up.STATUS),
                payload=will,
                qos=QOS,
                retain=True,
                content_type=CONTENT_JSON,
                will_delay_interval=limits.WILL_DELAY_S,
            )
        )
        return await connect(
            LinkSettings(
                self._endpoint.host,
                self._endpoint.port,
                device,
                self._endpoint.keep_alive_s,
                self._endpoint.security(at),
                limits.SESSION_EXPIRY_S,
            ),
            filters=[
                mqtt5.TopicFilter(topics.down_filter(device), max_qos=QOS),
                mqtt5.TopicFilter(topics.SERVER_STATE, max_qos=QOS),
            ],
            will=said,
            clean_start=True,
            on_packets=lambda link, packets: self._heard(at, link, packets),
        )

    def _gone(self, at: int, link: Link, why: str) -> None:
        if self._links.get(at) is link:
            del self._links[at]
            self._muted.discard(at)
            self.devices[at].lost(moment(), why)
            self._look_later(at)

    def _heard(self, at: int, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        if at in self._muted or self._links.get(at) not in {None, link}:
            return
        link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))
        now, device = moment(), self.devices[at]
        for packet in packets:
            self._carry_out(at, device.told(packet.topic, packet.payload, dict(packet.user_properties), now))
        self._look_later(at)

    def _carry_out(self, at: int, effects: Iterable[Effect]) -> None:
        packets: list[bytes] = []
        for effect in effects:
            link = self._links.get(at)
            match effect:
                case Connect():
                    self.figures.asked_s.append(effect.asked_s)
                    self._wishes[at] = effect
                    self._asking.append((at, effect))
                case Publish():
                    # without room it is as if the network had lost it: it comes again
                    if link is not None and link.room and at not in self._muted:
                        packets.append(_packet(link, effect))
                case Break():
                    self._wishes.pop(at, None)
                    self._asking = deque(entry for entry in self._asking if entry[0] != at)
                    if link is not None:
                        link.close("power cut")
                case Leave():
                    if link is not None:
                        link.send(b"".join(packets))
                        packets.clear()
                        del self._links[at]
                        link.disconnect()
        link = self._links.get(at)
        if packets and link is not None:
            link.send(b"".join(packets))

    # Faults -----------------------------------------------------------------------------------------------------

    def expect(self, strikes: Iterable[Strike], *, begin_s: float, storm: Callable[[], None]) -> None:
        """Carry *strikes* out at their times; *storm* is called for the storm."""
        for strike in strikes:
            self._call_at(begin_s + strike.at_s, lambda strike=strike: self._strike(strike, storm))  # type: ignore[misc]

    def _call_at(self, at_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._later, (at_s, self._rng.getrandbits(64), what))

    def _strike(self, strike: Strike, storm: Callable[[], None]) -> None:
        self.figures.struck[strike.fault] += 1
        now, at = moment(), strike.device
        match strike.fault:
            case Fault.RECONNECT_STORM:
                self.figures.storm_s, self.figures.all_back_s = now.s, None
                storm()
            case Fault.POWER_CUT | Fault.CLOCK_1970:
                lost = strike.fault is Fault.CLOCK_1970
                pause_s = self._rng.uniform(*PAUSE_S)
                self._carry_out(at, self.devices[at].power_cut(now, pause_s=pause_s, clock_lost=lost))
            case Fault.NAT_DROP:
                link = self._links.get(at)
                if link is not None:
                    self._muted.add(at)
                    silent_s = 1.5 * self._endpoint.keep_alive_s
                    self._call_at(now.s + silent_s, lambda: link.close("nothing heard"))
            case Fault.DISK_FULL:
                device = self.devices[at]
                self._carry_out(at, device.disk(now, full=True))
                full_s = FULL_CADENCES * device.cadence_s
                self._call_at(now.s + full_s, lambda: self._carry_out(at, device.disk(moment(), full=False)))
            case Fault.DUPLICATE_CLIENT_ID:
                self._task(self._copy(at))
        if at >= 0:
            self._look_later(at)

    async def _copy(self, at: int) -> None:
        """Somebody with the same certificate, who says nothing."""
        try:
            link = await self._link(at, None)
            async with asyncio.timeout(COPY_S_MAX):
                await asyncio.shield(link.gone)
        except TimeoutError:
            link.disconnect()
        except LinkError as error:
            self.figures.failed[str(error).rpartition(": ")[2]] += 1

    def break_all(self) -> None:
        """Every session at once."""
        for link in tuple(self._links.values()):
            link.close("storm")

    # The end ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Everybody stops to measure, and goes on to send."""
        self._later.clear()
        for at in sorted(self._muted):
            self._links[at].close("nothing heard")
        for at, device in enumerate(self.devices):
            self._carry_out(at, device.stop(moment()))
            self._look_later(at)

    @property
    def drained(self) -> bool:
        """Every number is receipted."""
        return all(device.drained for device in self.devices)

    async def leave(self) -> None:
        """Everybody says goodbye; what is not answered by then is broken off."""
        going = list(self._links.values())
        for at, device in enumerate(self.devices):
            self._carry_out(at, device.leave(moment()))
        if going:
            await asyncio.wait([link.gone for link in going], timeout=DISCONNECT_S_MAX)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What it came to --------------------------------------------------------------------------------------------

    def peaks(self, since_s: float) -> tuple[int, int, int]:
        """The most within one second since *since_s*: asked for, begun, up."""
        figures = self.figures
        asked, begun, up = (
            peak_a_second(at_s for at_s in times if at_s >= since_s)
            for times in (figures.asked_s, figures.begun_s, figures.up_s)
        )
        return asked, begun, up


def _packet(link: Link, message: Publish) -> bytes:
    return mqtt5.PublishPacket(
        message.topic,
        message.body,
        qos=QOS,
        packet_id=link.take_id(),
        retain=message.retain,
        content_type=message.content_type,
        user_properties=list(message.properties),
    ).write()
