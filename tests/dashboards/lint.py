"""What is wrong with a dashboard before anybody has looked at it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Final

from broker_config.device_classes import known_streams
from dashboards.influxql import TAGS
from dashboards.layout import GRID_WIDTH
from dashboards.panels import DATASOURCE_UID
from dashboards.units import COUNT, SHARE, grafana_units
from fleet_server.standing.measures import MEASURES
from tests.dashboards.asked import Json, panels

MEASURED: Final[Mapping[str, frozenset[str]]] = {
    **known_streams(),
    **{measure.name: frozenset(measure.names) for measure in MEASURES},
}
"""Measurement -> its fields, as the declaring tables have them."""
UNITS: Final = grafana_units() | {COUNT, SHARE}
_MEASUREMENT: Final = re.compile(r'FROM "([^"]+)"')
_ALIAS: Final = re.compile(r'AS "([^"]+)"')
_NAME: Final = re.compile(r'"([^"]+)"')


def faults(dashboard: Json) -> list[str]:
    """Everything that is wrong, a line each."""
    return [
        *_ids(dashboard),
        *_overlaps(dashboard["panels"]),
        *(fault for row in dashboard["panels"] if row["type"] == "row" for fault in _overlaps(row["panels"])),
        *(f"{panel['title']}: {fault}" for panel in panels(dashboard) for fault in _panel(panel)),
        *(
            f"variable {variable['name']}: {fault}"
            for variable in dashboard["templating"]["list"]
            for fault in (*_source(variable), *_query(variable["query"]))
        ),
    ]


def _ids(dashboard: Json) -> Iterator[str]:
    ids = [panel["id"] for panel in (*dashboard["panels"], *panels(dashboard)) if panel["type"] == "row"]
    ids += [panel["id"] for panel in panels(dashboard)]
    yield from (f"id {number}: {times} panels have it" for number, times in Counter(ids).items() if times > 1)


def _overlaps(beside: list[Json]) -> Iterator[str]:
    for panel in beside:
        at = panel["gridPos"]
        if at["x"] < 0 or at["x"] + at["w"] > GRID_WIDTH:
            yield f"{panel['title']}: stands outside of the grid"
    for one, other in combinations(beside, 2):
        if _meet(one["gridPos"], other["gridPos"]):
            yield f"{one['title']}: overlaps {other['title']}"


def _meet(one: Json, other: Json) -> bool:
    return all(one[a] < other[a] + other[b] and other[a] < one[a] + one[b] for a, b in (("x", "w"), ("y", "h")))


def _panel(panel: Json) -> Iterator[str]:
    defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
    yield from (f"has no {name}" for name in ("title", "description", "links") if not panel.get(name))
    yield from _source(panel)
    if not defaults.get("thresholds", {}).get("steps"):
        yield "has no thresholds"
    set_units = [set_to["value"] for field in overrides for set_to in field["properties"] if set_to["id"] == "unit"]
    yield from (f"unit {unit!r}: unknown" for unit in (defaults.get("unit"), *set_units) if unit not in UNITS)
    for target in panel["targets"]:
        yield from _source(target)
        yield from _query(target["query"])
    if len({target["refId"] for target in panel["targets"]}) < len(panel["targets"]):
        yield "two queries have one refId"
    named = {name for target in panel["targets"] for name in _NAME.findall(target["query"])}
    columns = (field["matcher"]["options"] for field in overrides)
    yield from (f"column {column!r}: not in a query" for column in columns if column not in named)


def _source(asking: Json) -> Iterator[str]:
    uid = asking["datasource"]["uid"]
    if uid != DATASOURCE_UID:
        yield f"data source: expected {DATASOURCE_UID}, got {uid!r}"


def _query(query: str) -> Iterator[str]:
    measurements = set(_MEASUREMENT.findall(query))
    yield from (f"measurement {name!r}: nobody declares it" for name in measurements - MEASURED.keys())
    fields = frozenset().union(*(MEASURED.get(name, frozenset()) for name in measurements))
    known = measurements | fields | set(TAGS) | set(_ALIAS.findall(query))
    yield from (f"{name!r}: no field of {measurements}, no tag" for name in set(_NAME.findall(query)) - known)
