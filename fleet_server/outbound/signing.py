"""Proves to a receiver who sent something and that nobody changed it, after the Standard Webhooks convention.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES: Final = 32
HEADER_ID: Final = "webhook-id"
HEADER_TIMESTAMP: Final = "webhook-timestamp"
HEADER_SIGNATURE: Final = "webhook-signature"


def secret_text(random: bytes) -> str:
    """A secret as an operator copies it. *random*: ``SECRET_BYTES`` of it."""
    assert len(random) == SECRET_BYTES
    return SECRET_PREFIX + base64.b64encode(random).decode("ascii")


def headers(secret: str, message: str, *, at_s: int, body: bytes) -> Mapping[str, str]:
    """What goes with *body*. *message*: its id, the same for every attempt; *at_s*: of this attempt."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = hmac.digest(key, f"{message}.{at_s}.".encode() + body, hashlib.sha256)
    return {
        HEADER_ID: message,
        HEADER_TIMESTAMP: str(at_s),
        HEADER_SIGNATURE: f"v1,{base64.b64encode(signed).decode('ascii')}",
    }
