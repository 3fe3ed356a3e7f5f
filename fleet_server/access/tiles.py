"""A log as tiles, and proofs of its entries as files, in the C2SP formats. Values only.

A tile is up to 256 hashes side by side: at level 0 of entries, above of full tiles. Whoever has the tiles that a
checkpoint covers can make every proof without asking for one. Entries come in bundles of as many.

Sources: https://c2sp.org/tlog-tiles, https://c2sp.org/tlog-proof.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fleet_server.access.tlog import Leaves

WIDTH: Final = 256
LEVEL_MAX: Final = 6
"""256 hashes at this level are of 2^56 entries, more than any log has."""
PLACE_PATTERN: Final = r"^(?:x[0-9]{3}/){0,5}[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?$"
PROOF: Final = "c2sp.org/tlog-proof@v1"
_PLACE: Final = re.compile(r"((?:x\d{3}/){0,5}\d{3})(?:\.p/([1-9]\d{0,2}))?\Z", re.ASCII)
_LENGTH_BYTES: Final = 2


class TileError(ValueError):
    """Not a tile of any log."""


class Place(NamedTuple):
    """The tile *number* of its level, from 0; ``width``: WIDTH, or of a partial one how many it has."""

    number: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read ``x001/x234/067`` or ``x001/x234/067.p/112``. Raises TileError."""
        found = _PLACE.match(text)
        if found is None:
            raise TileError("expected a place such as x001/067, or x001/067.p/112")
        place = cls(int(found[1].replace("x", "").replace("/", "")), int(found[2] or WIDTH))
        if place.width > WIDTH or place.text() != text:
            raise TileError(f"expected {place.text()}, got {text}")
        return place

    def text(self) -> str:
        """Its end of the URL."""
        parts = [f"{self.number % 1000:03}"]
        above = self.number // 1000
        while above:
            parts.insert(0, f"x{above % 1000:03}")
            above //= 1000
        return "/".join(parts) + ("" if self.width == WIDTH else f".p/{self.width}")


def leaves_of(level: int, place: Place, size: int) -> tuple[Leaves, ...]:
    """What each hash of a tile is of.

    Raises:
        TileError: a tree of *size* has no such tile.
    """
    if not 0 <= level <= LEVEL_MAX:
        raise TileError(f"expected a level of 0 to {LEVEL_MAX}")
    span = WIDTH**level
    first = place.number * WIDTH
    if (first + place.width) * span > size:
        raise TileError(f"{size} entries have no such tile")
    return tuple(Leaves(at * span, (at + 1) * span) for at in range(first, first + place.width))


def bundle(entries: Iterable[bytes]) -> bytes:
    """Entries, each behind its length."""
    return b"".join(part for raw in entries for part in (len(raw).to_bytes(_LENGTH_BYTES), raw))


def proof_text(index: int, hashes: Sequence[bytes], note: str) -> str:
    """A ``.tlog-proof``: that entry *index* is in the log of the checkpoint *note*; *hashes* nearest first."""
    lines = [PROOF, f"index {index}", *(base64.b64encode(each).decode("ascii") for each in hashes)]
    return "\n".join(lines) + "\n\n" + note
