"""A file that has come whole: read again, kept, entered, copied, in this order, each safe to repeat.

Whatever ends it in between, the next start begins anew: what is in ``incoming`` is read there, what has moved already
is read where it is kept. Only the last step's result makes a receipt.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from broker_config.text import shown
from fleet_server.access.audit import Place
from fleet_server.evidence.arrival import Arrival, Register
from fleet_server.evidence.content import Content, ContentError
from fleet_server.evidence.inspection import Seen, differing, is_file_of
from fleet_server.evidence.uploads import Incoming, Upload, UploadError, UploadStore
from fleet_server.telemetry.store import StoreError


class Keeping(Content, Protocol):
    """A store that files come into."""

    def path(self, sha256: str) -> Path: ...
    def keep(self, file: Path, sha256: str) -> None: ...


class Copying(Content, Protocol):
    """A store of second copies, on another disk."""

    def copy(self, source: BinaryIO, sha256: str, chunk_bytes: int) -> Seen: ...


class Kept(NamedTuple):
    """``replicated`` None: no second copy is wanted."""

    upload: str
    place: Place
    replicated: bool | None


class Damaged(NamedTuple):
    """``bad``: chunks that are not what came, or are not there; empty: all are as they came, of another file."""

    upload: str
    bad: tuple[int, ...]


class Failed(NamedTuple):
    """To be tried again; nothing is lost."""

    upload: str
    why: str


Finished: TypeAlias = Kept | Damaged | Failed


class Finisher:
    """One thread. ``read_again``: reads a file from the disk; ``crcs_of``: of an upload's chunks, in a file that was
    read again. Both raise OSError.
    """

    def __init__(
        self,
        uploads: UploadStore,
        incoming: Incoming,
        content: Keeping,
        replica: Copying | None,
        register: Register,
        *,
        read_again: Callable[[Path, int], Seen],
        crcs_of: Callable[[Path, str, int], Sequence[int]],
        now_ms: Callable[[], int],
    ) -> None:
        self._uploads = uploads
        self._incoming = incoming
        self._content = content
        self._replica = replica
        self._register = register
        self._read_again = read_again
        self._crcs_of = crcs_of
        self._now_ms = now_ms

    def finish(self, upload: Upload, leaves: Sequence[bytes] = ()) -> Finished:
        """*leaves*: as the device says that they are; empty: as they came."""
        try:
            return self._finish(upload, leaves)
        except (UploadError, ContentError, StoreError, OSError) as error:
            return Failed(upload.upload, shown(error))

    def _finish(self, upload: Upload, leaves: Sequence[bytes]) -> Finished:
        told = upload.manifest
        path = self._incoming.path(upload.upload)
        if path is not None:
            seen = self._read_again(path, told.chunk_bytes)
            if not is_file_of(told, seen):
                return Damaged(upload.upload, self._bad(upload, path, seen, leaves))
            self._content.keep(path, told.sha256)
        elif not self.has(upload):
            return Damaged(upload.upload, tuple(range(told.chunks)))
        place = self._register.verified(_arrival(upload, self._now_ms()))
        return Kept(upload.upload, place, self.replicate(upload))

    def _bad(self, upload: Upload, path: Path, seen: Seen, leaves: Sequence[bytes]) -> tuple[int, ...]:
        if leaves:
            return differing(leaves, seen.leaves)
        came = self._uploads.crcs(upload.upload)
        return differing(came, self._crcs_of(path, upload.upload, upload.manifest.chunk_bytes))

    def enter_again(self, upload: Upload) -> Finished:
        """A done one, whose device asks for its receipt: the register may have come back from a backup without it."""
        try:
            return Kept(
                upload.upload, self._register.verified(_arrival(upload, upload.changed_ms)), upload.replicated
            )
        except StoreError as error:
            try:
                if not self._content.exists(upload.manifest.sha256):
                    return Damaged(upload.upload, tuple(range(upload.manifest.chunks)))
            except ContentError as unknown:
                return Failed(upload.upload, shown(unknown))
            return Failed(upload.upload, shown(error))

    def has(self, upload: Upload) -> bool:
        """Whether the store has this content already, read again now: another device may have brought it, or the
        server ended between the move and the entry.

        Raises:
            ContentError, OSError: it is not known.
        """
        told = upload.manifest
        if not self._content.exists(told.sha256):
            return False
        return is_file_of(told, self._read_again(self._content.path(told.sha256), told.chunk_bytes))

    def replicate(self, upload: Upload) -> bool | None:
        """Make the second copy; False: it is still to be made."""
        if self._replica is None:
            return None
        told = upload.manifest
        try:
            with self._content.open(told.sha256) as source:
                return is_file_of(told, self._replica.copy(source, told.sha256, told.chunk_bytes))
        except (ContentError, OSError):
            return False


def _arrival(upload: Upload, verified_ms: int) -> Arrival:
    return Arrival(
        upload.upload,
        upload.manifest,
        upload.envelope,
        upload.certificate,
        upload.offered_ms,
        verified_ms,
        upload.via,
        upload.doubts,
    )
