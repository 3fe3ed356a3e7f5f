"""How a file gets from a device to the server: offers, what is missing, windows, chunks. No file is touched here.

The device offers, and repeats it whenever it is not sure. The server answers with what of the file is *durable*, and
how much may be under way; the device sends what is missing and no more. Only the server knows how far a file is. Once
it has read the whole of it again from its storage, it signs a receipt: an order of kind ``evidence_receipt``, also on
``dn/upload``. Nobody vouches for the other messages there: they can delay an upload, and delete nothing.

A chunk is binary on ``up/chunk``: a header of 32 bytes, big-endian: magic, version, flags (0), the upload's id, the
chunk's number from 0, its length, CRC-32 over the header before it and the data. CRC-32 as zlib has it, because it is
in the agent's memory already.
"""

import struct
import zlib
from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from broker_config import limits
from broker_config.device_classes import Priority
from broker_config.ids import ContractError
from broker_config.manifest import CHAIN_BYTES_MAX, UploadId
from broker_config.merkle import HASH_BYTES
from broker_config.signing import Envelope
from broker_config.telemetry import Digest, Text
from broker_config.text import shown

CONTENT_CHUNK: Final = "application/vnd.fieldfleet.chunk"
MAGIC: Final = b"FU"
VERSION: Final = 1
LEAVES_MAX: Final = 1_024
"""Hashes in one message."""
RETRY_S_MAX: Final = 3_600

_HEADER: Final = struct.Struct(">2sBBQQIII")
HEADER_BYTES: Final = _HEADER.size
_COVERED: Final = HEADER_BYTES - 4

Index: TypeAlias = Annotated[int, Meta(ge=0, le=limits.UPLOAD_BYTES_MAX // limits.CHUNK_BYTES_MIN)]
ChunkRanges: TypeAlias = Annotated[tuple[tuple[Index, Index], ...], Meta(max_length=limits.RANGES_MAX)]


class BadTransferError(ContractError):
    """Not a message or a chunk of this contract, or damaged on the way."""


class Code(StrEnum):
    """Why an upload is not taken now, or never (``malformed``, ``identity``, ``policy``, ``size``)."""

    UNKNOWN = "unknown"
    """The server has no such upload: offer it."""
    MALFORMED = "malformed"
    IDENTITY = "identity"
    """The signature, or the certificate, is not the device's."""
    POLICY = "policy"
    SIZE = "size"
    QUOTA = "quota"
    DISK = "disk"
    BUSY = "busy"


class StorageClass(StrEnum):
    """What the server vouches for, each more than the one before: one copy, read again; a second copy, read again;
    in a custody log whose checkpoint is signed.
    """

    STORED = "stored"
    REPLICATED = "replicated"
    LOGGED = "logged"


# What a device says on up/upload ------------------------------------------------------------------------------------


class Offer(Struct, frozen=True, tag_field="t", tag="offer"):
    """Here is a file. ``certificate``: of the key that signed the manifest, and what stands above it, PEM."""

    v: Literal[1]
    manifest: Envelope
    certificate: Annotated[str, Meta(min_length=1, max_length=CHAIN_BYTES_MAX)]
    priority: Priority


class Query(Struct, frozen=True, tag_field="t", tag="query"):
    """How far is it?"""

    v: Literal[1]
    upload: UploadId


class Leaves(Struct, frozen=True, tag_field="t", tag="leaves"):
    """Hashes of the chunks from ``first`` on, 32 bytes each, base64 in JSON: asked for when all chunks came as they
    were sent, and are not the file of the manifest.
    """

    v: Literal[1]
    upload: UploadId
    first: Index
    hashes: Annotated[bytes, Meta(max_length=LEAVES_MAX * HASH_BYTES)]


class Withdraw(Struct, frozen=True, tag_field="t", tag="withdraw"):
    """The device cannot read the file any more, and says why: what the server has of it stays, as incomplete."""

    v: Literal[1]
    upload: UploadId
    reason: Text = ""


# What a device is told on dn/upload ---------------------------------------------------------------------------------


class State(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="state"):
    """``missing``: chunks that are not durable, lowest first; ``more``: there are others above them.

    ``window_bytes``: of this device's chunks, of all uploads, that may be under way; 0 is a pause, and then
    ``again_s`` says when to ask.
    """

    v: Literal[1]
    upload: UploadId
    missing: ChunkRanges
    window_bytes: Annotated[int, Meta(ge=0, le=limits.UPLOAD_WINDOW_BYTES_MAX)]
    more: bool = False
    again_s: Annotated[int, Meta(ge=0, le=RETRY_S_MAX)] = 0
    leaves: bool = False
    """Whether the hashes of all chunks are wanted."""


class Reject(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="reject"):
    """``again_s``: offer it again then; 0: never, it is not taken as it is."""

    v: Literal[1]
    upload: UploadId
    code: Code
    again_s: Annotated[int, Meta(ge=0, le=RETRY_S_MAX)] = 0
    detail: Text = ""


# The signed receipt -------------------------------------------------------------------------------------------------


class Receipted(Struct, frozen=True, forbid_unknown_fields=True):
    """One file that is kept. ``log`` and ``number``: its entry in the custody log; -1 if it has none yet."""

    upload: UploadId
    sha256: Digest
    size: Annotated[int, Meta(ge=1, le=limits.UPLOAD_BYTES_MAX)]
    storage_class: StorageClass
    log: Annotated[int, Meta(ge=-1, le=limits.SEQ_MAX)] = -1
    number: Annotated[int, Meta(ge=-1, le=limits.SEQ_MAX)] = -1


class EvidenceReceipt(Struct, frozen=True, forbid_unknown_fields=True, tag_field="t", tag="evidence_receipt"):
    """The body of an order of that kind: what the device may delete, by its own rules, once its time has come."""

    v: Literal[1]
    uploads: Annotated[tuple[Receipted, ...], Meta(min_length=1, max_length=limits.RECEIPTED_MAX)]


# The codec ----------------------------------------------------------------------------------------------------------

UpMessage: TypeAlias = Offer | Query | Leaves | Withdraw
DownMessage: TypeAlias = State | Reject
T = TypeVar("T")

_ENCODER: Final = msgspec.json.Encoder()
_UP: Final[msgspec.json.Decoder[UpMessage]] = msgspec.json.Decoder(UpMessage)
_DOWN: Final[msgspec.json.Decoder[DownMessage]] = msgspec.json.Decoder(DownMessage)
_RECEIPT: Final = msgspec.json.Decoder(EvidenceReceipt)


class _Tag(Struct, frozen=True):
    t: Annotated[str, Meta(max_length=32)] = ""


_TAG: Final = msgspec.json.Decoder(_Tag)


def encode(message: UpMessage | DownMessage | EvidenceReceipt) -> bytes:
    """Its JSON; fields in the order of their declaration."""
    return _ENCODER.encode(message)


def decode_up(payload: bytes) -> UpMessage:
    """What a device said. Raises BadTransferError."""
    return _read(_UP, payload)


def decode_down(payload: bytes) -> DownMessage | None:
    """What a device is told; None: it is no such message, but may be an order (a signed receipt).

    Raises:
        BadTransferError: neither.
    """
    return _read(_DOWN, payload) if _read(_TAG, payload).t else None


def decode_receipt(body: bytes) -> EvidenceReceipt:
    """The body of a signed receipt. Raises BadTransferError."""
    return _read(_RECEIPT, body)


def _read(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    if len(payload) > limits.BATCH_BYTES_MAX:
        raise BadTransferError(f"expected at most {limits.BATCH_BYTES_MAX} bytes, got {len(payload)}")
    try:
        if not payload.isascii():
            payload.decode()  # the decoder skips what it does not know without a look
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTransferError(shown(error)) from error


class Chunk(NamedTuple):
    """A part of a file."""

    upload: str
    number: int
    data: bytes | memoryview


class CheckedChunk(NamedTuple):
    """One with its CRC-32 over header and data. ``data`` is a view of the message where it was read from one."""

    upload: str
    number: int
    data: bytes | memoryview
    crc: int


def _head(chunk: Chunk) -> bytes:
    high, low = int(chunk.upload[:16], 16), int(chunk.upload[16:], 16)
    return _HEADER.pack(MAGIC, VERSION, 0, high, low, chunk.number, len(chunk.data), 0)[:_COVERED]


def checked(chunk: Chunk) -> CheckedChunk:
    """What its message would have been checked with."""
    return CheckedChunk(*chunk, zlib.crc32(chunk.data, zlib.crc32(_head(chunk))))


def encode_chunk(chunk: Chunk) -> bytes:
    """The message. Raises BadTransferError: more than a chunk may have."""
    if not 1 <= len(chunk.data) <= limits.CHUNK_BYTES_MAX:
        raise BadTransferError(f"chunk: expected 1 to {limits.CHUNK_BYTES_MAX} bytes, got {len(chunk.data)}")
    head = _head(chunk)
    crc = zlib.crc32(chunk.data, zlib.crc32(head))
    return b"".join((head, crc.to_bytes(4, "big"), chunk.data))


def decode_chunk(payload: bytes) -> CheckedChunk:
    """Read a chunk, whole and undamaged. Raises BadTransferError."""
    if not HEADER_BYTES < len(payload) <= HEADER_BYTES + limits.CHUNK_BYTES_MAX:
        most = HEADER_BYTES + limits.CHUNK_BYTES_MAX
        raise BadTransferError(f"chunk: expected {HEADER_BYTES + 1} to {most} bytes, got {len(payload)}")
    magic, version, flags, high, low, number, length, crc = _HEADER.unpack_from(payload)
    if (magic, version, flags) != (MAGIC, VERSION, 0):
        raise BadTransferError(f"chunk: expected {MAGIC!r}, version {VERSION}, flags 0, got {payload[:4]!r}")
    data = memoryview(payload)[HEADER_BYTES:]
    if length != len(data):
        raise BadTransferError(f"chunk {number}: expected {length} bytes, got {len(data)}")
    if zlib.crc32(data, zlib.crc32(memoryview(payload)[:_COVERED])) != crc:
        raise BadTransferError(f"chunk {number}: damaged on the way")
    return CheckedChunk(f"{high:016x}{low:016x}", number, data, crc)
