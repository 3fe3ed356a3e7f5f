"""Evidence in directories: what is on its way, and what is kept under its SHA-256.

``DIRECTORY/incoming/UPLOAD.part``, ``DIRECTORY/sha256/ab/cd/SHA256``: one file system, so that a file that is whole
moves by its name alone. Names are ids and hashes; what a device calls a file never comes here.
"""

import errno
import hashlib
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

from broker_config.ids import HEX64_PATTERN, exact
from broker_config.manifest import UPLOAD_PATTERN
from broker_config.merkle import leaf_hash
from broker_config.transfer import Chunk, checked
from fleet_server.adapters.files import PRIVATE_FILE, make_private_directory, sync_directory
from fleet_server.evidence.content import ContentError, MissingContentError
from fleet_server.evidence.inspection import Seen
from fleet_server.evidence.uploads import UploadError

OPEN_FILES_MAX: Final = 256
PART: Final = ".part"
KEPT_FILE: Final = 0o400
COPY_BYTES: Final = 1024 * 1024
_UPLOAD: Final = re.compile(exact(UPLOAD_PATTERN))
_SHA256: Final = re.compile(exact(HEX64_PATTERN))


class IncomingDirectory:
    """The port :class:`fleet_server.evidence.uploads.Incoming`."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        make_private_directory(directory)
        self._directory = directory
        self._open_lock = Lock()  # of what is open: a descriptor that was closed may be another file's at once
        self._open: OrderedDict[str, int] = OrderedDict()
        self._written: dict[str, tuple[int, int]] = {}

    def create(self, upload: str, size: int) -> None:
        """See the port; sparse: a file system that has no room says so when a chunk is written."""
        path = self._path(upload)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
            try:
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(self._directory)
        except OSError as error:
            raise UploadError(f"incoming: {error.strerror}") from error

    def write(self, upload: str, offset: int, data: bytes | memoryview) -> None:
        """See the port."""
        try:
            with self._open_lock:
                descriptor = self._descriptor(upload)
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], offset + written)
                low, high = self._written.get(upload, (offset, offset))
                self._written[upload] = min(low, offset), max(high, offset + written)
        except OSError as error:
            self.drop(upload)
            raise UploadError(f"incoming: {error.strerror}") from error

    def sync(self, upload: str) -> None:
        """See the port. After an error the file is opened anew: the kernel tells it to each descriptor but once,
        and a duplicate is no other one. What is on the disk leaves the memory: it is read again from the disk only.
        """
        try:
            with self._open_lock:
                descriptor = os.dup(self._descriptor(upload))
                low, high = self._written.pop(upload, (0, 0))
            try:
                os.fdatasync(descriptor)
                if high > low:  # all of the file (0 bytes) would have the disk begin with what came since
                    os.posix_fadvise(descriptor, low, high - low, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.drop(upload)
            raise UploadError(f"incoming: {error.strerror}") from error

    def drop(self, upload: str) -> None:
        """See the port."""
        with self._open_lock:
            self._written.pop(upload, None)
            descriptor = self._open.pop(upload, None)
            if descriptor is not None:
                with suppress(OSError):
                    os.close(descriptor)

    def path(self, upload: str) -> Path | None:
        """See the port."""
        path = self._path(upload)
        return path if path.is_file() else None

    def names(self) -> Sequence[str]:
        """See the port."""
        try:
            found = [each.name.removesuffix(PART) for each in self._directory.iterdir() if each.name.endswith(PART)]
        except OSError as error:
            raise UploadError(f"incoming: {error.strerror}") from error
        return [name for name in found if _UPLOAD.match(name)]

    def remove(self, upload: str) -> None:
        """See the port."""
        self.drop(upload)
        try:
            self._path(upload).unlink(missing_ok=True)
        except OSError as error:
            raise UploadError(f"incoming: {error.strerror}") from error

    def disk(self) -> tuple[int, int]:
        """See the port; what is kept for root is not free."""
        try:
            found = os.statvfs(self._directory)
        except OSError as error:
            raise UploadError(f"incoming: {error.strerror}") from error
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def close(self) -> None:
        """Every file."""
        for upload in list(self._open):
            self.drop(upload)

    def _descriptor(self, upload: str) -> int:
        found = self._open.get(upload)
        if found is not None:
            self._open.move_to_end(upload)
            return found
        while len(self._open) >= OPEN_FILES_MAX:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)
        descriptor = os.open(self._path(upload), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._open[upload] = descriptor
        return descriptor

    def _path(self, upload: str) -> Path:
        assert _UPLOAD.match(upload), upload
        return self._directory / f"{upload}{PART}"


class ContentDirectory:
    """The port :class:`fleet_server.evidence.content.Content`, and how files come into it."""

    def __init__(self, directory: Path, name: str = "store") -> None:
        """Raises OSError."""
        self.name = name
        self._directory = directory / "sha256"
        make_private_directory(self._directory)

    def open(self, sha256: str) -> BinaryIO:
        """See the port."""
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError as error:
            raise MissingContentError(f"{self.name} has no {sha256}") from error
        except OSError as error:
            raise _told(self.name, error) from error

    def exists(self, sha256: str) -> bool:
        """See the port."""
        try:
            self.path(sha256).stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _told(self.name, error) from error
        return True

    def remove(self, sha256: str) -> None:
        """See the port."""
        path = self.path(sha256)
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_directory(path.parent)
        except OSError as error:
            raise _told(self.name, error) from error

    def names(self) -> Iterator[str]:
        """See the port."""
        try:
            yield from (name for _, _, files in os.walk(self._directory, onerror=_raised) for name in files)
        except OSError as error:
            raise _told(self.name, error) from error

    def keep(self, file: Path, sha256: str) -> None:
        """Move *file*, of the same file system and read again, to its place; durable once it returns. A copy that is
        there already is replaced, because this one is known to be good.

        Raises:
            ContentError: it is where it was.
        """
        path = self.path(sha256)
        try:
            self._make_place(path.parent)
            with file.open("rb") as opened:
                os.fchmod(opened.fileno(), KEPT_FILE)
                os.fsync(opened.fileno())
            file.replace(path)
            sync_directory(path.parent)
            sync_directory(file.parent)
        except OSError as error:
            raise _told(self.name, error) from error

    def copy(self, source: BinaryIO, sha256: str, chunk_bytes: int) -> Seen:
        """Write a copy of *source*, durable, and read that again; it is at its place only if its hash is *sha256*.

        Raises:
            ContentError: there is no copy.
        """
        path = self.path(sha256)
        partial = path.with_name(f".{sha256}.{secrets.token_hex(4)}")
        try:
            self._make_place(path.parent)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, KEPT_FILE)
            with os.fdopen(descriptor, "wb") as file:
                while data := source.read(COPY_BYTES):
                    file.write(data)
                file.flush()
                os.fsync(descriptor)
            seen = read_again(partial, chunk_bytes)
            if seen.sha256 == sha256:
                partial.replace(path)
                sync_directory(path.parent)
        except OSError as error:
            raise _told(self.name, error) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return seen

    def path(self, sha256: str) -> Path:
        """Where it lies if it is there."""
        assert _SHA256.match(sha256), sha256
        return self._directory / sha256[:2] / sha256[2:4] / sha256

    def _make_place(self, directory: Path) -> None:
        if directory.is_dir():
            return
        make_private_directory(directory)
        for parent in (directory, directory.parent, self._directory):
            sync_directory(parent)


def read_again(path: Path, chunk_bytes: int) -> Seen:
    """What is on the disk, and not what the kernel remembers of it; durable before it is read. Raises OSError."""
    whole, leaves, size = hashlib.sha256(), [], 0
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        buffer = memoryview(bytearray(chunk_bytes))
        while got := _fill(file, buffer):
            data = buffer[:got]
            whole.update(data)
            leaves.append(leaf_hash(data))
            size += got
    return Seen(size, whole.hexdigest(), leaves)


def crcs_of(path: Path, upload: str, chunk_bytes: int) -> list[int]:
    """Of each chunk as it is now, comparable with those of the chunks as they came. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(chunk_bytes))
        found: list[int] = []
        while got := _fill(file, buffer):
            found.append(checked(Chunk(upload, len(found), buffer[:got])).crc)
    return found


def _fill(file: BinaryIO, buffer: memoryview) -> int:
    """As much as there is of it: a read may give less than was asked for."""
    got = 0
    while got < len(buffer) and (read := file.readinto(buffer[got:])):  # type: ignore[attr-defined]
        got += read
    return got


def _raised(error: OSError) -> None:
    raise error


def _told(name: str, error: OSError) -> ContentError:
    return ContentError(f"{name}: {error.strerror or errno.errorcode.get(error.errno or 0, 'failed')}")
