"""A message as the broker holds it: what was published, until when it is worth delivering, and who said it."""

import math
from dataclasses import dataclass, field
from typing import Final

import mqtt5

from broker_config.policy import Role

PROPERTY_BYTES: Final = 8
"""What a user property takes besides its texts, about."""
QOS: Final = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE)


@dataclass(frozen=True, slots=True)
class Key:
    """A session's name. The role is part of it, so that no device can take over a server's session."""

    role: Role
    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """``expires_s``: the broker's clock; None is never."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    sender: Key | None = None
    expires_s: float | None = None
    payload_format_indicator: int = 0
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    size_bytes: int = field(default=0, compare=False)
    """About what it takes of memory, without the objects around it."""

    def expired(self, now_s: float) -> bool:
        """Whether nobody is to have it any more."""
        return self.expires_s is not None and self.expires_s <= now_s

    def packet(
        self,
        qos: int,
        packet_id: int | None,
        retain: bool,  # noqa: FBT001
        duplicate: bool,  # noqa: FBT001
        subscription_ids: tuple[int, ...],
        now_s: float,
    ) -> bytes:
        """A PUBLISH to one receiver; its expiry is lowered by the time that it has waited."""
        return mqtt5.PublishPacket(
            self.topic,
            self.payload,
            qos=QOS[qos],
            retain=retain,
            packet_id=packet_id,
            duplicate=duplicate,
            payload_format_indicator=self.payload_format_indicator,
            message_expiry_interval=None if self.expires_s is None else max(1, math.ceil(self.expires_s - now_s)),
            content_type=self.content_type,
            response_topic=self.response_topic,
            correlation_data=self.correlation_data,
            subscription_ids=list(subscription_ids) if subscription_ids else None,
            user_properties=list(self.user_properties),
        ).write()


def published(packet: mqtt5.PublishPacket, sender: Key, now_s: float) -> Message:
    """What a PUBLISH says."""
    return _message(packet, packet.payload, sender, now_s)


def will(packet: mqtt5.Will, sender: Key, now_s: float) -> Message:
    """What a will says, as of *now_s*, when it is published."""
    return _message(packet, packet.payload or b"", sender, now_s)


def _message(packet: mqtt5.PublishPacket | mqtt5.Will, payload: bytes, sender: Key, now_s: float) -> Message:
    expiry_s = packet.message_expiry_interval
    topic = packet.topic
    properties = tuple(packet.user_properties)
    return Message(
        topic=topic,
        payload=payload,
        qos=int(packet.qos),
        retain=packet.retain,
        sender=sender,
        expires_s=None if expiry_s is None else now_s + expiry_s,
        payload_format_indicator=packet.payload_format_indicator,
        content_type=packet.content_type,
        response_topic=packet.response_topic,
        correlation_data=packet.correlation_data,
        user_properties=properties,
        size_bytes=len(topic)
        + len(payload)
        + len(packet.content_type or "")
        + len(packet.response_topic or "")
        + len(packet.correlation_data or b"")
        + sum(len(name) + len(value) + PROPERTY_BYTES for name, value in properties),
    )
