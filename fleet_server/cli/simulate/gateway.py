"""Sends what identities say at a steady rate over the bench-only gateway's connection, and hears their receipts."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import mqtt5

from fleet_server.adapters.mqtt import QOS, Link, LinkError, LinkSettings, connect
from fleet_server.cli.simulate.device import Moment, Publish
from fleet_server.cli.simulate.identities import Identities
from fleet_server.cli.simulate.rig import GATEWAY_CLIENT, RECEIPTS
from fleet_server.cli.simulate.sessions import moment

TICK_S: Final = 0.01
CATCH_UP_S: Final = 1.0
"""What a stall of ours held back is sent late up to this much, and not at all beyond it."""
KEEP_ALIVE_S: Final = 60
AGAIN_S: Final = 1.0
OVERDUE_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The servers' listener, on which the gateway proves itself."""

    host: str
    port: int
    security: ssl.SSLContext


class Gateway:
    """One connection; made again as often as it breaks."""

    def __init__(self, identities: Identities, endpoint: Endpoint) -> None:
        self.identities = identities
        self.connections = 0
        self._endpoint = endpoint
        self._link: Link | None = None

    async def run(self, *, rate: float, until: Callable[[], bool]) -> None:
        """Send *rate* messages a second until *until*; with 0 only what has no receipt goes out again."""
        begin = moment()
        said, overdue_s = 0, begin.s
        while not until():
            link = await self._connected()
            now = moment()
            if link is not None:
                if now.s >= overdue_s:
                    overdue_s = now.s + OVERDUE_EVERY_S
                    _send(link, self.identities.overdue(now))
                wanted = min(int((now.s - begin.s) * rate) - said, int(rate * CATCH_UP_S))
                said = int((now.s - begin.s) * rate)
                _send(link, list(self.identities.say(min(wanted, link.room), now)))
            await asyncio.sleep(TICK_S)

    async def _connected(self) -> Link | None:
        if self._link is not None and not self._link.gone.done():
            return self._link
        again = self._link is not None
        try:
            self._link = await connect(
                LinkSettings(
                    self._endpoint.host, self._endpoint.port, GATEWAY_CLIENT, KEEP_ALIVE_S, self._endpoint.security
                ),
                filters=[mqtt5.TopicFilter(RECEIPTS, max_qos=QOS)],
                will=None,
                clean_start=False,
                on_packets=self._heard,
            )
        except LinkError:
            if not self.connections:
                raise
            await asyncio.sleep(AGAIN_S)
            return None
        self.connections += 1
        if again:
            _send(self._link, self.identities.overdue(moment(), all_of_them=True))
        return self._link

    def _heard(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))
        now: Moment = moment()
        for packet in packets:
            self.identities.told(packet.topic, packet.payload, dict(packet.user_properties), now)

    async def leave(self) -> None:
        """Say goodbye."""
        if self._link is not None and not self._link.gone.done():
            self._link.disconnect()
            await self._link.gone


def _send(link: Link, messages: list[Publish]) -> None:
    """As many as the broker takes at once; the others come again when they are overdue."""
    packets = [
        mqtt5.PublishPacket(
            message.topic,
            message.body,
            qos=QOS,
            packet_id=link.take_id(),
            content_type=message.content_type,
            user_properties=list(message.properties),
        ).write()
        for message in messages[: link.room]
    ]
    if packets:
        link.send(b"".join(packets))
