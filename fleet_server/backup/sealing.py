"""Seals the secrets of a site: to a passphrase, or to a recipient whose key is elsewhere.

    line 1   JSON: how, and what is needed to open it again; authenticated with the rest
    then     ChaCha20-Poly1305 of the secrets, with a key that seals nothing else

A passphrase becomes a key by scrypt (RFC 7914); a recipient's by X25519 with a key of this one seal, and HKDF. Who
seals to a recipient can open nothing, so that a machine that makes backups every night holds no passphrase.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from msgspec import Struct

from fleet_server.backup.manifest import BackupError

SCRYPT_N: Final = 2**17
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
"""128 MiB and some tenths of a second for each guess."""
SALT_BYTES: Final = 16
KEY_BYTES: Final = 32
PASSPHRASE_CHARS_MIN: Final = 12
SEALED_BYTES_MAX: Final = 64 * 1024 * 1024
HEADER_BYTES_MAX: Final = 1024
# each key seals once, so that its nonce may be the same
NONCE: Final = bytes(12)
INFO: Final = b"fieldfleet backup keys 1"


class Secret(NamedTuple):
    """A file that only its owner may read. ``mode``: its permissions."""

    mode: int
    data: bytes


class Header(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``salt`` for a passphrase, ``sender`` (a public key) for a recipient; both base64."""

    version: int
    salt: str = ""
    sender: str = ""


def seal_to_passphrase(secrets: Mapping[str, Secret], passphrase: str, *, salt: bytes) -> bytes:
    """*salt*: random. Raises BackupError: the passphrase is too short."""
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise BackupError(f"passphrase: expected at least {PASSPHRASE_CHARS_MIN} characters, got {len(passphrase)}")
    return _sealed(secrets, Header(1, salt=_text(salt)), _stretched(passphrase, salt))


def seal_to_recipient(secrets: Mapping[str, Secret], recipient_pem: bytes, *, ephemeral: X25519PrivateKey) -> bytes:
    """*ephemeral*: made for this. Raises BackupError: no such public key."""
    try:
        recipient = load_pem_public_key(recipient_pem)
    except ValueError as error:
        raise BackupError(f"recipient: expected a public key of X25519 as PEM: {error}") from error
    if not isinstance(recipient, X25519PublicKey):
        raise BackupError("recipient: expected a public key of X25519; fieldfleet make-backup-key makes one")
    sender = ephemeral.public_key().public_bytes_raw()
    key = _agreed(ephemeral.exchange(recipient), sender, recipient.public_bytes_raw())
    return _sealed(secrets, Header(1, sender=_text(sender)), key)


def open_with_passphrase(sealed: bytes, passphrase: str) -> Mapping[str, Secret]:
    """Raises BackupError: another passphrase, or it is damaged."""
    header, first, rest = _parted(sealed)
    return _opened(_stretched(passphrase, _bytes(header.salt)), first, rest)


def open_with_key(sealed: bytes, key_pem: bytes) -> Mapping[str, Secret]:
    """*key_pem*: the recipient's private key. Raises BackupError: another key, or it is damaged."""
    header, first, rest = _parted(sealed)
    try:
        own = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise BackupError(f"key: expected a private key of X25519 as PEM: {error}") from error
    if not isinstance(own, X25519PrivateKey):
        raise BackupError("key: expected a private key of X25519")
    sender = _bytes(header.sender)
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(sender))
    except ValueError as error:
        raise BackupError(f"keys: not sealed to a recipient: {error}") from error
    return _opened(_agreed(shared, sender, own.public_key().public_bytes_raw()), first, rest)


def new_pair() -> tuple[bytes, bytes]:
    """A recipient's private and public key, PEM."""
    own = X25519PrivateKey.generate()
    public = own.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public


def _sealed(secrets: Mapping[str, Secret], header: Header, key: bytes) -> bytes:
    plain = msgspec.json.encode({name: (each.mode, _text(each.data)) for name, each in sorted(secrets.items())})
    if len(plain) > SEALED_BYTES_MAX:
        raise BackupError(f"keys: expected at most {SEALED_BYTES_MAX} bytes of secrets, got {len(plain)}")
    first = msgspec.json.encode(header)
    return first + b"\n" + ChaCha20Poly1305(key).encrypt(NONCE, plain, first)


def _parted(sealed: bytes) -> tuple[Header, bytes, bytes]:
    first, _, rest = sealed.partition(b"\n")
    try:
        header = msgspec.json.decode(first[: HEADER_BYTES_MAX + 1], type=Header)
    except msgspec.DecodeError as error:
        raise BackupError(f"keys: expected a header of JSON: {error}") from error
    if header.version != 1 or bool(header.salt) == bool(header.sender):
        raise BackupError("keys: expected version 1, and salt or sender")
    return header, first, rest


def _opened(key: bytes, first: bytes, rest: bytes) -> Mapping[str, Secret]:
    try:
        plain = ChaCha20Poly1305(key).decrypt(NONCE, rest, first)
    except (InvalidTag, ValueError) as error:
        raise BackupError("keys: another passphrase or key sealed them, or they are damaged") from error
    found = msgspec.json.decode(plain, type=dict[str, tuple[int, str]])
    return {name: Secret(mode & 0o700, _bytes(text)) for name, (mode, text) in found.items()}


def _stretched(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase.encode())


def _agreed(shared: bytes, sender: bytes, recipient: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=sender + recipient, info=INFO).derive(shared)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BackupError(f"keys: expected base64: {error}") from error
