"""The Merkle tree of a log (RFC 6962 section 2): hashes, roots, and proofs with their verification. Values only.

A log keeps the hash of every perfect subtree once it is complete, two for each leaf on average, and changes none
afterwards. Every root and proof is folded from those: :func:`nodes_of` names what has to be read, so that a store can
read it at once.

Whoever has no stored hashes uses :class:`Frontier`: the root of leaves that pass by, in memory of 64 hashes.

Sources: https://www.rfc-editor.org/rfc/rfc6962, and RFC 9162 sections 2.1.3.2 and 2.1.4.2 for the verification.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from broker_config.merkle import EMPTY_ROOT, HASH_BYTES, node_hash

PROOF_HASHES_MAX: Final = 64
"""Of any proof in a log of less than 2^63 leaves; so much is read of one, and no more."""


class Node(NamedTuple):
    """A perfect subtree: leaves ``number * 2**level`` and on, ``2**level`` of them."""

    level: int
    number: int


class Leaves(NamedTuple):
    """``begin <= leaf < end``, one subtree of the tree's own split, so never empty."""

    begin: int
    end: int


class Frontier:
    """The perfect subtrees of the leaves so far, largest first: sizes are the bits of :attr:`size`."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Go on behind *size* leaves, whose subtrees have *hashes*, as :meth:`hashes` gave them.

        Raises:
            ValueError: not as many hashes as *size* has bits, or none of 32 bytes.
        """
        self.size = size
        self._hashes = list(hashes)
        if len(self._hashes) != size.bit_count() or any(len(each) != HASH_BYTES for each in self._hashes):
            raise ValueError(f"expected {size.bit_count()} hashes of {HASH_BYTES} bytes")

    def append(self, leaf: bytes) -> list[tuple[Node, bytes]]:
        """Add a leaf's hash; every subtree that it completes, the leaf itself first."""
        made = [(Node(0, self.size), leaf)]
        level = 0
        while self.size >> level & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            level += 1
            made.append((Node(level, self.size >> level), leaf))
        self._hashes.append(leaf)
        self.size += 1
        return made

    def hashes(self) -> tuple[bytes, ...]:
        """Of the subtrees, largest first."""
        return tuple(self._hashes)

    def root(self) -> bytes:
        """Of all leaves so far."""
        return _folded(self._hashes) if self._hashes else EMPTY_ROOT


def place(node: Node) -> int:
    """Which of all stored hashes *node* is, in the order in which appending makes them, from 0."""
    last = ((node.number + 1) << node.level) - 1  # the leaf that completed it
    return 2 * last - last.bit_count() + node.level


def nodes_of(leaves: Leaves) -> tuple[Node, ...]:
    """The perfect subtrees that make up *leaves*, largest first; none if there are no leaves."""
    nodes: list[Node] = []
    at = leaves.begin
    while at < leaves.end:
        level = (leaves.end - at).bit_length() - 1
        nodes.append(Node(level, at >> level))
        at += 1 << level
    return tuple(nodes)


def hash_of(leaves: Leaves, held: Mapping[Node, bytes]) -> bytes:
    """The hash of *leaves* from those of :func:`nodes_of`. Raises KeyError: one is not in *held*."""
    hashes = [held[node] for node in nodes_of(leaves)]
    return _folded(hashes) if hashes else EMPTY_ROOT


def inclusion(index: int, size: int) -> tuple[Leaves, ...]:
    """What proves leaf *index* to be in a tree of *size*, nearest first."""
    assert 0 <= index < size
    begin, end = 0, size
    siblings: list[Leaves] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            siblings.append(Leaves(middle, end))
            end = middle
        else:
            siblings.append(Leaves(begin, middle))
            begin = middle
    return tuple(reversed(siblings))


def consistency(old: int, size: int) -> tuple[Leaves, ...]:
    """What proves a tree of *old* leaves to be the beginning of one of *size*; nothing if they are the same."""
    assert 0 < old <= size
    begin, end = 0, size
    shared = True  # the old tree is this subtree, and whoever asks has its hash
    siblings: list[Leaves] = []
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            siblings.append(Leaves(middle, end))
            end = middle
        else:
            siblings.append(Leaves(begin, middle))
            begin, shared = middle, False
    if not shared:
        siblings.append(Leaves(begin, end))
    return tuple(reversed(siblings))


def includes(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether *proof* shows that *leaf* is number *index* of the *size* leaves under *root*."""
    if not 0 <= index < size:
        return False
    number, last, made = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if number & 1 or number == last:
            made = node_hash(sibling, made)
            while number and not number & 1:
                number, last = number >> 1, last >> 1
        else:
            made = node_hash(made, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and made == root


def extends(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether *proof* shows that the tree under *root* begins with the one under *old_root*."""
    if old == size:
        return not proof and old_root == root
    if not 0 < old < size:
        return False
    path = list(proof)
    if old.bit_count() == 1:  # a perfect subtree of the new one, so its hash is not repeated
        path.insert(0, old_root)
    if not path:
        return False
    number, last = old - 1, size - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old_made = made = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            old_made, made = node_hash(sibling, old_made), node_hash(sibling, made)
            while number and not number & 1:
                number, last = number >> 1, last >> 1
        else:
            made = node_hash(made, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and old_made == old_root and made == root


def _split(size: int) -> int:
    """The largest power of two below *size*: how many leaves are on the left."""
    return 1 << ((size - 1).bit_length() - 1)


def _folded(hashes: Sequence[bytes]) -> bytes:
    folded = hashes[-1]
    for left in reversed(hashes[:-1]):
        folded = node_hash(left, folded)
    return folded
