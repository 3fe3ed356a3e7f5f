"""Roots and proofs are those of RFC 6962: the vectors were made by golang.org/x/mod/sumdb/tlog, another's work."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config import merkle
from fleet_server.access import tlog
from fleet_server.access.tlog import Frontier, Leaves, Node

VECTORS: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("tlog_vectors.json").read_text(encoding="utf-8"))
ROOTS: Final = [bytes.fromhex(text) for text in VECTORS["roots"]]
SIZES: Final = range(1, len(ROOTS) + 1)


def leaf(index: int) -> bytes:
    return merkle.leaf_hash(f"entry {index}".encode())


def grown(size: int) -> tuple[Frontier, dict[Node, bytes]]:
    """The tree of so many leaves, and all that it stored."""
    frontier = Frontier()
    stored: dict[Node, bytes] = {}
    for index in range(size):
        made = dict(frontier.append(leaf(index)))
        assert [tlog.place(node) for node in made] == list(range(len(stored), len(stored) + len(made)))
        assert not made.keys() & stored.keys(), "a stored hash is stored once"
        stored |= made
    return frontier, stored


STORED: Final = grown(256)[1]


def hashes(siblings: Iterable[Leaves]) -> list[bytes]:
    return [tlog.hash_of(each, STORED) for each in siblings]


def unhex(proof: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in proof]


@pytest.mark.parametrize("size", SIZES)
def test_root(size: int) -> None:
    assert grown(size)[0].root() == ROOTS[size - 1]
    assert tlog.hash_of(Leaves(0, size), STORED) == ROOTS[size - 1]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Frontier().root() == tlog.hash_of(Leaves(0, 0), {})


@pytest.mark.parametrize("size", SIZES)
def test_proofs(size: int) -> None:
    for index in range(size):
        included = unhex(VECTORS["inclusion"][size - 1][index])
        assert hashes(tlog.inclusion(index, size)) == included
        assert tlog.includes(index, size, leaf(index), included, ROOTS[size - 1])
        extended = unhex(VECTORS["consistency"][size - 1][index])
        assert hashes(tlog.consistency(index + 1, size)) == extended
        assert tlog.extends(index + 1, ROOTS[index], size, ROOTS[size - 1], extended)


@pytest.mark.parametrize("size", SIZES)
def test_a_proof_that_is_changed_anywhere_proves_nothing(size: int) -> None:
    root, other = ROOTS[size - 1], b"\x55" * 32
    for index in range(size):
        proof = hashes(tlog.inclusion(index, size))
        for wrong in changed(proof, other):
            assert not tlog.includes(index, size, leaf(index), wrong, root)
        assert not tlog.includes(index, size, other, proof, root)
        assert not tlog.includes(index + size, size, leaf(index), proof, root)
        old, proof = index + 1, hashes(tlog.consistency(index + 1, size))
        for wrong in changed(proof, other):
            assert not tlog.extends(old, ROOTS[index], size, root, wrong)
        assert not tlog.extends(old, other, size, root, proof)
        assert not tlog.extends(old, ROOTS[index], size, other, proof)
        assert not tlog.extends(0, ROOTS[index], size, root, proof)


def changed(proof: list[bytes], other: bytes) -> list[list[bytes]]:
    """One hash replaced, left out, or too many."""
    replaced = [[*proof[:at], other, *proof[at + 1 :]] for at in range(len(proof))]
    return [*replaced, *(proof[:at] + proof[at + 1 :] for at in range(len(proof))), [*proof, other]]


@given(size=st.integers(1, 256), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_tree_goes_on_from_its_frontier(size: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, size))
    frontier = Frontier(cut, [STORED[node] for node in tlog.nodes_of(Leaves(0, cut))])
    for index in range(cut, size):
        frontier.append(leaf(index))
    root = tlog.hash_of(Leaves(0, size), STORED)
    assert frontier.root() == root
    if cut:
        proof = hashes(tlog.consistency(cut, size))
        assert len(proof) <= tlog.PROOF_HASHES_MAX
        assert tlog.extends(cut, tlog.hash_of(Leaves(0, cut), STORED), size, root, proof)


@pytest.mark.parametrize(("size", "hashes"), [(1, []), (0, [b"\x00" * 32]), (2, [b"short"])])
def test_a_frontier_that_cannot_be_is_refused(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Frontier(size, hashes)
