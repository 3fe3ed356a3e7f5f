"""A client that can be rude: MQTT 5 over a blocking TLS socket, packet by packet, with no kindness of a library."""

import contextlib
import socket
import ssl
import time
from collections import deque
from types import TracebackType
from typing import Final, Self, TypeVar

import mqtt5

from tests.servers import HOST, Credentials

WAIT_S_MAX: Final = 5.0
P = TypeVar("P")


class GoneError(Exception):
    """The broker refused the connection or ended it; *reason* is that of its last packet, if it said one."""

    def __init__(self, reason: object = None) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Client:
    """One connection. Everything waits at most WAIT_S_MAX."""

    def __init__(self, port: int, credentials: Credentials | None, *, ca: Credentials | None = None) -> None:
        trusted = credentials or ca
        assert trusted is not None
        context = ssl.create_default_context(cafile=str(trusted.ca))
        if credentials is not None:
            context.load_cert_chain(credentials.certificate, credentials.key)
        self._buffer = b""
        self._inbox: deque[mqtt5.PublishPacket] = deque()
        self._packet_id = 0
        plain = socket.create_connection((HOST, port), timeout=WAIT_S_MAX)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else every answer waits 40 ms for the next
        try:
            self._socket = context.wrap_socket(plain, server_hostname=HOST)
        except (OSError, ssl.SSLError) as error:
            plain.close()
            raise GoneError(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()

    def connect(
        self,
        client_id: str,
        *,
        clean_start: bool = True,
        will: mqtt5.Will | None = None,
        keep_alive_s: int = 30,
        session_expiry_s: int = 0,
        username: str | None = None,
    ) -> mqtt5.ConnAckPacket:
        """Raises GoneError: refused, by TLS (1.3 tells a client only now) or by the broker."""
        self.send(
            mqtt5.ConnectPacket(
                client_id,
                username=username,
                clean_start=clean_start,
                will=will,
                keep_alive=keep_alive_s,
                session_expiry_interval=session_expiry_s,
            ).write()
        )
        answer = self._next(mqtt5.ConnAckPacket)
        if answer.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            raise GoneError(answer.reason_code)
        return answer

    def subscribe(self, *filters: str) -> list[mqtt5.SubAckReasonCode]:
        """Ask for *filters*; what is granted says nothing of what will be delivered."""
        wanted = [mqtt5.TopicFilter(pattern, max_qos=mqtt5.QoS.AT_LEAST_ONCE) for pattern in filters]
        self.send(mqtt5.SubscribePacket(self._new_id(), wanted).write())
        return self._next(mqtt5.SubAckPacket).reason_codes

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> mqtt5.PubAckReasonCode:
        """With QoS 1; returns once the broker has dealt with it, whatever it did."""
        packet = mqtt5.PublishPacket(
            topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain, packet_id=self._new_id()
        )
        self.send(packet.write())
        return self._next(mqtt5.PubAckPacket).reason_code

    def receive(self, *, ack: bool = True) -> mqtt5.PublishPacket:
        """The next message."""
        message = self._inbox.popleft() if self._inbox else self._next(mqtt5.PublishPacket)
        if ack and message.packet_id is not None:
            self.send(mqtt5.PubAckPacket(message.packet_id).write())
        return message

    def before(self, sentinel: bytes) -> list[mqtt5.PublishPacket]:
        """All that comes before the message whose payload is *sentinel*: so absence is proved without waiting."""
        out = []
        while (message := self.receive()).payload != sentinel:
            out.append(message)
        return out

    def pending(self) -> list[mqtt5.PublishPacket]:
        """What has come while something else was waited for."""
        return list(self._inbox)

    def ping(self) -> None:
        """Return when the broker has dealt with everything sent so far."""
        self.send(mqtt5.PingReqPacket().write())
        self._next(mqtt5.PingRespPacket)

    def send(self, data: bytes) -> None:
        """Any bytes at all. Raises GoneError: nobody takes them any more."""
        try:
            self._socket.sendall(data)
        except (OSError, ssl.SSLError) as error:
            raise GoneError(error) from error

    def gone(self) -> object:
        """Wait until the broker has ended this connection; the reason that it gave, or None."""
        try:
            while True:
                self._packet()
        except GoneError as error:
            return error.reason

    def wait_for_end(self) -> None:
        """Wait until the broker has ended this connection, whatever it says before. Raises TimeoutError."""
        with contextlib.suppress(GoneError):
            while True:
                self._read()

    def disconnect(self) -> None:
        """Leave in order: no will."""
        self.send(mqtt5.DisconnectPacket().write())
        self.gone()
        self.vanish()

    def vanish(self) -> None:
        """Close the socket and say nothing."""
        self._socket.close()

    def _new_id(self) -> int:
        self._packet_id += 1
        return self._packet_id

    def _next(self, kind: type[P]) -> P:
        while True:
            packet = self._packet()
            if isinstance(packet, kind):
                return packet
            if isinstance(packet, mqtt5.PublishPacket):
                self._inbox.append(packet)

    def _packet(self) -> mqtt5.Packet:
        """Raises GoneError; TimeoutError: the broker is silent."""
        deadline = time.monotonic() + WAIT_S_MAX
        while True:
            try:
                packet, size = mqtt5.read(memoryview(self._buffer))
            except IndexError:
                if time.monotonic() > deadline:
                    raise TimeoutError("no packet from the broker") from None
                self._buffer += self._read()
                continue
            self._buffer = self._buffer[size:]
            if isinstance(packet, mqtt5.DisconnectPacket):
                raise GoneError(packet.reason_code)
            return packet

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(65_536)
        except TimeoutError:
            raise
        except (OSError, ssl.SSLError) as error:
            raise GoneError from error
        if not data:
            raise GoneError
        return data
