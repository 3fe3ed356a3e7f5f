"""The server's master key, and the keys that it derives for each device: for receipts and for the time.

Nothing is stored per device: whoever has the master key can make every device's keys again.
"""

import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker_config.ids import ContractError, DeviceId
from broker_config.mac import KEY_BYTES, MacKey, Purpose, key_info

MASTER_KEY_BYTES: Final = 32
KID_CHARS: Final = 8
FORMERS_MAX: Final = 4
"""Master keys that devices may have still, beside the current one."""

_HEX_KEY: Final = re.compile(rf"[0-9a-f]{{{2 * MASTER_KEY_BYTES}}}\n?\Z")


class BadMasterKeyError(ContractError):
    """Not a master key's file."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """Whoever has it can tell any device what to delete."""

    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> "MasterKey":
        """A random one."""
        return cls(secrets.token_bytes(MASTER_KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> "MasterKey":
        """Read what :meth:`text` wrote.

        Raises:
            BadMasterKeyError: not 64 hex digits on one line. The message never shows what it got.
        """
        if not _HEX_KEY.match(text):
            raise BadMasterKeyError(f"master key: expected {2 * MASTER_KEY_BYTES} hex digits on one line")
        return cls(bytes.fromhex(text))

    def text(self) -> str:
        """The file form: lower-case hex and a line end."""
        return self.secret.hex() + "\n"

    @property
    def kid(self) -> str:
        """The key's public name, in every mac's properties: the first hex digits of its SHA-256."""
        return hashlib.sha256(self.secret).hexdigest()[:KID_CHARS]


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """The site's master key, and those before it that devices may have still, newest first."""

    current: MasterKey
    formers: tuple[MasterKey, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "MasterKeys":
        """Read what :meth:`text` wrote: a key a line, the current one first. Raises BadMasterKeyError."""
        lines = text.splitlines(keepends=True)
        if not 1 <= len(lines) <= 1 + FORMERS_MAX:
            raise BadMasterKeyError(f"master key: expected 1 to {1 + FORMERS_MAX} lines, got {len(lines)}")
        current, *formers = (MasterKey.parse(line) for line in lines)
        return cls(current, tuple(formers))

    def text(self) -> str:
        """The file form."""
        return "".join(key.text() for key in (self.current, *self.formers))

    def of(self, kid: str) -> MasterKey:
        """The one that is called *kid*; the current one if none is."""
        return next((key for key in self.formers if key.kid == kid), self.current)

    def rotated(self, new: MasterKey) -> "MasterKeys":
        """*new* before all others. Raises BadMasterKeyError: there are as many formers as may be."""
        if len(self.formers) >= FORMERS_MAX:
            raise BadMasterKeyError(f"expected at most {FORMERS_MAX} former master keys; see drop-former-mac-keys")
        return MasterKeys(new, (self.current, *self.formers))


def derive(master: MasterKey, purpose: Purpose, device: DeviceId) -> MacKey:
    """The key that *device* checks messages of one *purpose* with."""
    hkdf = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=key_info(purpose, device))
    return MacKey(master.kid, hkdf.derive(master.secret))


def device_keys_json(master: MasterKey, device: DeviceId) -> bytes:
    """The device's ``mac.json``: ``{"kid": ..., "receipt": 64 hex digits, "time": 64 hex digits}``."""
    keys = {str(purpose): derive(master, purpose, device).secret.hex() for purpose in Purpose}
    return json.dumps({"kid": master.kid, **keys}, indent=2).encode("ascii") + b"\n"
