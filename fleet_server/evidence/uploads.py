"""Uploads that are under way: what is known of them, and the ports to where they lie until they are whole.

Order is everything: a chunk's bytes are durable (:meth:`Incoming.sync`) before its CRC is
(:meth:`UploadStore.commit`), and only a CRC that is there counts as a chunk that is there.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from broker_config.device_classes import Priority
from broker_config.manifest import Manifest
from broker_config.ranges import Ranges
from fleet_server.access.audit import Place


class UploadError(Exception):
    """What is under way cannot be read or changed now: nothing more is durable than before."""


class Phase(StrEnum):
    """How far an upload is."""

    OPEN = "open"
    WITHDRAWN = "withdrawn"
    """The device cannot read its file any more."""
    FALSE = "false"
    """What the device sent, as it sent it, is not the file of its manifest."""
    DONE = "done"
    """In the store, read again, entered: it has a receipt whenever it asks."""


class Upload(NamedTuple):
    """One file on its way. ``changed_ms``: when anything of it last became durable. ``place``: once it is done.
    ``replicated``: a second copy was read again; None: no second copy is wanted. ``why``: of WITHDRAWN and FALSE.
    """

    upload: str
    device: str
    manifest: Manifest
    envelope: bytes
    certificate: str
    doubts: tuple[str, ...]
    priority: Priority
    via: str
    offered_ms: int
    changed_ms: int
    phase: Phase = Phase.OPEN
    place: Place | None = None
    replicated: bool | None = None
    why: str = ""


class DurableChunk(NamedTuple):
    """A chunk whose bytes are durable. ``crc``: as it came, see :class:`broker_config.transfer.CheckedChunk`. It
    tells which chunk the disk has damaged, and proves nothing: what proves a file are the hashes of its manifest.
    """

    upload: str
    number: int
    crc: int


class UploadStore(Protocol):
    """What is durable of every upload. Any thread may call, one after the other. Everything raises UploadError."""

    def find(self, upload: str) -> Upload | None:
        """None: it was never offered."""

    def unfinished(self) -> Sequence[tuple[Upload, Ranges]]:
        """Those in phase OPEN, and the chunks that are there."""

    def unreplicated(self) -> Sequence[Upload]:
        """Done, and their second copy is still to be made."""

    def crc(self, upload: str, number: int) -> int | None:
        """None: it is not there."""

    def crcs(self, upload: str) -> Sequence[int]:
        """Of a whole upload, in their order."""

    def offered_bytes(self, device: str, *, since_ms: int) -> int:
        """The sizes of all that it has offered since then."""

    def commit(self, opened: Sequence[Upload], chunks: Sequence[DurableChunk], *, now_ms: int) -> None:
        """All of it or nothing; durable once it returns. An upload that is there already is left as it is."""

    def forget(self, upload: str, numbers: Collection[int] | None) -> None:
        """These chunks (None: all) are to come again."""

    def end(self, upload: str, phase: Phase, why: str, *, now_ms: int) -> None:
        """It goes no further; OPEN: it goes on."""

    def done(self, upload: str, place: Place, *, replicated: bool | None, now_ms: int) -> None:
        """It is kept, and the CRCs of its chunks are not needed any more."""


class Incoming(Protocol):
    """Files that are not whole, by their upload's id. One thread, and ``sync`` may be another's. They raise
    UploadError; after a ``sync`` that failed nothing may be believed that was written since the one before, nor what
    was written while it ran.
    """

    def create(self, upload: str, size: int) -> None:
        """An empty file of that size, if there is none; its name is durable once it returns."""

    def write(self, upload: str, offset: int, data: bytes | memoryview) -> None:
        """Not durable yet."""

    def sync(self, upload: str) -> None:
        """What was written is durable."""

    def drop(self, upload: str) -> None:
        """Forget that it was opened; the file stays."""

    def path(self, upload: str) -> Path | None:
        """Where it lies; None if it does not. Any thread."""

    def names(self) -> Sequence[str]:
        """All there are."""

    def remove(self, upload: str) -> None:
        """No error if it is not there."""

    def disk(self) -> tuple[int, int]:
        """Bytes of the file system, and how many of them are free."""
