"""A folder of files to upload: what lies there, parts of it, its removal. Only plain files are ever opened."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge_agent.adapters.files import write_durably
from edge_agent.folders import MARK_BYTES_MAX, STOP_NAME, Marks

ENTRIES_MAX: Final = 20_000
"""Looked at in one folder at a time; what is beyond it is found when others are gone."""
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Entry(NamedTuple):
    """A plain file."""

    name: str
    inode: int


class Stat(NamedTuple):
    """What changes when a file does."""

    inode: int
    size: int
    mtime_ns: int


class NotAFileError(OSError):
    """A directory, a link, a device, or a name that is a path."""


def entries(folder: Path) -> list[Entry]:
    """Plain files, hidden ones too, in no order. Raises OSError."""
    out: list[Entry] = []
    with os.scandir(folder) as found:
        for entry in found:
            if len(out) >= ENTRIES_MAX:
                break
            if entry.is_file(follow_symlinks=False):
                out.append(Entry(entry.name, entry.inode()))
    return out


@contextlib.contextmanager
def opened(folder: Path, name: str) -> Iterator[int]:
    """A descriptor to read from. Raises OSError, NotAFileError."""
    if "/" in name or name in {"", ".", ".."}:
        raise NotAFileError(f"expected a name, got {name!r}")
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = os.open(name, _OPEN, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAFileError(f"expected a plain file, got {name!r}")
        yield descriptor
    finally:
        os.close(descriptor)


def stat_of(descriptor: int) -> Stat:
    """Of an open file."""
    found = os.fstat(descriptor)
    return Stat(found.st_ino, found.st_size, found.st_mtime_ns)


def look_at(folder: Path, name: str) -> Stat | None:
    """None: it is not there, or no plain file."""
    try:
        with opened(folder, name) as descriptor:
            return stat_of(descriptor)
    except OSError:
        return None


def marks(folder: Path, name: str) -> Marks:
    """What a recorder wrote; what cannot be read says nothing."""
    try:
        with opened(folder, name) as descriptor:
            return msgspec.json.decode(os.read(descriptor, MARK_BYTES_MAX), type=Marks)
    except (OSError, msgspec.MsgspecError):
        return Marks()


def remove(folder: Path, name: str) -> None:
    """Durably; one that is not there is fine. Raises OSError."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)


def part(descriptor: int, offset: int, size: int) -> bytes:
    """Bytes of an open file, fewer only at its end. Raises OSError."""
    out = os.pread(descriptor, size, offset)
    while out and len(out) < size:
        more = os.pread(descriptor, size - len(out), offset + len(out))
        if not more:
            break
        out += more
    return out


def room(folder: Path) -> int:
    """Free bytes of the disk that it is on. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def say_stop(folder: Path, why: str) -> None:
    """Tell who writes there to write no more. Raises OSError."""
    write_durably(folder / STOP_NAME, msgspec.json.encode({"why": why}) + b"\n", 0o644)


def say_go(folder: Path) -> None:
    """They may again. Raises OSError."""
    (folder / STOP_NAME).unlink(missing_ok=True)
