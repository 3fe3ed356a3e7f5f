"""Tiles and proofs as the C2SP formats have them: a stranger makes the root from them."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.access import notes, tiles, tlog
from fleet_server.access.notes import Checkpoint, Signer
from fleet_server.access.tiles import WIDTH, Place, TileError
from fleet_server.access.tlog import Leaves

SIGNER = Signer("example.com/log", bytes(range(32)))
ENTRIES = [f"entry {n}".encode() for n in range(70_000)]


def leaf(raw: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + raw).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def naive(hashes: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it stands there."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return node(naive(hashes[:split]), naive(hashes[split:]))


@pytest.mark.parametrize(
    ("number", "width", "text"),
    [
        (0, WIDTH, "000"),
        (67, WIDTH, "067"),
        (1_234_067, WIDTH, "x001/x234/067"),  # the specification's own example
        (1_000, 112, "x001/000.p/112"),
        (273, 1, "273.p/1"),
    ],
)
def test_a_place_is_written_as_it_is_read(number: int, width: int, text: str) -> None:
    assert Place(number, width).text() == text
    assert Place.parse(text) == (number, width)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "0067",
        "x000/067",
        "x01/067",
        "067/",
        "067.p/0",
        "067.p/01",
        "067.p/256",
        "067.p/300",
        "../000",
        "\u0660\u0660\u0660",  # digits, but not those
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(TileError):
        Place.parse(text)


@given(st.integers(0, 10**15), st.integers(1, WIDTH))
def test_every_place_can_be_read(number: int, width: int) -> None:
    assert Place.parse(Place(number, width).text()) == (number, width)


def test_a_tree_has_the_tiles_that_the_specification_counts() -> None:
    """Of 70,000 entries: 273 full ones and one of 112; above, one full and one of 17; above that, one of 1."""
    for level, place in ((0, "272"), (0, "273.p/112"), (1, "000"), (1, "001.p/17"), (2, "000.p/1")):
        tiles.leaves_of(level, Place.parse(place), 70_000)
    for level, place in (
        (0, "273"),
        (0, "273.p/113"),
        (1, "001"),
        (1, "001.p/18"),
        (2, "000.p/2"),
        (3, "000.p/1"),
        (7, "000"),
    ):
        with pytest.raises(TileError):
            tiles.leaves_of(level, Place.parse(place), 70_000)


def test_the_root_is_made_of_tiles_alone() -> None:
    hashes = [leaf(raw) for raw in ENTRIES]
    made = {}
    for level, place in ((1, "000"), (1, "001.p/17"), (0, "273.p/112")):
        wanted = tiles.leaves_of(level, Place.parse(place), len(hashes))
        made[level, place] = [naive(hashes[each.begin : each.end]) for each in wanted]
    frontier = tlog.Frontier()
    for each in hashes:
        frontier.append(each)
    full = made[1, "000"] + made[1, "001.p/17"]
    top = naive(full[:256])
    rest = node(naive(full[256 : 256 + 16]), node(full[272], naive(made[0, "273.p/112"])))
    assert node(top, rest) == frontier.root()


def test_a_bundle_has_each_entry_behind_its_length() -> None:
    assert tiles.bundle([b"ab", b"", b"c" * 300]) == b"\x00\x02ab\x00\x00\x01\x2c" + b"c" * 300


def test_a_proof_is_checked_with_its_own_lines_alone() -> None:
    entries = ENTRIES[:41]
    frontier = tlog.Frontier()
    held: dict[tlog.Node, bytes] = {}
    for raw in entries:
        held |= dict(frontier.append(leaf(raw)))
    note = SIGNER.sign(Checkpoint("example.com/log", 41, frontier.root()).text())
    hashes = [tlog.hash_of(Leaves(*each), held) for each in tlog.inclusion(23, 41)]
    above, _, below = tiles.proof_text(23, hashes, note).partition("\n\n")
    kind, index, *proof = above.split("\n")
    assert (kind, index) == ("c2sp.org/tlog-proof@v1", "index 23")
    notes.opened(below, SIGNER.verifier)
    checkpoint = notes.checkpoint_of(below)
    path = [base64.b64decode(each) for each in proof]
    assert tlog.includes(23, checkpoint.size, leaf(entries[23]), path, checkpoint.root)
