"""The contents of evidence under their SHA-256: the port of what custody needs of a store."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol


class ContentError(Exception):
    """The store cannot be read or changed now; nothing is known of the content."""


class MissingContentError(ContentError):
    """The store works, and has no such content."""


class Content(Protocol):
    """One copy of every content. Any thread may call.

    Trusted to keep what it has; never to say what it is: who reads computes the hash again.
    """

    @property
    def name(self) -> str:
        """Which copy it is, such as ``store`` or ``replica``."""

    def open(self, sha256: str) -> BinaryIO:
        """To be read from its beginning, and closed. Raises MissingContentError, ContentError."""

    def exists(self, sha256: str) -> bool:
        """Raises ContentError."""

    def remove(self, sha256: str) -> None:
        """Durable once it returns; no error if it is not there. Raises ContentError."""

    def names(self) -> Iterator[str]:
        """SHA-256 of everything that is there, and what else lies about by the name it has. Raises ContentError."""
