"""Ed25519 in a file: PKCS #8, for its owner only; under a passphrase if it is a person's."""

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from broker_config.signing import ED25519
from fleet_server.access.signing import SignerError

KEY_BYTES_MAX: Final = 4096


def new_key_pem(passphrase: bytes | None = None) -> bytes:
    """A random one; encrypted if there is a *passphrase*."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


class FileKey:
    """See :class:`fleet_server.access.signing.SigningKey`."""

    def __init__(self, pem: bytes, passphrase: bytes | None = None) -> None:
        """Raises SignerError, also if the passphrase is wrong; the message never shows what it got."""
        try:
            key = load_pem_private_key(pem, passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            expected = "an Ed25519 key as PEM" + ("" if passphrase is None else " under this passphrase")
            raise SignerError(f"signing key: expected {expected}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SignerError("signing key: expected an Ed25519 key, got another algorithm's")
        self._key = key

    @classmethod
    def read(cls, path: Path) -> "FileKey":
        """Raises SignerError, OSError."""
        with path.open("rb") as file:
            return cls(file.read(KEY_BYTES_MAX))

    @property
    def algorithm(self) -> str:
        """Ed25519."""
        return ED25519

    @property
    def public(self) -> bytes:
        """Its 32 bytes."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, data: bytes) -> bytes:
        """See the port."""
        return self._key.sign(data)
