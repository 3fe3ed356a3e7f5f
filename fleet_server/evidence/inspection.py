"""A file that was read again from where it is kept: is it the one that the device has signed for? Values only."""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from broker_config.manifest import Manifest
from broker_config.merkle import HASH_BYTES, root_of
from broker_config.ranges import Ranges, minus

ALL: Final = "all chunks came as they were sent, and are not the file of the manifest"


class Seen(NamedTuple):
    """What was read: its size, SHA-256, and the hash of each chunk."""

    size: int
    sha256: str
    leaves: Sequence[bytes]


class Verdict(NamedTuple):
    """``bad``: chunks that are not what came; empty and not ``good``: which ones is not known from here."""

    good: bool
    bad: tuple[int, ...] = ()


def verdict(manifest: Manifest, seen: Seen, received: Sequence[bytes]) -> Verdict:
    """*received*: the hashes of the chunks as they came, or as the device says that they are; empty if not known."""
    if is_file_of(manifest, seen):
        return Verdict(good=True)
    bad = tuple(n for n, leaf in enumerate(received) if n >= len(seen.leaves) or seen.leaves[n] != leaf)
    return Verdict(good=False, bad=bad)


def is_file_of(manifest: Manifest, seen: Seen) -> bool:
    """Its size, its hash and its tree."""
    if (seen.size, seen.sha256) != (manifest.size, manifest.sha256):
        return False
    return root_of(seen.leaves).hex() == manifest.root


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
