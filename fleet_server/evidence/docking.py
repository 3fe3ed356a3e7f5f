"""Uploads over HTTPS, for docks: who a session belongs to, and the port to where its words and chunks go.

A session is a word of the server's own, good for some minutes, that says which device proved its key; nothing of it
is kept. What is said in it is what is said over the broker, and is decided at the same place.
"""

import hashlib
import hmac
from typing import Final, Protocol

from broker_config.ids import ContractError, DeviceId, device_id
from broker_config.transfer import DownMessage
from fleet_server.evidence.underway import Put, Said

SESSION_MS: Final = 600_000
_MAC_CHARS: Final = 64
_EXPIRY_CHARS: Final = 12
_CONTEXT: Final = b"upload session 1\0"


class SessionError(ContractError):
    """No session of ours, or one that is over."""


class Docking(Protocol):
    """Any thread may call. Both raise UploadError: not now; the device asks again."""

    def say(self, said: Said | Put) -> list[DownMessage]:
        """What the device is told of it, once what it sent is durable; empty: a receipt is on its way."""

    def receipt(self, device: DeviceId, upload: str) -> bytes | None:
        """The signed receipt, if it was signed lately."""


def new_session(secret: bytes, device: DeviceId, *, now_ms: int) -> str:
    """``EXPIRY.DEVICE.MAC``."""
    head = f"{now_ms + SESSION_MS:0{_EXPIRY_CHARS}x}.{device}"
    return f"{head}.{_mac(secret, head)}"


def device_of(secret: bytes, session: str, *, now_ms: int) -> DeviceId:
    """Whose it is. Raises SessionError."""
    head, _, mac = session.rpartition(".")
    expiry, _, device = head.partition(".")
    if not hmac.compare_digest(mac.encode("ascii", "replace"), _mac(secret, head).encode("ascii")):
        raise SessionError("session: expected one that this server gave since its start")
    if int(expiry, 16) <= now_ms:
        raise SessionError("session: it is over; prove the key again")
    return device_id(device)


def _mac(secret: bytes, head: str) -> str:
    return hmac.new(secret, _CONTEXT + head.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:_MAC_CHARS]
