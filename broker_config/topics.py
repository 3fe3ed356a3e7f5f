"""The topic table of contract version 1: where every topic is spelled.

``ff/1/{shard}/{device}/{up|dn}/{channel}``: fixed depth, so that one wildcard covers all;
direction as a level, so that the access list is short; no organisation, because devices move.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker_config.ids import ContractError, DeviceId, Shard, device_id, shard_of

ROOT: Final = "ff/1"
SERVER_STATE: Final = f"{ROOT}/server/state"
"""Retained: the server's epochs. `server` is no shard, so it can be no device's topic."""
TOPIC_BYTES_MAX: Final = 128


class Up(StrEnum):
    """What a device says."""

    STATUS = "status"
    TELEMETRY = "telemetry"
    EVENT = "event"
    TWIN = "twin"
    COMMAND = "command"
    UPLOAD = "upload"
    CHUNK = "chunk"
    TIME = "time"
    RELEASE = "release"


class Down(StrEnum):
    """What a device is told."""

    RECEIPT = "receipt"
    TWIN = "twin"
    COMMAND = "command"
    UPLOAD = "upload"
    TIME = "time"
    CHUNK = "chunk"


class BadTopicError(ContractError):
    """Not a topic of this contract, or in a shard that is not the device's."""


@dataclass(frozen=True, slots=True)
class UpTopic:
    """A parsed topic of a device's own."""

    device: DeviceId
    channel: Up


def base(device: DeviceId) -> str:
    """``ff/1/{shard}/{device}``."""
    return f"{ROOT}/{shard_of(device)}/{device}"


def up(device: DeviceId, channel: Up) -> str:
    """The topic on which *device* says *channel*."""
    return f"{base(device)}/up/{channel}"


def down(device: DeviceId, channel: Down) -> str:
    """The topic on which *device* is told *channel*."""
    return f"{base(device)}/dn/{channel}"


def parse_up(topic: str) -> UpTopic:
    """Parse what :func:`up` wrote.

    Raises:
        BadTopicError: another depth, root, direction or channel, a name that is no device id, or a shard
            that is not the device's (a broker cannot check that; the server must).
    """
    parts = topic.split("/")
    if len(parts) != 6 or parts[0] != "ff" or parts[1] != "1" or parts[4] != "up":
        raise BadTopicError(f"topic: expected {ROOT}/SHARD/DEVICE/up/CHANNEL, got {topic[:TOPIC_BYTES_MAX]!r}")
    try:
        device = device_id(parts[3])
        channel = Up(parts[5])
    except ValueError as error:
        raise BadTopicError(f"topic {topic[:TOPIC_BYTES_MAX]!r}: {error}") from error
    if parts[2] != shard_of(device):
        raise BadTopicError(f"topic: {device} lives in shard {shard_of(device)}, got {parts[2][:8]!r}")
    return UpTopic(device, channel)


def up_filter(channel: Up, shard: Shard | None = None) -> str:
    """The subscription to *channel* of every device, or of those in one shard."""
    return f"{ROOT}/{shard or '+'}/+/up/{channel}"


def down_filter(device: DeviceId) -> str:
    """The one subscription that a device needs, besides :data:`SERVER_STATE`."""
    return f"{base(device)}/dn/+"


def up_tree(device: str = "+") -> str:
    """All that *device*, or every one, may say; in any shard, because a broker cannot compute one."""
    return f"{ROOT}/+/{device}/up/#"


def down_tree(device: str = "+") -> str:
    """All that *device*, or every one, may be told."""
    return f"{ROOT}/+/{device}/dn/#"


def status_tree(device: str = "+") -> str:
    """The one retained topic of *device*, or of every one."""
    return f"{ROOT}/+/{device}/up/{Up.STATUS}"


def matches(pattern: str, topic: str) -> bool:
    """Whether an MQTT topic filter covers a topic; ``$`` topics only by their own name.

    Source: MQTT 5.0, section 4.7.
    """
    want, have = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and want[0] in {"+", "#"}:
        return False
    for at, level in enumerate(want):
        if level == "#":
            return True
        if at >= len(have) or level not in {"+", have[at]}:
            return False
    return len(want) == len(have)
