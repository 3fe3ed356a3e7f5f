"""Authenticity of what a device deletes by and sets its clock by: receipts and time answers.

A shared key for each device and purpose, so that a running agent needs no signature library. A hostile
broker can withhold such a message, and cannot make one.
"""

import hmac
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from broker_config.ids import DeviceId

PROPERTY_MAC: Final = "mac"
"""User property: 64 hex digits."""
PROPERTY_KID: Final = "kid"
"""User property: which key made the mac."""
KEY_BYTES: Final = 32


class Purpose(StrEnum):
    """What a key is for; one key never serves two."""

    RECEIPT = "receipt"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class MacKey:
    """One device's key for one purpose."""

    kid: str
    secret: bytes


def key_info(purpose: Purpose, device: DeviceId) -> bytes:
    """The `info` of HKDF-SHA256 (empty salt, 32 bytes) that derives the key from the server's master key."""
    return f"ff/1/{purpose}/{device}".encode("ascii")


def mac(secret: bytes, purpose: Purpose, topic: str, payload: bytes) -> str:
    """HMAC-SHA256 over kind, NUL, topic, NUL, payload; hex."""
    return hmac.digest(secret, b"%b\0%b\0%b" % (purpose.encode(), topic.encode(), payload), sha256).hex()


def authentic(key: MacKey, purpose: Purpose, topic: str, payload: bytes, properties: dict[str, str]) -> bool:
    """Whether *properties* carry this key's mac of the message; anything missing or unknown is no."""
    if properties.get(PROPERTY_KID) != key.kid:
        return False
    # as bytes: compare_digest raises on text that is not ASCII, and this text is the broker's
    claimed = properties.get(PROPERTY_MAC, "").encode("utf-8", "replace")
    return hmac.compare_digest(mac(key.secret, purpose, topic, payload).encode("ascii"), claimed)
