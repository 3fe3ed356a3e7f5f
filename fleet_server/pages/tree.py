"""The fleet by place: counts of each node with all below it, in one pass over what is counted. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from fleet_server.alerting.view import Alert
from fleet_server.outbound.happenings import Severity
from fleet_server.registry.model import PATH_SEPARATOR, PlacedNode, Tally
from fleet_server.registry.tree import is_below

_FACTS: Final = ("devices", "connected", "reporting", "healthy")
_COUNTS: Final = (*_FACTS, "alarms", "warnings")
_OPEN: Final = {Severity.ALARM: "alarms", Severity.WARNING: "warnings"}


class Row(NamedTuple):
    """Of a node and all below it; without a node: of what has no place. ``depth``: 0 is the top of what is shown."""

    placed: PlacedNode | None
    depth: int
    devices: int
    connected: int
    reporting: int
    healthy: int
    alarms: int
    warnings: int


def rows(nodes: Sequence[PlacedNode], tallies: Iterable[Tally], alerts: Iterable[Alert]) -> list[Row]:
    """By path, each behind what it stands below; what has no place is last, if there is any."""
    facts = ((tally.path, {fact: getattr(tally, fact) for fact in _FACTS}) for tally in tallies)
    open_ = ((alert.org, {_OPEN[alert.severity]: 1}) for alert in alerts if alert.severity in _OPEN)
    counts = with_below(chain(facts, open_))
    found = [_row(placed, depth, counts.get(placed.path)) for placed, depth in depths(nodes)]
    return [*found, *([_row(None, 0, counts[""])] if "" in counts else ())]


def with_below(counted: Iterable[tuple[str, Mapping[str, int]]]) -> dict[str, Counter[str]]:
    """What is counted at each path, by path with all below it."""
    counts: dict[str, Counter[str]] = {}
    for at, found in counted:
        for path in _upwards(at):
            counts.setdefault(path, Counter()).update(found)
    return counts


def depths(nodes: Sequence[PlacedNode]) -> list[tuple[PlacedNode, int]]:
    """Each with how far it is below the top of *nodes*."""
    tops = min((placed.path.count(PATH_SEPARATOR) for placed in nodes), default=0)
    return [(placed, placed.path.count(PATH_SEPARATOR) - tops) for placed in nodes]


def total(found: Iterable[Row]) -> Row:
    """Of the tops, which are all there is."""
    counts: Counter[str] = Counter()
    for row in found:
        if row.depth == 0:
            counts.update({name: getattr(row, name) for name in _COUNTS})
    return _row(None, 0, counts)


def below(found: Iterable[Row], top: PlacedNode) -> list[Row]:
    """Those right below *top*."""
    level = top.path.count(PATH_SEPARATOR) + 1
    return [
        row
        for row in found
        if row.placed is not None
        and row.placed.path.count(PATH_SEPARATOR) == level
        and is_below(row.placed.path, top.path)
    ]


def trail(nodes: Iterable[PlacedNode], path: str) -> list[PlacedNode]:
    """The nodes from the top down to *path*, as far as they are seen."""
    above = set(_upwards(path))
    return [placed for placed in nodes if placed.path in above]


def _upwards(path: str) -> Iterator[str]:
    """*path* and all that it stands below."""
    yield path
    while PATH_SEPARATOR in path:
        path = path.rpartition(PATH_SEPARATOR)[0]
        yield path


def _row(placed: PlacedNode | None, depth: int, counted: Counter[str] | None) -> Row:
    devices, connected, reporting, healthy, alarms, warnings = (
        0 if counted is None else counted[name] for name in _COUNTS
    )
    return Row(placed, depth, devices, connected, reporting, healthy, alarms, warnings)
