"""Gives releases over the broker: a link of its own, and a thread that waits for the disk. The only impure part.

Nothing is remembered but the newest question of each device that has not been answered: one window each. What is
dropped, beyond the bounds or because a link ends, is asked for again.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import mqtt5
import structlog

from broker_config import topics
from broker_config.ids import ContractError, DeviceId
from broker_config.limits import KIB
from broker_config.release_chunks import AskRelease, decode_ask
from broker_config.text import shown
from broker_config.topics import Down, Up, parse_up
from fleet_server.adapters.mqtt import Link, LinkSettings, keep_linked, subscriptions
from fleet_server.release_answers import answer
from fleet_server.releases.store import Releases
from fleet_server.threads import Threads, until

log = structlog.get_logger()

WAITING_MAX: Final = 4_096
"""Devices whose question waits; of the others it is dropped."""
BYTES_S_MAX: Final = 8 * KIB * KIB
"""Over the broker, for all devices together: receipts and commands go the same way."""
UNACKNOWLEDGED_MAX: Final = 16
"""Parts that the broker has not acknowledged: a mebibyte, well below what a link may hold unwritten."""
ROOM_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """Since the start. ``strays``: not a device's own topic, or no question of this contract; ``dropped``: beyond a
    bound, or not to be read now.
    """

    windows: int = 0
    answered_bytes: int = 0
    strays: int = 0
    dropped: int = 0


class ReleaseService:
    """``run`` it once; ``facts`` from any thread."""

    def __init__(
        self,
        shards: tuple[int, int],
        link_settings: LinkSettings,
        releases: Releases,
        *,
        bytes_s_max: int = BYTES_S_MAX,
        rng: random.Random,
    ) -> None:
        """*shards*: first and last."""
        self._shards = shards
        self._link_settings = link_settings
        self._releases = releases
        self._bytes_s_max = bytes_s_max
        self._rng = rng
        self._threads = Threads("releases")
        self._waiting: OrderedDict[DeviceId, AskRelease] = OrderedDict()
        self._asked = asyncio.Event()
        self._link: Link | None = None
        self.facts = ReleaseFacts()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until *stop* is set."""
        try:
            await until(stop, {"link": self._keep_linked(), "answers": self._keep_answering()})
        finally:
            if self._link is not None:
                self._link.disconnect()
            self._threads.close()

    async def _keep_linked(self) -> None:
        await keep_linked(
            self._link_settings,
            filters=subscriptions((Up.RELEASE,), *self._shards),
            will=None,
            on_packets=self._on_packets,
            up=self._linked,
            down=self._unlinked,
            rng=self._rng,
        )

    def _linked(self, link: Link) -> None:
        self._link = link
        log.info("gives releases", host=self._link_settings.host, port=self._link_settings.port)

    def _unlinked(self) -> None:
        self._link = None

    def _on_packets(self, link: Link, packets: Iterable[mqtt5.PublishPacket]) -> None:
        self._link = link
        ids = []
        for packet in packets:
            ids += [packet.packet_id] if packet.packet_id is not None else []
            self._take(packet.topic, bytes(packet.payload or b""))
        link.send(link.acknowledge(ids))
        self._asked.set()

    def _take(self, topic: str, payload: bytes) -> None:
        try:
            device, ask = parse_up(topic).device, decode_ask(payload)
        except ContractError:
            self.facts = replace(self.facts, strays=self.facts.strays + 1)
            return
        if device not in self._waiting and len(self._waiting) >= WAITING_MAX:
            self.facts = replace(self.facts, dropped=self.facts.dropped + 1)
            return
        self._waiting[device] = ask  # in the place of an older one of this device, which it gave up

    async def _keep_answering(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._waiting:
                device, ask = self._waiting.popitem(last=False)
                await self._answer(device, ask)

    async def _answer(self, device: DeviceId, ask: AskRelease) -> None:
        try:
            parts = await self._threads.run("releases", answer, self._releases, ask)
        except OSError as error:
            log.warning("a release cannot be read", path=shown(ask.path), error=shown(error))
            self.facts = replace(self.facts, dropped=self.facts.dropped + 1)
            return
        topic = topics.down(device, Down.CHUNK)
        while (link := self._link) is not None and link.outstanding > UNACKNOWLEDGED_MAX - len(parts):  # noqa: ASYNC110
            await asyncio.sleep(ROOM_LOOK_S)
        if link is None:
            self.facts = replace(self.facts, dropped=self.facts.dropped + 1)
            return
        link.say([(topic, part) for part in parts])
        size = sum(map(len, parts))
        self.facts = replace(
            self.facts, windows=self.facts.windows + 1, answered_bytes=self.facts.answered_bytes + size
        )
        await asyncio.sleep(size / self._bytes_s_max)
