"""The broker's cores without sockets: connections on lists of bytes, and a clock that a test moves."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import TypeVar

import mqtt5

from broker_config import policy
from broker_config.embedded.connection import Connection
from broker_config.embedded.misbehaviour import Misbehaviour
from broker_config.embedded.router import Router
from broker_config.ids import DeviceId, SiteId, server_client_id
from broker_config.policy import Identity

SITE = SiteId("5e" * 32)
CAR = DeviceId("car-1")
BUS = DeviceId("bus-1")
P = TypeVar("P")


class Alarm:
    def __init__(self, do: Callable[[], None]) -> None:
        self.do: Callable[[], None] | None = do

    def cancel(self) -> None:
        self.do = None


class Clock:
    """A :class:`broker_config.embedded.router.Timer` that goes when it is told."""

    def __init__(self) -> None:
        self._now_s = 1_000.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = count()

    def time(self) -> float:
        return self._now_s

    def call_at(self, when: float, callback: Callable[[], None], /) -> Alarm:
        alarm = Alarm(callback)
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        return alarm

    def go(self, seconds: float) -> None:
        until_s = self._now_s + seconds
        while self._alarms and self._alarms[0][0] <= until_s:
            self._now_s, _, alarm = heapq.heappop(self._alarms)
            if alarm.do is not None:
                alarm.do()
        self._now_s = until_s


class Client:
    """What one client has been sent, read as packets; it says only what it is told to say."""

    def __init__(self, router: Router, identity: Identity) -> None:
        self.closed = False
        self._data = b""
        self.connection = Connection(router, self, identity)
        self._ids = count(1)

    # the broker's side

    def write(self, data: bytes) -> None:
        assert not self.closed
        self._data += data

    def close(self) -> None:
        self.closed = True

    # the test's side

    def send(self, data: bytes) -> None:
        self.connection.receive(data)

    def connect(
        self,
        client_id: str = "any",
        *,
        clean_start: bool = True,
        keep_alive_s: int = 30,
        session_expiry_s: int = 0,
        receive_max: int = 65_535,
        max_packet_size: int | None = None,
        will: mqtt5.Will | None = None,
    ) -> mqtt5.ConnAckPacket:
        packet = mqtt5.ConnectPacket(
            client_id,
            clean_start=clean_start,
            keep_alive=keep_alive_s,
            session_expiry_interval=session_expiry_s,
            receive_max=receive_max,
            max_packet_size=max_packet_size,
            will=will,
        )
        self.send(packet.write())
        return self.take(mqtt5.ConnAckPacket)

    def subscribe(self, *filters: mqtt5.TopicFilter, subscription_id: int | None = None) -> list[int]:
        packet = mqtt5.SubscribePacket(next(self._ids), list(filters), subscription_id=subscription_id)
        self.send(packet.write())
        # what is retained comes behind the answer
        return [int(code) for code in self.take(mqtt5.SubAckPacket).reason_codes]

    def publish(self, packet: mqtt5.PublishPacket) -> None:
        self.send(packet.write())

    def say(self, topic: str, payload: bytes = b"x", *, qos: int = 1, retain: bool = False) -> int:
        """Publish; the reason code of the answer, 0 for QoS 0."""
        packet_id = next(self._ids) if qos else None
        self.publish(mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS(qos), retain=retain, packet_id=packet_id))
        return int(self.take(mqtt5.PubAckPacket).reason_code) if qos else 0

    def acknowledge(self, *messages: mqtt5.PublishPacket) -> None:
        for message in messages:
            assert message.packet_id is not None
            self.send(mqtt5.PubAckPacket(message.packet_id).write())

    def vanish(self) -> None:
        self.closed = True
        self.connection.lost()

    def packets(self) -> list[mqtt5.Packet]:
        """All that has come since the last look."""
        out = []
        view = memoryview(self._data)
        at = 0
        while at < len(view):
            packet, size = mqtt5.read(view[at:])
            out.append(packet)
            at += size
        self._data = b""
        return out

    def take(self, kind: type[P]) -> P:
        """The first packet, which is a *kind*; the others stay."""
        packet, size = mqtt5.read(memoryview(self._data))
        assert isinstance(packet, kind), packet
        self._data = self._data[size:]
        return packet

    def heard(self) -> list[mqtt5.PublishPacket]:
        """The messages that have come; nothing else has."""
        packets = self.packets()
        assert all(isinstance(packet, mqtt5.PublishPacket) for packet in packets), packets
        return [packet for packet in packets if isinstance(packet, mqtt5.PublishPacket)]

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.heard()]


class Station:
    """A router, and clients for it."""

    def __init__(self, misbehaviour: Misbehaviour | None = None) -> None:
        self.clock = Clock()
        self.router = Router(self.clock, misbehaviour)

    def device(self, name: DeviceId = CAR) -> Client:
        return Client(self.router, policy.device(name))

    def server(self) -> Client:
        return Client(self.router, policy.server(SITE))

    def listening_server(self, *filters: mqtt5.TopicFilter) -> Client:
        client = self.server()
        client.connect(server_client_id(SITE))
        client.subscribe(*(filters or (mqtt5.TopicFilter("#", max_qos=mqtt5.QoS.AT_LEAST_ONCE),)))
        return client
