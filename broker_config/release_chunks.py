"""A release's files over MQTT, for who cannot reach the devices' listener: a window is asked for on ``up/release``,
and comes on ``dn/chunk``. No file is touched here.

The server remembers nothing of it: a device asks for bytes of a path, as the listener has it, and for the next ones
once these have come. Nobody vouches for an answer, nor needs to: TUF's client checks what comes, over whatever way.

A part is binary: a header of 28 bytes, big-endian: magic, version, flags (1: there is no such file), the id of what
was asked, its offset in the file, the file's size, its length, CRC-32 over the header before it and the data. CRC-32
as zlib has it, because it is in the agent's memory already, and an upload's chunk has the same.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from broker_config import limits
from broker_config.ids import ContractError
from broker_config.releases import METADATA_PATH, TARGETS_PATH, is_metadata_name, is_stored_path
from broker_config.telemetry import Hex
from broker_config.text import shown

CONTENT_PART: Final = "application/vnd.fieldfleet.release"
MAGIC: Final = b"FR"
VERSION: Final = 1
ABSENT: Final = 1
"""The flag of an answer that there is no such file."""
PATH_CHARS_MAX: Final = 256
ASK_BYTES_MAX: Final = 1_024
ROOT: Final = "/releases/"
METADATA: Final = f"{METADATA_PATH}/".removeprefix(ROOT)
TARGETS: Final = f"{TARGETS_PATH}/".removeprefix(ROOT)

_HEADER: Final = struct.Struct(">2sBBQIIII")
HEADER_BYTES: Final = _HEADER.size
_COVERED: Final = HEADER_BYTES - 4
PART_BYTES_MAX: Final = HEADER_BYTES + limits.RELEASE_CHUNK_BYTES_MAX


class BadReleasePartError(ContractError):
    """Not a question or a part of this contract, or damaged on the way."""


class AskRelease(Struct, frozen=True, tag_field="t", tag="release"):
    """``up/release``: ``length`` bytes of ``path`` from ``offset`` on. ``path``: ``metadata/NAME`` or
    ``targets/STORED``, as below the listener's ``/releases/``. ``id``: in each part of the answer.
    """

    v: Literal[1]
    id: Hex
    path: Annotated[str, Meta(min_length=1, max_length=PATH_CHARS_MAX)]
    offset: Annotated[int, Meta(ge=0, le=limits.RELEASE_BYTES_MAX)]
    length: Annotated[int, Meta(ge=1, le=limits.RELEASE_WINDOW_BYTES_MAX)]


class Part(NamedTuple):
    """``data`` of a file of ``size`` bytes, from ``offset`` on; empty: it ends before. ``absent``: there is none."""

    id: str
    offset: int
    size: int
    data: bytes
    absent: bool = False


_ENCODER: Final = msgspec.json.Encoder()
_ASK: Final = msgspec.json.Decoder(AskRelease)


def encode_ask(ask: AskRelease) -> bytes:
    """Its JSON; fields in the order of their declaration."""
    return _ENCODER.encode(ask)


def decode_ask(payload: bytes) -> AskRelease:
    """Read a question, whose path is one that can be asked for. Raises BadReleasePartError."""
    if len(payload) > ASK_BYTES_MAX:
        raise BadReleasePartError(f"expected at most {ASK_BYTES_MAX} bytes, got {len(payload)}")
    try:
        payload.decode()  # the decoder skips what it does not know without a look
        ask = _ASK.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadReleasePartError(shown(error)) from error
    if not is_askable(ask.path):
        raise BadReleasePartError(f"path: expected {METADATA}NAME or {TARGETS}STORED, got {shown(ask.path)!r}")
    return ask


def is_askable(path: str) -> bool:
    """Whether *path* can be a file of a release; nothing that leads elsewhere is."""
    if path.startswith(METADATA):
        return is_metadata_name(path.removeprefix(METADATA))
    return path.startswith(TARGETS) and is_stored_path(path.removeprefix(TARGETS))


def parts_of(ask: AskRelease, size: int, data: bytes) -> Iterator[Part]:
    """The answer. *data*: what the file, of *size* bytes, has of the window; empty if it ends before."""
    most = limits.RELEASE_CHUNK_BYTES_MAX
    for at in range(0, max(1, len(data)), most):
        yield Part(ask.id, ask.offset + at, size, data[at : at + most])


def encode_part(part: Part) -> bytes:
    """The message. Raises BadReleasePartError: more than a part may have."""
    if len(part.data) > limits.RELEASE_CHUNK_BYTES_MAX:
        raise BadReleasePartError(
            f"part: expected at most {limits.RELEASE_CHUNK_BYTES_MAX} bytes, got {len(part.data)}"
        )
    flags = ABSENT if part.absent else 0
    head = _HEADER.pack(MAGIC, VERSION, flags, int(part.id, 16), part.offset, part.size, len(part.data), 0)[:_COVERED]
    return b"".join((head, zlib.crc32(part.data, zlib.crc32(head)).to_bytes(4, "big"), part.data))


def decode_part(payload: bytes) -> Part:
    """Read a part, whole and undamaged. Raises BadReleasePartError."""
    if not HEADER_BYTES <= len(payload) <= PART_BYTES_MAX:
        raise BadReleasePartError(f"part: expected {HEADER_BYTES} to {PART_BYTES_MAX} bytes, got {len(payload)}")
    magic, version, flags, asked, offset, size, length, crc = _HEADER.unpack_from(payload)
    if (magic, version) != (MAGIC, VERSION) or flags not in {0, ABSENT}:
        raise BadReleasePartError(f"part: expected {MAGIC!r}, version {VERSION}, flags 0 or 1, got {payload[:4]!r}")
    data = payload[HEADER_BYTES:]
    if length != len(data):
        raise BadReleasePartError(f"part at {offset}: expected {length} bytes, got {len(data)}")
    if zlib.crc32(data, zlib.crc32(payload[:_COVERED])) != crc:
        raise BadReleasePartError(f"part at {offset}: damaged on the way")
    return Part(f"{asked:016x}", offset, size, data, flags == ABSENT)
