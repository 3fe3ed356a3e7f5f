"""What the codec overlooks in a packet, and which reason code MQTT 5 names for what is wrong with one.

``mqtt5`` raises IndexError for a packet that is not whole yet, ValueError for most of what is wrong, and panics
outside Exception on bad UTF-8. The texts of its errors are those of the pinned version; the vectors hold them.
"""

from typing import Final

import mqtt5
from mqtt5 import DisconnectReasonCode

from broker_config import limits

CONNECT_BYTE: Final = 0x10
"""With which every connection begins."""
LENGTH_BYTES_MAX: Final = 4
OTHER_PROTOCOL: Final = ("Invalid protocol version", "Invalid protocol name")
_ALIAS: Final = "Topic alias must be != 0"
_PROTOCOL_ERRORS: Final = ("must be != 0", "Duplicate value", "Topic alias must be set")
_WILL_BITS: Final = 0x38
_WILL_FLAG: Final = 0x04


class WireError(Exception):
    """What came is no packet that a client may send now; *reason* is what MQTT 5 calls it."""

    def __init__(self, reason: DisconnectReasonCode, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def reason_of(error: BaseException) -> DisconnectReasonCode:
    """The reason code for what the codec raised."""
    text = str(error)
    if text == _ALIAS:
        return DisconnectReasonCode.TOPIC_ALIAS_INVALID
    if isinstance(error, ValueError) and any(known in text for known in _PROTOCOL_ERRORS):
        return DisconnectReasonCode.PROTOCOL_ERROR
    return DisconnectReasonCode.MALFORMED_PACKET


def check_size(start: memoryview) -> None:
    """Refuse a packet that begins with *start* before the rest of it has come.

    Raises:
        WireError: larger than the bound that the broker tells every client.
    """
    length = 0
    for at, byte in enumerate(start[1 : 1 + LENGTH_BYTES_MAX]):
        length |= (byte & 0x7F) << (7 * at)
        if not byte & 0x80:
            break
    else:
        return  # not whole, or no length at all: the codec's to say
    if length + 2 + at > limits.PACKET_BYTES_MAX:
        raise WireError(
            DisconnectReasonCode.PACKET_TOO_LARGE,
            f"expected packets up to {limits.PACKET_BYTES_MAX} bytes, got {length + 2 + at}",
        )


def check_connect(raw: memoryview) -> None:
    """The flags of a CONNECT that was read. Raises WireError."""
    flags = raw[_after_length(raw, 1) + 7]  # after the protocol's name and version
    if flags & 1:
        raise _malformed("CONNECT: the reserved flag is set")
    if not flags & _WILL_FLAG and flags & _WILL_BITS:
        raise _malformed("CONNECT: a will's QoS or retain flag without a will")


def check_publish(packet: mqtt5.PublishPacket) -> None:
    """Raises WireError: what no client may publish."""
    topic = packet.topic
    if packet.packet_id == 0:
        raise _protocol("PUBLISH: packet id 0")
    if packet.topic_alias is not None:
        raise WireError(DisconnectReasonCode.TOPIC_ALIAS_INVALID, "PUBLISH: expected no topic alias")
    if packet.qos == mqtt5.QoS.EXACTLY_ONCE:
        raise WireError(DisconnectReasonCode.QOS_NOT_SUPPORTED, "PUBLISH: expected QoS 0 or 1, got 2")
    if packet.duplicate and packet.packet_id is None:
        raise _malformed("PUBLISH: a duplicate of QoS 0")
    if packet.subscription_ids:
        raise _protocol("PUBLISH: a subscription id from a client")
    _check_said(topic, packet)


def check_will(will: mqtt5.Will) -> None:
    """Raises WireError: what no client may leave behind."""
    if will.qos == mqtt5.QoS.EXACTLY_ONCE:
        raise WireError(DisconnectReasonCode.QOS_NOT_SUPPORTED, "will: expected QoS 0 or 1, got 2")
    if not will.topic:
        raise WireError(DisconnectReasonCode.TOPIC_NAME_INVALID, "will: no topic")
    _check_said(will.topic, will)


def _check_said(topic: str, packet: mqtt5.PublishPacket | mqtt5.Will) -> None:
    if "+" in topic or "#" in topic:
        raise WireError(DisconnectReasonCode.TOPIC_NAME_INVALID, "topic: a wildcard")
    if packet.payload_format_indicator > 1:
        raise _protocol(f"payload format: expected 0 or 1, got {packet.payload_format_indicator}")
    response = packet.response_topic
    if response is not None and (not response or "+" in response or "#" in response):
        raise _protocol("response topic: empty, or a wildcard")
    texts = [topic, packet.content_type or "", response or ""]
    for pair in packet.user_properties:
        texts.extend(pair)
    if any("\0" in text for text in texts):
        raise _malformed("a text with NUL in it")


def check_subscribe(packet: mqtt5.SubscribePacket, raw: memoryview) -> None:
    """A SUBSCRIBE that was read. Raises WireError."""
    if packet.packet_id == 0:
        raise _protocol("SUBSCRIBE: packet id 0")
    if not packet.topic_filters:
        raise _protocol("SUBSCRIBE: no filter")
    for wanted in packet.topic_filters:
        _check_filter(wanted.pattern)
    at = _after_length(raw, 1) + 2
    properties_bytes, at = _length(raw, at)
    at += properties_bytes
    while at < len(raw):
        at += 2 + int.from_bytes(raw[at : at + 2], "big")
        if raw[at] & 0xC0:
            raise _malformed("SUBSCRIBE: reserved bits of the options")
        at += 1


def check_unsubscribe(packet: mqtt5.UnsubscribePacket) -> None:
    """Raises WireError."""
    if packet.packet_id == 0:
        raise _protocol("UNSUBSCRIBE: packet id 0")
    if not packet.patterns:
        raise _protocol("UNSUBSCRIBE: no filter")
    for pattern in packet.patterns:
        _check_filter(pattern)


def _check_filter(pattern: str) -> None:
    """Source: MQTT 5.0, sections 4.7.1 and 4.7.3."""
    levels = pattern.split("/")
    if not pattern or "\0" in pattern or "#" in levels[:-1]:
        raise _malformed("filter: empty, with NUL, or # before its end")
    if any(len(level) > 1 and ("+" in level or "#" in level) for level in levels):
        raise _malformed("filter: a wildcard that is not a whole level")


def _after_length(raw: memoryview, at: int) -> int:
    return _length(raw, at)[1]


def _length(raw: memoryview, at: int) -> tuple[int, int]:
    """A variable byte integer that the codec has read already, and where it ends."""
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if not byte & 0x80:
            return value, at


def _malformed(text: str) -> WireError:
    return WireError(DisconnectReasonCode.MALFORMED_PACKET, text)


def _protocol(text: str) -> WireError:
    return WireError(DisconnectReasonCode.PROTOCOL_ERROR, text)
