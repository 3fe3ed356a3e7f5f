"""A file that was read again from where it is kept: is it the one that the device has signed for? Values only."""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, TypeVar

from broker_config.manifest import Manifest
from broker_config.merkle import HASH_BYTES, root_of
from broker_config.ranges import Ranges, minus

T = TypeVar("T", bytes, int)

ALL: Final = "all chunks came as they were sent, and are not the file of the manifest"


class Seen(NamedTuple):
    """What was read: its size, SHA-256, and the hash of each chunk."""

    size: int
    sha256: str
    leaves: Sequence[bytes]


def is_file_of(manifest: Manifest, seen: Seen) -> bool:
    """Its size, its hash and its tree."""
    if (seen.size, seen.sha256) != (manifest.size, manifest.sha256):
        return False
    return root_of(seen.leaves).hex() == manifest.root


def differing(expected: Sequence[T], found: Sequence[T]) -> tuple[int, ...]:
    """The chunks whose hash, or CRC, is not as expected, or that are not there."""
    return tuple(n for n, each in enumerate(expected) if n >= len(found) or found[n] != each)


def are_leaves_of(manifest: Manifest, hashes: bytes) -> bool:
    """Whether these, one behind the other, are the hashes that the manifest's root was made of."""
    return len(hashes) == manifest.chunks * HASH_BYTES and root_of(split(hashes)).hex() == manifest.root


def split(hashes: bytes) -> list[bytes]:
    """One behind the other -> each."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def missing(held: Ranges, chunks: int, ranges_max: int) -> tuple[Ranges, bool]:
    """What is not held of 0 to *chunks* - 1, lowest first, in so many ranges; and whether there is more above."""
    gaps = minus(((0, chunks - 1),), held)
    return gaps[:ranges_max], len(gaps) > ranges_max


def without(held: Ranges, numbers: Collection[int]) -> Ranges:
    """*held* without these."""
    return minus(held, ((number, number) for number in numbers))
