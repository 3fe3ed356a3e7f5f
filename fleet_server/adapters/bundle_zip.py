"""Writes a bundle as a zip that comes part by part, from members in memory and contents of a store.

Everything is stored, not deflated: whoever reads it unpacks nothing, and a film gets no smaller. Same members, same
bytes: no time and no name of this machine is in it.
"""

import hashlib
import io
import stat
import zipfile
from collections.abc import Iterator, Mapping
from typing import Final

from fleet_server.evidence.bundle import Original
from fleet_server.evidence.content import Content, ContentError

PART_BYTES: Final = 256 * 1024
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
MODE: Final = stat.S_IFREG | 0o444


class DamagedContentError(ContentError):
    """What the store gave is not what it was asked for; the bundle ends in the middle of it."""


class _Sink(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def zipped(members: Mapping[str, bytes | Original], store: Content) -> Iterator[bytes]:
    """The zip's bytes. An original is hashed as it passes, so that none is given out as what it is not.

    Raises:
        ContentError: an original cannot be read; DamagedContentError: it is not the one that was entered.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as file:
        for name, member in members.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr, info.create_system = MODE << 16, 3
            info.file_size = len(member) if isinstance(member, bytes) else member.size
            with file.open(info, "w") as out:
                for part in (member,) if isinstance(member, bytes) else _original(name, member, store):
                    out.write(part)
                    yield sink.taken()
    yield sink.taken()


def _original(name: str, wanted: Original, store: Content) -> Iterator[bytes]:
    total, size = hashlib.sha256(), 0
    try:
        with store.open(wanted.sha256) as file:
            while part := file.read(PART_BYTES):
                total.update(part)
                size += len(part)
                yield part
    except OSError as error:
        raise ContentError(f"{name}: {error.strerror}") from error
    if total.hexdigest() != wanted.sha256 or size != wanted.size:
        raise DamagedContentError(f"{name}: its content in the store is not what was entered")
