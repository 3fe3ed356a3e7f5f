"""Twins at the broker: a connection of their own, a thread that keeps what devices report and looks up what they ask,
and one that has orders signed. The only impure part of this room.

What was reported is acknowledged, and answered, once it is committed; a group of messages is one transaction. What
the database does not take is tried again, and meanwhile the link is not read: the broker holds what comes, and
devices say again what has no answer.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import mqtt5
import structlog

from broker_config import topics, twin
from broker_config.ids import DeviceId
from broker_config.signing import LIFETIME_MS_MAX, Kind
from broker_config.text import shown
from broker_config.topics import BadTopicError, Down, Up, parse_up
from broker_config.twin import AskTwin, BadTwinError, Reported, Said, TwinState
from fleet_server.access.orders import CHANNELS
from fleet_server.access.signing import BatchSigner, Request, SignerError
from fleet_server.adapters.mqtt import Link, LinkSettings, keep_linked, subscriptions
from fleet_server.change.facts import TwinFacts
from fleet_server.change.orders import Due, Signed
from fleet_server.change.store import TwinStore
from fleet_server.change.twins import Versions, is_behind
from fleet_server.telemetry.store import StoreError
from fleet_server.threads import Threads, until

log = structlog.get_logger()

GROUP_MAX: Final = 500
"""Messages of one transaction."""
GROUP_WAIT_S: Final = 0.01
WAITING_MAX: Final = 4 * GROUP_MAX
"""Messages for the store; beyond that the link is not read."""
ORDERS_AT_ONCE: Final = 64
"""Orders that are signed before the first of them goes out."""
AGAIN_S: Final = 1.0
"""After a store or a signer that takes nothing."""
ROOM_WAIT_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class TwinSettings:
    """``shards``: first and last. ``lifetime_ms``: of an order; a device that asks later gets another."""

    shards: tuple[int, int] = (0, 255)
    lifetime_ms: int = LIFETIME_MS_MAX


class _Waiting(NamedTuple):
    device: DeviceId
    said: Said
    packet_id: int | None


class _Taken(NamedTuple):
    """What a group came to: how things stand with each device, and of which what is desired was desired anew."""

    versions: Mapping[str, Versions]
    strangers: frozenset[str]
    renewed: frozenset[str]


class TwinService:
    """``run`` it once; ``published`` and ``facts`` from any thread."""

    def __init__(
        self,
        settings: TwinSettings,
        link_settings: LinkSettings,
        twins: TwinStore,
        signer: BatchSigner,
        *,
        known: Callable[[str], bool],
        connected: Callable[[str], bool],
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        """*known*: whether the registry knows a device; *connected*: whether it listens, as far as is known."""
        self._settings = settings
        self._link_settings = link_settings
        self._twins = twins
        self._signer = signer
        self._known = known
        self._connected = connected
        self._now_ms = now_ms
        self._rng = rng
        self._threads = Threads("twins", "orders")
        self._waiting: list[_Waiting] = []
        self._work = asyncio.Event()
        self._due = Due()
        self._ordering = asyncio.Event()
        self._signed = Signed()
        self._counts: Counter[str] = Counter()
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until *stop* is set."""
        self._loop = asyncio.get_running_loop()
        works = {"link": self._keep_linked(), "twins": self._keep_taking(), "orders": self._keep_ordering()}
        try:
            await until(stop, works)
        finally:
            if self._link is not None:
                self._link.disconnect()
            self._threads.close()

    # the link

    async def _keep_linked(self) -> None:
        await keep_linked(
            self._link_settings,
            filters=subscriptions((Up.TWIN,), *self._settings.shards),
            will=None,
            on_packets=self._on_packets,
            up=self._linked,
            down=self._unlinked,
            rng=self._rng,
        )

    def _linked(self, link: Link) -> None:
        self._link = link
        log.info("keeps twins", host=self._link_settings.host, port=self._link_settings.port)

    def _unlinked(self) -> None:
        self._link = None
        # what was not acknowledged comes again with the session; packet ids mean nothing on another connection
        self._waiting = [each._replace(packet_id=None) for each in self._waiting]

    def _on_packets(self, link: Link, packets: Iterable[mqtt5.PublishPacket]) -> None:
        self._link = link
        strays: list[int] = []
        for packet in packets:
            try:
                topic = parse_up(packet.topic)
                said = twin.decode_said(bytes(packet.payload or b""))
            except (BadTopicError, BadTwinError) as error:
                self._counts["malformed"] += 1
                log.debug("not a twin's message", topic=shown(packet.topic), error=shown(error))
                strays += [packet.packet_id] if packet.packet_id is not None else []
                continue
            self._waiting.append(_Waiting(topic.device, said, packet.packet_id))
            self._work.set()
        if strays:
            link.send(link.acknowledge(strays))
        if len(self._waiting) > WAITING_MAX:
            link.pause()

    # what devices say

    async def _keep_taking(self) -> None:
        while True:
            await self._work.wait()
            if len(self._waiting) < GROUP_MAX:
                await asyncio.sleep(GROUP_WAIT_S)
            group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
            if not self._waiting:
                self._work.clear()
            link = self._link
            try:
                taken = await self._threads.run("twins", self._take, group)
            except StoreError as error:
                level = log.debug if self._counts["store_failures"] else log.warning
                level("what devices report cannot be kept; it is tried again", error=shown(error))
                self._counts["store_failures"] += 1
                self._waiting = group + self._waiting
                self._work.set()
                await asyncio.sleep(AGAIN_S)
                continue
            if link is not None and link is self._link:
                link.send(link.acknowledge([each.packet_id for each in group if each.packet_id is not None]))
                if len(self._waiting) < WAITING_MAX // 2:
                    link.resume()
            self._answer(group, taken)

    def _take(self, group: Sequence[_Waiting]) -> _Taken:
        """Keep what is reported, and see how things stand. Raises StoreError: nothing was kept."""
        devices = dict.fromkeys(each.device for each in group)
        strangers = frozenset(device for device in devices if not self._known(device))
        now_ms = self._now_ms()
        reports = [
            (each.device, each.said)
            for each in group
            if isinstance(each.said, Reported) and each.device not in strangers
        ]
        versions = dict(self._twins.report(reports, now_ms=now_ms)) if reports else {}
        versions.update(
            self._twins.versions([each for each in devices if each not in strangers and each not in versions])
        )
        behind = [device for device, each in versions.items() if is_behind(each, now_ms)]
        renewed = self._twins.renew(behind, now_ms=now_ms) if behind else {}
        for device, version in renewed.items():
            log.warning("took up what this server does not know; desired anew", device=device, version=version)
            versions[device] = versions[device]._replace(desired=version)
        return _Taken(versions, strangers, frozenset(renewed))

    def _answer(self, group: Sequence[_Waiting], taken: _Taken) -> None:
        hints: dict[DeviceId, TwinState] = {}
        for each in group:
            if each.device in taken.strangers:
                self._counts["strangers"] += 1
                continue
            versions = taken.versions[each.device]
            hint = TwinState(1, versions.desired, versions.reported)
            match each.said:
                case Reported():
                    self._counts["reported"] += 1
                    hints[each.device] = hint
                    if each.device in taken.renewed:
                        self._order(each.device)
                case AskTwin(have=have):
                    self._counts["asked"] += 1
                    if have < versions.desired:
                        self._order(each.device)
                    else:
                        hints[each.device] = hint
        self._counts["hinted"] += self._say(
            [(topics.down(device, Down.TWIN), twin.encode(hint)) for device, hint in hints.items()]
        )

    def _say(self, said: Sequence[tuple[str, bytes]]) -> int:
        """What the broker has no room for is not said, for devices ask again; how many were."""
        heard = 0 if self._link is None else self._link.say(said)
        self._counts["untold"] += len(said) - heard
        return heard

    # orders

    def published(self, made: Mapping[str, int]) -> None:
        """What is desired of these devices is new; any thread. Those that are not connected ask once they are."""
        devices = [DeviceId(device) for device in made if self._connected(device)]
        loop = self._loop
        if devices and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._order_all, devices)

    def _order_all(self, devices: Sequence[DeviceId]) -> None:
        for device in devices:
            self._order(device)

    def _order(self, device: DeviceId) -> None:
        if not self._due.add(device):
            self._counts["untold"] += 1
        self._ordering.set()

    async def _keep_ordering(self) -> None:
        while True:
            await self._ordering.wait()
            link = self._link
            room = 0 if link is None else link.room
            devices = self._due.take(min(ORDERS_AT_ONCE, room))
            if not devices:
                if len(self._due):
                    await asyncio.sleep(ROOM_WAIT_S)
                else:
                    self._ordering.clear()
                continue
            try:
                orders = await self._threads.run("orders", self._orders, devices)
            except (SignerError, StoreError) as error:
                level = log.debug if self._counts["sign_failures"] else log.error
                level("orders of twins are not signed; it is tried again", error=shown(error))
                self._counts["sign_failures"] += 1
                self._due.back(devices)
                await asyncio.sleep(AGAIN_S)
                continue
            topic = CHANNELS[Kind.TWIN]
            self._counts["ordered"] += self._say(
                [(topics.down(device, topic), envelope) for device, envelope in orders]
            )

    def _orders(self, devices: Sequence[DeviceId]) -> list[tuple[DeviceId, bytes]]:
        """As they are signed; those signed before one fails are kept, and found the next time. Raises SignerError,
        StoreError.
        """
        found, lifetime_ms, now_ms = self._twins.twins(devices), self._settings.lifetime_ms, self._now_ms()
        aims = {device: aim for device in devices if (aim := found[device].aim) is not None}
        out = {device: self._signed.find(device, aim.version, now_ms=now_ms) for device, aim in aims.items()}
        new = [device for device, envelope in out.items() if envelope is None]
        requests = [Request(Kind.TWIN, device, lifetime_ms, twin.body(aims[device].desired)) for device in new]
        for device, envelope in zip(new, self._signer.sign_all(requests), strict=True):
            self._signed.keep(
                device, aims[device].version, envelope, signed_ms=self._now_ms(), lifetime_ms=lifetime_ms
            )
            out[device] = envelope
        return [(device, envelope) for device, envelope in out.items() if envelope is not None]

    def facts(self) -> TwinFacts:
        """See :class:`TwinFacts`."""
        return TwinFacts(self._link is not None, len(self._due), dict(self._counts))
