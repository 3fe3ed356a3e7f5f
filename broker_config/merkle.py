"""The Merkle tree's hashes (RFC 6962 section 2), as a file's chunks and a log's entries have them. Values only.

Source: https://www.rfc-editor.org/rfc/rfc6962.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()


def leaf_hash(data: bytes | memoryview) -> bytes:
    """Of an entry, or a chunk. The prefix keeps a leaf from being shown as a node."""
    hashed = hashlib.sha256(b"\x00")
    hashed.update(data)  # not joined: that would copy a chunk
    return hashed.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Of leaves that pass by, in memory of one hash for each bit of their number."""
    subtrees: list[tuple[int, bytes]] = []
    for leaf in leaves:
        level, found = 0, leaf
        while subtrees and subtrees[-1][0] == level:
            found = node_hash(subtrees.pop()[1], found)
            level += 1
        subtrees.append((level, found))
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees.pop()[1]
    while subtrees:
        root = node_hash(subtrees.pop()[1], root)
    return root
