"""Where panels stand on Grafana's grid, and what numbers they have."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from grafana_foundation_sdk.models import dashboard as grafana

GRID_WIDTH: Final = 24

Element: TypeAlias = grafana.Panel | grafana.RowPanel


class Tile(NamedTuple):
    """A panel and its size in units of the grid."""

    panel: grafana.Panel
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Section:
    """A titled row of tiles; a collapsed one asks nothing until it is opened."""

    title: str
    tiles: tuple[Tile, ...]
    collapsed: bool = False


def laid_out(sections: Iterable[Section]) -> list[Element]:
    """Every section below the one before, its tiles from left to right in lines; ids count from 1 in that order."""
    out: list[Element] = []
    top, number = 0, 0
    for section in sections:
        number += 1
        row = grafana.RowPanel(
            title=section.title,
            collapsed=section.collapsed,
            id_val=number,
            grid_pos=grafana.GridPos(h=1, w=GRID_WIDTH, x=0, y=top),
        )
        bottom = _place(section.tiles, top=top + 1, after=number)
        panels = [tile.panel for tile in section.tiles]
        number += len(panels)
        out.append(row)
        if section.collapsed:
            row.panels = panels
            top += 1  # what stands in a collapsed row takes no place below it
        else:
            out.extend(panels)
            top = bottom
    return out


def _place(tiles: Sequence[Tile], *, top: int, after: int) -> int:
    """Give each tile its place and id; the first free line below them."""
    left, line = 0, 0
    for number, tile in enumerate(tiles, after + 1):
        if left + tile.width > GRID_WIDTH:
            left, top, line = 0, top + line, 0
        tile.panel.id_val = number
        tile.panel.grid_pos = grafana.GridPos(h=tile.height, w=tile.width, x=left, y=top)
        left, line = left + tile.width, max(line, tile.height)
    return top + line
