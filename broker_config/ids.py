"""Names that are safe in a topic, a file name, a log line and a certificate: parsed once, then trusted."""

import hashlib
import re
from typing import Final, Literal, NewType

DeviceId = NewType("DeviceId", str)
Shard = NewType("Shard", str)
"""Two lower-case hex digits: the first byte of SHA-256 of the device id."""
Hex16 = NewType("Hex16", str)
"""64 bits as 16 lower-case hex digits: a `life`, a `boot`, a connection's `epoch`, a nonce."""
SiteId = NewType("SiteId", str)
"""256 bits as 64 lower-case hex digits: one installation, made once by its first certificate authority."""

DEVICE_ID_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
HEX16_PATTERN: Final = r"^[0-9a-f]{16}$"
HEX64_PATTERN: Final = r"^[0-9a-f]{64}$"
STREAM_PATTERN: Final = r"^[a-z][a-z0-9_]{0,31}$"


def exact(pattern: str) -> str:
    """*pattern* for Python's ``re`` and msgspec, whose ``$`` would let one line end follow; OpenAPI's would not."""
    return pattern.removesuffix("$") + r"\Z"


_DEVICE_ID = re.compile(exact(DEVICE_ID_PATTERN))
_SHARD = re.compile(r"^[0-9a-f]{2}\Z")
_HEX16 = re.compile(exact(HEX16_PATTERN))
_SITE_ID = re.compile(exact(HEX64_PATTERN))
_SHARDS = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{2}\Z")


class ContractError(ValueError):
    """What came is not what the contract says; nothing has changed."""


class BadIdError(ContractError):
    """A name outside its alphabet or length."""


def device_id(text: str) -> DeviceId:
    """Parse a device's name: the certificate's name, the client id and a topic level at once.

    Raises:
        BadIdError: not 1 to 63 of ``a-z 0-9 -`` beginning with a letter or a digit. A server's own
            name begins with ``_``, so that no device can be named like one.
    """
    if not _DEVICE_ID.match(text):
        raise BadIdError(f"device id: expected 1 to 63 of a-z, 0-9 and '-', got {text[:80]!r}")
    return DeviceId(text)


def shard_of(device: DeviceId) -> Shard:
    """The shard that a device's topics live in."""
    return Shard(hashlib.sha256(device.encode("ascii")).hexdigest()[:2])


def shard(text: str) -> Shard:
    """Parse two hex digits. Raises BadIdError."""
    if not _SHARD.match(text):
        raise BadIdError(f"shard: expected two hex digits, got {text[:80]!r}")
    return Shard(text)


def hex16(text: str) -> Hex16:
    """Parse 16 hex digits. Raises BadIdError."""
    if not _HEX16.match(text):
        raise BadIdError(f"expected 16 hex digits, got {text[:80]!r}")
    return Hex16(text)


def site_id(text: str) -> SiteId:
    """Parse 64 hex digits. Raises BadIdError."""
    if not _SITE_ID.match(text):
        raise BadIdError(f"site id: expected 64 hex digits, got {text[:80]!r}")
    return SiteId(text)


COMMON_NAME_CHARS_MAX: Final = 64
"""X.520's ub-common-name. The server's user name and client ids are longer, so no certificate of an authority that
keeps to it (ours must: the library refuses) lets a device be called like the server. A broker that reads the name
does not check its length: whoever holds the device authority's key could sign one."""
SERVER_COMMON_NAME: Final = "_fleet-server"
SERVER_ORGANISATION: Final = "fieldfleet server"


def server_user(site: SiteId) -> str:
    """The server's name at the broker: its certificate's whole subject as RFC 2253 writes it, last part first."""
    return f"OU={site},O={SERVER_ORGANISATION},CN={SERVER_COMMON_NAME}"


Work = Literal["ingest", "evidence", "twins", "commands", "releases"]
"""What a connection of the server is for; it has one for each."""


def server_client_id(site: SiteId, shards: str = "00-ff", *, work: Work = "ingest") -> str:
    """The client id of the worker that owns *shards*, ``FIRST-LAST``, one for each work. Raises BadIdError."""
    if not _SHARDS.match(shards):
        raise BadIdError(f"shards: expected FIRST-LAST as two hex digits each, got {shards[:80]!r}")
    return f"_{work}-{shards}-{site}"
