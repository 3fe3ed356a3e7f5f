"""One connection to the broker, over aiomqtt: MQTT 5, mutual TLS, QoS 1, will, user properties.

A connection is made, used and thrown away; nothing rests on it. Publishing is pipelined: the window bounds how much.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from broker_config import limits
from broker_config.text import shown
from firmware_bridge.left_out import left_out

# a name of a host goes through this codec, which wants tables of Unicode, a quarter of a megabyte, for names that are
# not ASCII: those are written in their xn-- form
with left_out("stringprep", "unicodedata"):
    import encodings.idna  # noqa: F401

# with http and email behind it a megabyte, to find proxies for web sockets, which the agent does not speak; an eighth
# of one, to know Windows
with left_out("urllib.request", "platform"):
    import aiomqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME. Source: openssl/x509_vfy.h."""
DATE_CODES: Final = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED."""
CONNECT_S: Final = 10.0
INCOMING_MAX: Final = 500
"""Messages from the broker that wait to be looked at; what is dropped beyond it is said again by the server."""
OUTGOING_MAX: Final = 1_200
"""Publishes begun: more than any window, for births and questions beside it."""
UNACKNOWLEDGED_MAX: Final = 20
"""Of these on the wire without a PUBACK. paho does not heed the broker's receive maximum; this is the lowest one that
brokers give by default."""


class LinkError(Exception):
    """No connection, or no longer."""


class DatesRefusedError(LinkError):
    """The broker's certificate is right but for its validity dates by this board's clock."""


class Incoming(NamedTuple):
    """A message from the broker."""

    topic: str
    payload: bytes
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to the broker; ``content_type`` empty: none."""

    topic: str
    payload: bytes
    content_type: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is, and with what it is spoken to."""

    host: str
    port: int
    client_id: str
    keep_alive_s: int
    ca_file: Path
    cert_file: Path
    key_file: Path


def _tls(endpoint: Endpoint, *, skip_dates: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names; loads no system certificates
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(endpoint.ca_file)
    context.load_cert_chain(endpoint.cert_file, endpoint.key_file)
    if skip_dates:
        context.verify_flags |= NO_CHECK_TIME
    return context


def _publish_properties(message: Outgoing) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.content_type:
        properties.ContentType = message.content_type
    if message.properties:
        properties.UserProperty = list(message.properties)
    return properties


def _will(message: Outgoing) -> aiomqtt.Will:
    properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
    properties.WillDelayInterval = limits.WILL_DELAY_S
    properties.ContentType = message.content_type
    return aiomqtt.Will(message.topic, message.payload, qos=1, retain=message.retain, properties=properties)


class Link:
    """An open connection."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._client.pending_calls_threshold = OUTGOING_MAX  # pipelining is meant; no warning for each
        self._sending: set[asyncio.Task[None]] = set()
        self.unacknowledged_bytes = 0
        """Of payloads that were begun and that the broker has not acknowledged: what is here and in the kernel."""

    def send(self, message: Outgoing, then: Callable[[], None] | None = None) -> None:
        """Start to publish, at QoS 1, in the order of the calls. A failure shows as the end of :meth:`incoming`, or
        as a receipt that does not come. *then* is called when the broker has it, or never will.
        """
        if len(self._sending) < OUTGOING_MAX:
            task = asyncio.get_running_loop().create_task(self._publish(message))
            self._sending.add(task)
            self.unacknowledged_bytes += len(message.payload)

            def ended(task: asyncio.Task[None]) -> None:
                self._sending.discard(task)
                self.unacknowledged_bytes -= len(message.payload)
                if then is not None:
                    then()

            task.add_done_callback(ended)

    async def _publish(self, message: Outgoing) -> None:
        with contextlib.suppress(aiomqtt.MqttError, ValueError):
            await self._client.publish(
                message.topic,
                message.payload,
                qos=1,
                retain=message.retain,
                properties=_publish_properties(message),
            )

    async def sent(self, deadline_s: float) -> None:
        """Wait until the broker has acknowledged all that was sent, at most *deadline_s*."""
        if self._sending:
            await asyncio.wait(tuple(self._sending), timeout=deadline_s)

    async def incoming(self) -> AsyncIterator[Incoming]:
        """What the broker says. Raises LinkError when the connection ends."""
        try:
            async for message in self._client.messages:
                payload = message.payload if isinstance(message.payload, bytes) else b""
                told = getattr(message.properties, "UserProperty", None) or ()
                yield Incoming(str(message.topic), payload, dict(told))
        except aiomqtt.MqttError as error:
            raise LinkError(shown(error)) from error

    def close(self) -> None:
        """Give up what is still being published."""
        for task in tuple(self._sending):
            task.cancel()


@contextlib.asynccontextmanager
async def connected(
    endpoint: Endpoint, *, will: Outgoing, subscriptions: tuple[str, ...], skip_dates: bool
) -> AsyncIterator[Link]:
    """Connect with a clean start, subscribe, and disconnect orderly in the end.

    Raises:
        DatesRefusedError, LinkError: there is no connection, or it broke.
    """
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = limits.SESSION_EXPIRY_S
    properties.MaximumPacketSize = limits.PACKET_BYTES_MAX
    try:
        client = aiomqtt.Client(
            endpoint.host,
            endpoint.port,
            identifier=endpoint.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=_will(will),
            clean_start=True,
            keepalive=endpoint.keep_alive_s,
            timeout=CONNECT_S,
            max_queued_incoming_messages=INCOMING_MAX,
            max_inflight_messages=UNACKNOWLEDGED_MAX,
            properties=properties,
            tls_context=_tls(endpoint, skip_dates=skip_dates),
        )
    except OSError as error:  # ssl.SSLError is one: a key or certificate that does not load
        raise LinkError(f"TLS: {shown(error)}") from error
    try:
        await client.__aenter__()
    except aiomqtt.MqttError as error:
        _abandon(client)
        cause = error.__context__  # aiomqtt raises "from None"; what the handshake said is only there
        if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in DATE_CODES:
            raise DatesRefusedError(shown(cause.verify_message)) from error
        raise LinkError(shown(error)) from error
    except UnicodeError as error:  # a name that no host can have
        _abandon(client)
        raise LinkError(shown(error)) from error
    except BaseException:
        _abandon(client)
        raise
    link = Link(client)
    try:
        await client.subscribe([(pattern, 1) for pattern in subscriptions])
        yield link
    except aiomqtt.MqttError as error:
        raise LinkError(shown(error)) from error
    finally:
        link.close()
        with contextlib.suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)


def _abandon(client: aiomqtt.Client) -> None:
    """Close a connection that never came up: left open, it could come up late and take this device's place."""
    client._client.disconnect()  # noqa: SLF001  # aiomqtt has no call for it
