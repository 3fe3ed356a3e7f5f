"""The body of a log row: one commit's payloads as received, compressed as one.

Layout before zstd: count u32, heads' bytes u32, lengths u32 each, newest time i64 each (ms since the epoch,
:data:`NO_TIME` where nobody set the clock), heads (devices, then keys, a line each), payloads.
All little-endian.
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import zstandard

from broker_config.telemetry import CONTENT_JSON, CONTENT_ZLIB, BadBatchError, Record, decode

ZSTD_LEVEL: Final = 1
_ZLIB_BYTE: Final = 0x78  # a JSON body begins with { or white space
_HEAD: Final = struct.Struct("<II")
assert sys.byteorder == "little", "the arrays below are written as the machine has them"


class LogRow:
    """One commit, decompressed; lists are parallel, payloads are cut out when asked for."""

    __slots__ = ("_body", "_starts", "devices", "keys", "newest_ms")

    def __init__(self, body: bytes) -> None:
        count, heads_bytes = _HEAD.unpack_from(body)
        at = _HEAD.size
        lengths = array("I", body[at : at + 4 * count])
        at += 4 * count
        self.newest_ms = array("q", body[at : at + 8 * count])
        at += 8 * count
        heads = body[at : at + heads_bytes].decode("ascii").split("\n")
        self.devices = heads[:count]
        self.keys = heads[count:]
        self._starts = list(accumulate(lengths, initial=at + heads_bytes))
        self._body = body

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def size_bytes(self) -> int:
        """About what it occupies in memory."""
        return len(self._body) + 200 * len(self.keys)

    def payload(self, place: int) -> bytes:
        """The bytes of one record as they came."""
        return self._body[self._starts[place] : self._starts[place + 1]]


def pack(devices: Sequence[str], keys: Sequence[str], payloads: Sequence[bytes], newest_ms: Sequence[int]) -> bytes:
    """The body of a log row, not yet compressed."""
    heads = "\n".join((*devices, *keys)).encode("ascii")
    return b"".join(
        (
            _HEAD.pack(len(payloads), len(heads)),
            array("I", map(len, payloads)).tobytes(),
            array("q", newest_ms).tobytes(),
            heads,
            *payloads,
        )
    )


def compressor() -> zstandard.ZstdCompressor:
    """For one thread at a time."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=False)


def unpack(blob: bytes) -> LogRow:
    """Read a log row as stored; any thread."""
    return LogRow(zstandard.ZstdDecompressor().decompress(blob))


def record_of(payload: bytes) -> Record:
    """Decode what was admitted once. Raises BadBatchError."""
    return decode(payload, CONTENT_ZLIB if payload[0] == _ZLIB_BYTE else CONTENT_JSON)


def record_if_read(payload: bytes) -> Record | None:
    """The record; None if an older contract admitted what this one refuses. Its bytes stay where they are."""
    try:
        return record_of(payload)
    except BadBatchError:
        return None
