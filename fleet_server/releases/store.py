"""Ports: where a repository is kept, and what of it devices are given."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class ReleaseStore(Protocol):
    """A repository's files. One at a time changes it (:meth:`holding`); who reads sees each file whole.

    Trusted for being there, not for being right: devices check all of it.
    """

    def holding(self) -> AbstractContextManager[None]:
        """Nobody else changes it meanwhile. Raises OSError."""

    def newest(self, role: str) -> bytes | None:
        """The file of *role* with the highest version; None: there is none. Raises OSError."""

    def versions(self, role: str) -> Sequence[int]:
        """Of *role*, but the timestamp, ascending."""

    def version(self, role: str, version: int) -> bytes | None:
        """The file of that version; None: there is none. Raises OSError."""

    def put(self, role: str, version: int, data: bytes) -> None:
        """Durable once it returns; a timestamp replaces the one before, all else stays. Raises OSError."""

    def has_image(self, path: str, sha256: str) -> bool:
        """Whether the image of a release is there."""

    def put_image(self, path: str, sha256: str, source: Path) -> None:
        """Copy *source*, whose digest has to be *sha256*. Durable once it returns.

        Raises:
            ReleaseError: it is another file; nothing was kept.
            OSError
        """


class Releases(Protocol):
    """What the devices' listener gives. Any thread may call."""

    def metadata(self, name: str) -> bytes | None:
        """A file of metadata by its name; None: there is none. Raises OSError."""

    def image(self, stored: str) -> Path | None:
        """The file of an image by its stored path; None: there is none."""

    def root(self) -> str:
        """The newest root, for a device that enrols; empty: nobody releases here. Raises OSError."""
