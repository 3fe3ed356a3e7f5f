"""Orders as a signer makes them, and as somebody makes them who should not."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker_config import signing
from broker_config.ids import DeviceId, SiteId
from broker_config.signing import (
    ED25519,
    PAYLOAD_TYPE,
    Claims,
    Command,
    Envelope,
    Kind,
    Refusal,
    Roots,
    Signature,
    Signer,
)
from fleet_server.access.signing import Issuer, Request, SignerError

SITE: Final = SiteId("5e" * 32)
CAR: Final = DeviceId("car-7")
NOW_MS: Final = 1_767_225_600_000
ID: Final = "00112233445566aa"


@dataclass(frozen=True)
class Key:
    """Ed25519, from a seed of one byte repeated."""

    private: Ed25519PrivateKey

    @classmethod
    def of(cls, seed: int) -> "Key":
        return cls(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def keyid(self) -> str:
        return signing.key_id(ED25519, self.public)

    def signature(self, payload: bytes, payload_type: str = PAYLOAD_TYPE, *, keyid: str | None = None) -> Signature:
        """*keyid*: another one than its own."""
        signed = signing.pre_authentication(payload_type, payload)
        return Signature(keyid or self.keyid, self.private.sign(signed))


SERVER: Final = Key.of(1)
SECOND: Final = Key.of(2)
STRANGER: Final = Key.of(3)


class FixedKey:
    """A test's key behind the port."""

    algorithm = ED25519

    def __init__(self, key: Key) -> None:
        self._key = key
        self.public = key.public

    def sign(self, data: bytes) -> bytes:
        return self._key.private.sign(data)


@dataclass
class RealSigner:
    """The signer's own core in this process. ``down``: as if its process was away."""

    issuer: Issuer
    down: bool = False
    asked: list[Request] = field(default_factory=list)

    def sign(self, request: Request) -> bytes:
        if self.down:
            raise SignerError("the signer cannot be reached")
        self.asked.append(request)
        now_ms = time.time_ns() // 1_000_000
        return signing.encode(self.issuer.sign(request, now_ms=now_ms, mono_ms=now_ms))

    def sign_all(self, requests: Sequence[Request]) -> Iterator[bytes]:
        return map(self.sign, requests)


def signer(key: Key, *kinds: Kind) -> Signer:
    """Of every kind, if none is given."""
    return Signer(key.keyid, ED25519, key.public, tuple(kind.value for kind in kinds or tuple(Kind)))


ROOTS: Final = Roots(1, 1, SITE, (signer(SERVER), signer(SECOND, Kind.COMMAND)))


def unable(command: Command) -> Refusal | None:
    """Of a device that can identify itself, and nothing else."""
    return None if command.name == "identify" else Refusal.UNSUPPORTED


def command(name: str = "identify", *, order_id: str = ID) -> Command:
    return Command(1, order_id, name)


def claims(body: object = None, *, kind: Kind = Kind.COMMAND, at_ms: int = NOW_MS, **changes: object) -> Claims:
    """Good ones of *at_ms*, but for *changes*; the body of a command by default."""
    raw = msgspec.Raw(msgspec.json.encode(command() if body is None else body))
    good = Claims(1, kind, SITE, CAR, at_ms, at_ms, at_ms + 60_000, raw)
    return msgspec.structs.replace(good, **changes)


def envelope(told: Claims, *keys: Key) -> Envelope:
    """Signed by *keys*, by the server's if none is given."""
    payload = signing.encode(told)
    return Envelope(payload, PAYLOAD_TYPE, tuple(key.signature(payload) for key in keys or (SERVER,)))


def order(told: Claims, *keys: Key) -> bytes:
    """As it goes over the broker."""
    return signing.encode(envelope(told, *keys))
