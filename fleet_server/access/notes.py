"""Signed notes, checkpoints of a log, and cosignatures of its witnesses, in the C2SP formats. Values only.

A note is text and a line for each signature; a checkpoint is a note of three lines: origin, size and root of a log.
A witness's line says that it saw this checkpoint at that time, and that it goes on from all that it saw before.

Sources: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature. Only
Ed25519 is spoken here; the type byte is there for what comes after it.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker_config.merkle import HASH_BYTES

NOTE_CHARS_MAX: Final = 16 * 1024
SIGNATURES_MAX: Final = 32
SIZE_MAX: Final = 2**63 - 1
KEY_BYTES: Final = 32
ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
PRIVATE: Final = "PRIVATE+KEY+"
_NAME: Final = re.compile(r"[^\s+]{1,256}\Z")
_LINE: Final = re.compile(r"— ([^\s+]{1,256}) ([A-Za-z0-9+/]{1,1024}={0,2})\Z")
_SIZE: Final = re.compile(r"(?:0|[1-9]\d{0,18})\Z", re.ASCII)
_TIME_BYTES: Final = 8


class NoteError(ValueError):
    """Not a note, a checkpoint or a key, or no signature of the key that was asked for."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name; ``kind``: ED25519 of a log, COSIGNATURE of a witness."""

    name: str
    key: bytes
    kind: int = ED25519

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read ``name+hash+base64``. Raises NoteError."""
        name, key_id, key = _key_parts(text.strip())
        verifier = cls(name, key[1:], key[0])
        if verifier.key_id.hex() != key_id:
            raise NoteError("key: its hash is not its own")
        return verifier

    @property
    def key_id(self) -> bytes:
        """Four bytes that find its line among the signatures."""
        return _key_id(self.name, self.kind, self.key)

    def text(self) -> str:
        """As it is given to who is to check signatures."""
        return f"{self.name}+{self.key_id.hex()}+{_b64(bytes([self.kind]) + self.key)}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its name: whoever has it can sign another history."""

    name: str
    seed: bytes = field(repr=False)
    kind: int = ED25519

    @classmethod
    def parse(cls, text: str) -> "Signer":
        """Read what :meth:`text` wrote. Raises NoteError, which never shows what it got."""
        line = text.strip()
        if not line.startswith(PRIVATE):
            raise NoteError(f"key: expected {PRIVATE}NAME+HASH+KEY on one line")
        name, key_id, key = _key_parts(line.removeprefix(PRIVATE))
        signer = cls(name, key[1:], key[0])
        if signer.verifier.key_id.hex() != key_id:
            raise NoteError("key: its hash is not its own")
        return signer

    def text(self) -> str:
        """The file form, one line."""
        return f"{PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{_b64(bytes([self.kind]) + self.seed)}\n"

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self._key().public_key().public_bytes_raw(), self.kind)

    def sign(self, text: str) -> str:
        """The note of *text*, which ends with a line end, with this one signature."""
        assert self.kind == ED25519
        return f"{text}\n{self._line(self._key().sign(text.encode()))}"

    def cosign(self, note: str, *, at_s: int) -> str:
        """*note* with a witness's line at its end. *at_s*: seconds since the epoch."""
        assert self.kind == COSIGNATURE
        text, _ = _split(note)
        signature = at_s.to_bytes(_TIME_BYTES) + self._key().sign(_cosigned(text, at_s))
        return f"{note}{self._line(signature)}"

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def _line(self, signature: bytes) -> str:
        return f"— {self.name} {_b64(self.verifier.key_id + signature)}\n"


class Checkpoint(NamedTuple):
    """A log's state as it is signed."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{_b64(self.root)}\n"


Times: TypeAlias = tuple[int, ...]


def opened(note: str, verifier: Verifier) -> Times:
    """Check *note*: at least one signature of *verifier*, and none of it that is wrong.

    Returns:
        The times that a witness signed at, in seconds since the epoch; empty for a log's own key.

    Raises:
        NoteError: not a note, or not signed by *verifier*.
    """
    text, signatures = _split(note)
    mine = [
        signature
        for name, signature in signatures
        if name == verifier.name and signature[: len(verifier.key_id)] == verifier.key_id
    ]
    if not mine:
        raise NoteError(f"not signed by {verifier.name}")
    return tuple(_times(text, (each[len(verifier.key_id) :] for each in mine), verifier))


def checkpoint_of(note: str) -> Checkpoint:
    """What a note says as a checkpoint, its signatures not looked at. Raises NoteError."""
    text, _ = _split(note)
    lines = text.split("\n")
    if len(lines) < len(Checkpoint._fields) + 1 or not all(lines[:-1]):
        raise NoteError("checkpoint: expected origin, size and root, a line each")
    root = _bytes(lines[2])
    if not _SIZE.match(lines[1]) or int(lines[1]) > SIZE_MAX or len(root) != HASH_BYTES:
        raise NoteError("checkpoint: expected a size and a root of 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def _times(text: str, signatures: Iterator[bytes], verifier: Verifier) -> Iterator[int]:
    key = Ed25519PublicKey.from_public_bytes(verifier.key)
    for signature in signatures:
        at_s = int.from_bytes(signature[:_TIME_BYTES])
        try:
            if verifier.kind == COSIGNATURE:
                key.verify(signature[_TIME_BYTES:], _cosigned(text, at_s))
                yield at_s
            else:
                key.verify(signature, text.encode())
        except InvalidSignature as error:
            raise NoteError(f"the signature of {verifier.name} is not of this text") from error


def _cosigned(text: str, at_s: int) -> bytes:
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text, and name and signature (with its key's id) of every line below."""
    if len(note) > NOTE_CHARS_MAX or any(c < " " and c != "\n" for c in note):
        raise NoteError(f"note: expected at most {NOTE_CHARS_MAX} characters, none of control")
    text, separator, below = note.rpartition("\n\n")
    lines = below.split("\n")
    if not separator or lines.pop() or not 1 <= len(lines) <= SIGNATURES_MAX:
        raise NoteError("note: expected text, an empty line, and signatures")
    found = [_LINE.match(line) for line in lines]
    signatures = [(each[1], _bytes(each[2])) for each in found if each is not None]
    if len(signatures) < len(lines):
        raise NoteError("note: expected — NAME SIGNATURE in every line below the text")
    return text + "\n", signatures


def _key_parts(text: str) -> tuple[str, str, bytes]:
    parts = text.split("+", 2)  # the key itself may have a + in its base64
    if len(parts) < len(("name", "hash", "key")) or not _NAME.match(parts[0]):
        raise NoteError("key: expected NAME+HASH+KEY")
    key = _bytes(parts[2])
    if len(key) != 1 + KEY_BYTES or key[0] not in {ED25519, COSIGNATURE}:
        raise NoteError("key: expected one of Ed25519, of a log or a witness")
    return parts[0], parts[1], key


def _key_id(name: str, kind: int, key: bytes) -> bytes:
    return hashlib.sha256(f"{name}\n".encode() + bytes([kind]) + key).digest()[:4]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise NoteError("expected base64") from error
    if _b64(data) != text:  # bits that nothing is made of
        raise NoteError("expected base64 in its one form")
    return data
