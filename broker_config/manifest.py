"""What a device says of a file before it sends it, and signs: the manifest, and the name that follows from it.

A manifest is evidence: it is kept as the bytes that were signed, in a DSSE envelope of its own payload type, beside
the certificate of the key. A file's ``upload`` is the beginning of SHA-256 over those bytes, so one name never means
two contents, and an offer may be repeated.

Rule 1: what is inside the signed bytes is refused if a field is unknown, there twice, or in another order.
Rule 2: ``name`` is for people. No file is ever called by it.
"""

from hashlib import sha256
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from broker_config import limits
from broker_config.device_classes import MediaType
from broker_config.ids import DEVICE_ID_PATTERN, ContractError, DeviceId, exact
from broker_config.signing import Envelope
from broker_config.telemetry import Digest, Hex, Stream, TimeMs
from broker_config.text import shown

PAYLOAD_TYPE: Final = "application/vnd.fieldfleet.manifest.v1+json"
UPLOAD_CHARS: Final = 32
UPLOAD_PATTERN: Final = r"^[0-9a-f]{32}$"
GENESIS: Final = "0" * 64
"""``prev`` of a recording's first segment."""
MANIFEST_BYTES_MAX: Final = 4 * limits.KIB
CHAIN_BYTES_MAX: Final = 16 * limits.KIB

UploadId: TypeAlias = Annotated[str, Meta(pattern=exact(UPLOAD_PATTERN))]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=limits.SEQ_MAX)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
RecordingId: TypeAlias = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9-]{0,63})?\Z")]
Holder: TypeAlias = Annotated[str, Meta(max_length=64)]
MaybeDigest: TypeAlias = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Line: TypeAlias = Annotated[str, Meta(max_length=120)]


class BadManifestError(ContractError):
    """Not a manifest of this contract, or not what was signed."""


class Moment(Struct, frozen=True, forbid_unknown_fields=True):
    """``t_ms``: ms since the epoch as the device knew it, and how far it may be off; ``mono``: ms since boot."""

    t_ms: TimeMs
    unc_ms: Count
    src: Annotated[str, Meta(max_length=16)]
    boot: Hex
    mono: Count


class Segment(Struct, frozen=True, forbid_unknown_fields=True):
    """A file's place in its recording. ``number`` from 1, without holes; ``prev``: SHA-256 of the manifest of the one
    before, GENESIS for the first; ``last``: the recording was closed with this one, and why. ``trigger``: what began
    the recording. ``gap_ms``: of monotonic time between the one before and this, 0 if they adjoin.
    """

    recording: RecordingId
    number: Annotated[int, Meta(ge=1, le=limits.SEGMENTS_MAX)]
    prev: Digest
    last: bool = False
    trigger: Line = ""
    reason: Line = ""
    gap_ms: Count = 0


class JournalRange(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The device's journal while the file was made: batches ``first`` to ``last`` of a life, inclusive. ``head``:
    SHA-256 of batch ``last`` as it is sent, so that the signature covers the journal up to there; empty if that batch
    was not sealed yet.
    """

    life: Hex
    first: Count
    last: Count
    head: MaybeDigest = ""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, tag_field="t", tag="manifest"):
    """``root``: of the Merkle tree over the chunks of ``chunk_bytes`` each, the last one shorter. ``file_class``: a
    folder of the device class. ``holder``: to whom the device was given then, empty if nobody or not known.
    """

    v: Literal[1]
    device: Annotated[DeviceId, Meta(pattern=exact(DEVICE_ID_PATTERN))]
    file_class: Stream
    name: Name
    media_type: MediaType
    size: Annotated[int, Meta(ge=1, le=limits.UPLOAD_BYTES_MAX)]
    sha256: Digest
    chunk_bytes: Annotated[int, Meta(ge=limits.CHUNK_BYTES_MIN, le=limits.CHUNK_BYTES_MAX)]
    root: Digest
    begin: Moment
    end: Moment
    journal: JournalRange
    segment: Segment | None = None
    holder: Holder = ""

    @property
    def chunks(self) -> int:
        """How many there are; they are counted from 0."""
        return -(-self.size // self.chunk_bytes)

    def chunk_size(self, index: int) -> int:
        """The bytes of one chunk. Raises IndexError: there is no such chunk."""
        if not 0 <= index < self.chunks:
            raise IndexError(f"chunk: expected 0 to {self.chunks - 1}, got {index}")
        return min(self.chunk_bytes, self.size - index * self.chunk_bytes)


_ENCODER: Final = msgspec.json.Encoder()
_MANIFEST: Final = msgspec.json.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """The bytes that are signed; fields in the order of their declaration."""
    return _ENCODER.encode(manifest)


def upload_id(payload: bytes) -> str:
    """The name of what these signed bytes describe."""
    return sha256(payload).hexdigest()[:UPLOAD_CHARS]


def digest(payload: bytes) -> str:
    """Of a segment's signed bytes, for ``prev`` of the next."""
    return sha256(payload).hexdigest()


def decode(envelope: Envelope) -> Manifest:
    """Read what is inside; whose signature it has is for the reader to check.

    Raises:
        BadManifestError: another payload type, too long, no manifest, a chunk size that is no power of two, or bytes
            that :func:`encode` would not have written.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BadManifestError(f"payload type: expected {PAYLOAD_TYPE}, got {shown(envelope.payload_type)!r}")
    if len(envelope.payload) > MANIFEST_BYTES_MAX:
        raise BadManifestError(f"manifest: expected at most {MANIFEST_BYTES_MAX} bytes, got {len(envelope.payload)}")
    try:
        manifest = _MANIFEST.decode(envelope.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadManifestError(f"manifest: {shown(error)}") from error
    if encode(manifest) != envelope.payload:
        raise BadManifestError("manifest: expected each name once, in the contract's order and without blanks")
    if manifest.chunk_bytes.bit_count() != 1:
        raise BadManifestError(f"chunk_bytes: expected a power of two, got {manifest.chunk_bytes}")
    return manifest
