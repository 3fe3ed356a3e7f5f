"""The fleet server's connection to the broker: the ``mqtt5`` codec in a plain asyncio protocol.

Every measured callback client costs five to twenty times as much a message (see the benchmarks); this one has
nothing between the socket and ingest. Packets come to ``on_packets`` in the order of the wire, a list for each
read; acknowledgements are the caller's, and go out only when it says so.
"""

import asyncio
import random
import ssl
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, cast

import mqtt5
import structlog

from broker_config import limits
from broker_config.ids import Shard
from broker_config.text import shown
from broker_config.topics import Up, up_filter

log = structlog.get_logger()

WRITE_BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024
PACKET_ID_MAX: Final = 65_535
BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_CAP: Final = 5.0
LINK_STABLE_S: Final = 1.0
CONNECT_WAIT_S: Final = 10.0
SUBSCRIBE_ID: Final = 1
READ_BYTES_MIN: Final = 4 * limits.KIB
READ_BYTES_MAX: Final = 4 * limits.PACKET_BYTES_MAX
"""What one read takes at most. A link whose reads fill their buffer gets a larger one: a simulated fleet has many."""
PACKETS_AT_ONCE: Final = 32
"""A read's packets are handed over in lists of at most so many."""
PUBACK_WORD: Final = 0x4002
REFUSED: Final = 0x80
"""Reason codes from here on are failures (MQTT 5.0, section 2.4); the codec's enumerations do not compare."""
QOS: Final = mqtt5.QoS.AT_LEAST_ONCE


class LinkError(Exception):
    """The broker cannot be reached, refused, or went away."""


class MalformedError(LinkError):
    """What the broker sent is no MQTT; its session would bring it again."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where the broker's server listener is and how to prove who we are; ``security`` None is for tests alone."""

    host: str
    port: int
    client_id: str
    keep_alive_s: int
    security: ssl.SSLContext | None
    session_expiry_s: int = limits.SERVER_SESSION_EXPIRY_S


def security(ca_file: Path, cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """Mutual TLS, 1.2 and up. Raises OSError, ssl.SSLError: a file is missing or not what it should be."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(cert_file), str(key_file))
    return context


INGESTED: Final = (Up.TELEMETRY, Up.EVENT, Up.TIME, Up.STATUS)
"""What ingest listens to."""


def subscriptions(channels: Iterable[Up], first: int, last: int) -> list[mqtt5.TopicFilter]:
    """*channels* of shards *first* to *last*; births are retained, nothing else is wanted so."""
    # None stands for all shards
    levels = [None] if (first, last) == (0, 255) else [Shard(f"{n:02x}") for n in range(first, last + 1)]
    return [
        mqtt5.TopicFilter(
            up_filter(channel, level),
            max_qos=QOS,
            retain_handling=mqtt5.RetainHandling.SEND_ALWAYS
            if channel is Up.STATUS
            else mqtt5.RetainHandling.SEND_NEVER,
        )
        for channel in channels
        for level in levels
    ]


class Link(asyncio.BufferedProtocol):
    """One connection, from CONNECT to its end; make a new one for the next.

    ``ready`` resolves once every subscription is granted; ``gone`` resolves with the reason when it is over.
    """

    def __init__(
        self,
        settings: LinkSettings,
        *,
        filters: list[mqtt5.TopicFilter],
        will: mqtt5.Will | None,
        clean_start: bool,
        on_packets: Callable[["Link", list[mqtt5.PublishPacket]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()
        self.malformed = False
        self._settings = settings
        self._filters = filters
        self._will = will
        self._clean_start = clean_start
        self._on_packets = on_packets
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(READ_BYTES_MIN))
        self._unread_bytes = 0
        self._paused = False
        self._outstanding: set[int] = set()
        self._next_id = 0
        self._receive_max = PACKET_ID_MAX
        self._heard_s = loop.time()
        self._ping: asyncio.TimerHandle | None = None

    # the protocol's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # not asserted: the transports of other event loops are no subclasses
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        transport.write(
            mqtt5.ConnectPacket(
                self._settings.client_id,
                clean_start=self._clean_start,
                keep_alive=self._settings.keep_alive_s,
                session_expiry_interval=self._settings.session_expiry_s,
                receive_max=PACKET_ID_MAX,
                max_packet_size=limits.PACKET_BYTES_MAX,
                will=self._will,
            ).write()
        )
        self._keep_alive()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - of what is there, as much as there is room for
        """Behind what is there of a packet: TLS writes to where the codec reads."""
        return self._buffer[self._unread_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes more are there."""
        if self.gone.done():
            return
        self._heard_s = asyncio.get_running_loop().time()
        end = self._unread_bytes + nbytes
        view = self._buffer[:end]
        at = 0
        published: list[mqtt5.PublishPacket] = []
        over: str | None = None
        read = mqtt5.read
        while at < end:
            try:
                packet, size = read(view[at:])
            except IndexError:
                break  # the rest of the packet has not come yet
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - the codec panics, outside Exception, on some bad UTF-8
                self.malformed = True
                over = f"malformed packet: {shown(error)}"
                break
            at += size
            if type(packet) is mqtt5.PublishPacket:
                published.append(packet)
                if len(published) == PACKETS_AT_ONCE:  # taken while still in the processor's cache
                    ready, published = published, []
                    self._on_packets(self, ready)
            elif type(packet) is mqtt5.PubAckPacket:
                self._outstanding.discard(packet.packet_id)
            else:
                over = self._control(packet)
                if over is not None:
                    break
        if published:
            self._on_packets(self, published)
        left = end - at
        if over is None and left > limits.PACKET_BYTES_MAX:
            self.malformed = True
            over = f"expected packets up to {limits.PACKET_BYTES_MAX} bytes, got the beginning of a longer one"
        if over is not None:
            self.close(over)
            return
        if end == len(self._buffer) < READ_BYTES_MAX:
            self._buffer = memoryview(bytearray(min(4 * end, READ_BYTES_MAX)))
        self._buffer[:left] = view[at:]
        self._unread_bytes = left

    def _control(self, packet: mqtt5.Packet) -> str | None:
        """Act on it; the reason if the connection is over with it."""
        if isinstance(packet, mqtt5.ConnAckPacket):
            if packet.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
                return f"the broker refused: {packet.reason_code!r}"
            self._receive_max = packet.receive_max
            self._write(mqtt5.SubscribePacket(SUBSCRIBE_ID, self._filters).write())
        elif isinstance(packet, mqtt5.SubAckPacket):
            refused = [int(code) for code in packet.reason_codes if int(code) >= REFUSED]
            if refused:
                return f"the broker refused {len(refused)} subscriptions: reason {refused[0]:#x}"
            if not self.ready.done():
                self.ready.set_result(None)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            return f"the broker closed: {packet.reason_code!r}"
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._over(shown(exc) if exc else "closed by the broker")

    def _over(self, reason: str) -> None:
        if self._ping is not None:
            self._ping.cancel()
        if not self.gone.done():
            self.gone.set_result(reason)
        if not self.ready.done():
            self.ready.set_exception((MalformedError if self.malformed else LinkError)(reason))
            self.ready.exception()  # whoever waits sees it; nobody need

    def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        silent_s = loop.time() - self._heard_s
        # while paused we do not read, so silence proves nothing
        if silent_s > 1.5 * self._settings.keep_alive_s and not self._paused:
            self.close(f"nothing heard for {silent_s:.0f} s")
            return
        if self.ready.done():
            self._write(mqtt5.PingReqPacket().write())
        self._ping = loop.call_later(self._settings.keep_alive_s / 2, self._keep_alive)

    # the caller's side

    @property
    def outstanding(self) -> int:
        """Messages published and not acknowledged yet."""
        return len(self._outstanding)

    @property
    def room(self) -> int:
        """How many messages may be published now without exceeding what the broker takes at once."""
        if self.gone.done():
            return 0
        return max(0, self._receive_max - len(self._outstanding))

    def acknowledge(self, packet_ids: list[int]) -> bytes:
        """The PUBACKs of these packets, to be sent with :meth:`send`.

        Each is 40 02 and the packet id: a success without properties (MQTT 5.0, section 3.4.2.1), written for all
        at once because the codec takes longer over one than ingest may over a message.
        """
        words = array("H", [PUBACK_WORD]) * (2 * len(packet_ids))
        words[1::2] = array("H", packet_ids)
        if sys.byteorder == "little":
            words.byteswap()
        return words.tobytes()

    def take_id(self) -> int:
        """A packet id that is free, and outstanding until the broker acknowledges it."""
        packet_id = self._next_id
        for _ in range(PACKET_ID_MAX):
            packet_id = packet_id % PACKET_ID_MAX + 1
            if packet_id not in self._outstanding:
                break
        self._next_id = packet_id
        self._outstanding.add(packet_id)
        return packet_id

    def publish(
        self, topic: str, payload: bytes, properties: list[tuple[str, str]], *, retain: bool = False
    ) -> bytes:
        """A QoS 1 PUBLISH, to be sent with :meth:`send`. Mind :attr:`room`."""
        packet_id = self.take_id()
        return mqtt5.PublishPacket(
            topic, payload, qos=QOS, packet_id=packet_id, retain=retain, user_properties=properties
        ).write()

    def say(self, said: Sequence[tuple[str, bytes]]) -> int:
        """Publish topics and payloads in one go, as many as there is :attr:`room` for; how many these are."""
        heard = said[: self.room]
        if heard:
            self._write(b"".join(self.publish(topic, payload, []) for topic, payload in heard))
        return len(heard)

    def send(self, packets: bytes) -> None:
        """Write packets in one go; a no-op once the connection is over."""
        self._write(packets)

    def pause(self) -> None:
        """Stop reading: the broker holds what comes, within its own bounds."""
        if not self._paused and self._transport is not None and not self.gone.done():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self._transport is not None and not self.gone.done():
            self._paused = False
            self._heard_s = asyncio.get_running_loop().time()
            self._transport.resume_reading()

    def disconnect(self) -> None:
        """Say goodbye and close once that is written."""
        if self._transport is not None and not self.gone.done():
            self._write(mqtt5.DisconnectPacket().write())
            self._transport.close()

    def close(self, reason: str) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()
        self._over(reason)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self.gone.done():
            self._transport.write(data)


async def connect(
    settings: LinkSettings,
    *,
    filters: list[mqtt5.TopicFilter],
    will: mqtt5.Will | None,
    clean_start: bool,
    on_packets: Callable[[Link, list[mqtt5.PublishPacket]], None],
) -> Link:
    """Connect and subscribe.

    Raises:
        MalformedError: it sent what is no MQTT.
        LinkError: the broker cannot be reached, refuses us, or does not answer in time; says which.
    """
    link = Link(settings, filters=filters, will=will, clean_start=clean_start, on_packets=on_packets)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_WAIT_S):
            await loop.create_connection(lambda: link, settings.host, settings.port, ssl=settings.security)
            await link.ready
    except TimeoutError as error:
        link.close("no answer")
        raise LinkError(f"{settings.host}:{settings.port}: no answer in {CONNECT_WAIT_S:.0f} s") from error
    except (OSError, ssl.SSLError) as error:
        link.close(shown(error))
        raise LinkError(f"{settings.host}:{settings.port}: {shown(error)}") from error
    except BaseException:
        link.close("cancelled")
        raise
    return link


async def keep_linked(
    settings: LinkSettings,
    *,
    filters: list[mqtt5.TopicFilter],
    will: mqtt5.Will | None,
    on_packets: Callable[[Link, list[mqtt5.PublishPacket]], None],
    up: Callable[[Link], None],
    down: Callable[[], None],
    rng: random.Random,
) -> NoReturn:
    """Connect, and again whatever ended it, until cancelled; back-off with full jitter, over once a link has held.

    *up*: there is a link. *down*: it is gone, or never was ready: packets may have come on it even so, because a
    session's queue comes before the grant.
    """
    loop = asyncio.get_running_loop()
    backoff_s, malformed = BACKOFF_S_MIN, False
    while True:
        try:
            link = await connect(settings, filters=filters, will=will, clean_start=malformed, on_packets=on_packets)
        except LinkError as error:
            # a session that holds what the codec cannot read would bring it again for ever
            malformed = malformed or isinstance(error, MalformedError)
            log.warning("no link to the broker", client=settings.client_id, error=shown(error))
        else:
            linked_s = loop.time()
            up(link)
            log.info("linked to the broker", client=settings.client_id, host=settings.host, port=settings.port)
            reason = await asyncio.shield(link.gone)  # who stops this task still has to say goodbye on the link
            malformed = link.malformed
            log.warning("link to the broker lost", client=settings.client_id, reason=shown(reason))
            if loop.time() - linked_s >= LINK_STABLE_S:
                backoff_s = BACKOFF_S_MIN
        down()
        await asyncio.sleep(rng.uniform(0, backoff_s))
        backoff_s = min(BACKOFF_S_CAP, 2 * backoff_s)
