"""Hashes of trees as RFC 6962 has them."""

import hashlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from broker_config.merkle import EMPTY_ROOT, leaf_hash, node_hash, root_of


def by_definition(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1: split at the largest power of two below the count."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_a_root_of_leaves_that_pass_by_is_that_of_the_definition(entries: list[bytes]) -> None:
    leaves = [leaf_hash(entry) for entry in entries]
    assert root_of(iter(leaves)) == by_definition(leaves)


def test_nothing_has_the_hash_of_nothing() -> None:
    assert root_of([]) == EMPTY_ROOT


def test_a_leaf_is_no_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(b"\x01" + left + right) != node_hash(left, right)


def test_a_view_has_the_hash_of_its_bytes() -> None:
    assert leaf_hash(memoryview(b"xabc")[1:]) == leaf_hash(b"abc") == hashlib.sha256(b"\0abc").digest()
