"""The device's certificate and key as pairs of files, and how a new pair takes the old one's place. Plans only.

A renewal puts the new pair beside the old one, key first, and the agent tries the new one first. Only when that has
connected once does it take the old one's place, by copying: at every moment one of the two pairs is whole. Whoever
finds a new pair half copied copies it again.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

RENEW_AT: Final = 2 / 3
RENEW_SPREAD: Final = 0.1
"""Of a certificate's life: devices that were enrolled together do not all renew together."""
NEXT: Final = ".next"
SECRET: Final = 0o600
PUBLIC: Final = 0o644


class Pair(NamedTuple):
    """A certificate and its key, as paths."""

    cert_file: Path
    key_file: Path

    @property
    def next(self) -> "Pair":
        """Where the pair is that is to follow this one."""
        return Pair(*(file.with_name(f"{file.stem}{NEXT}{file.suffix}") for file in self))


@dataclass(frozen=True, slots=True)
class Write:
    """Replace *path*, durably."""

    path: Path
    data: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Take *path* away; one that is not there is no fault."""

    path: Path


def put_next(pair: Pair, *, cert: bytes, key: bytes) -> Iterator[Write | Remove]:
    """Put a new pair beside *pair*: whole once the last step is done, and nobody looks at it before."""
    yield Remove(pair.next.cert_file)
    yield Write(pair.next.key_file, key, SECRET)
    yield Write(pair.next.cert_file, cert, PUBLIC)


def follow(pair: Pair, *, cert: bytes, key: bytes) -> Iterator[Write | Remove]:
    """Let the next pair, whose bytes these are, take the place of *pair*: may be done again after each step."""
    yield Write(pair.key_file, key, SECRET)
    yield Write(pair.cert_file, cert, PUBLIC)
    yield Remove(pair.next.cert_file)
    yield Remove(pair.next.key_file)


def due_s(*, serial: int, not_before_s: float, not_after_s: float) -> float:
    """When a certificate is to be renewed, seconds since the epoch: the same for each time it is asked."""
    jitter = hashlib.sha256(b"%x" % serial).digest()[0] / 256
    return not_before_s + (not_after_s - not_before_s) * (RENEW_AT + RENEW_SPREAD * jitter)
