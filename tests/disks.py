"""Small file systems of their own, which can be filled or turn read-only; they need root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FILL_CHUNK_BYTES: Final = 65_536


class Disk:
    """A small file system of its own, mounted on *path*; needs root."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={bytes_max},mode=0700", "tmpfs", str(path))

    def fill(self) -> None:
        """Not a byte more fits."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
            size = FILL_CHUNK_BYTES
            while size:
                try:
                    ballast.write(b"\0" * size)
                except OSError:
                    size //= 2

    def free(self) -> None:
        """What filled it is gone."""
        (self.path / "ballast").unlink(missing_ok=True)

    def read_only(self, on: bool) -> None:
        """Nobody may have a file of it open for writing when it becomes so."""
        self._mount("-o", f"remount,{'ro' if on else 'rw'}", str(self.path))

    def resize(self, bytes_max: int) -> None:
        """What is not written takes no memory, however large it is."""
        self._mount("-o", f"remount,size={bytes_max}", str(self.path))

    def close(self) -> None:
        """Unmount it, whoever still holds a file."""
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)

    @staticmethod
    def _mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def mounted(path: Path, bytes_max: int) -> Iterator[Disk]:
    """One on *path*."""
    disk = Disk(path, bytes_max)
    try:
        yield disk
    finally:
        disk.close()
