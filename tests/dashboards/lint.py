"""What is wrong with a dashboard before anybody has looked at it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Final

from broker_config.device_classes import known_streams, load, names
from dashboards.influxql import TAGS
from dashboards.layout import GRID_WIDTH
from dashboards.panels import DATASOURCE_UID
from dashboards.units import COUNT, MOMENT, SHARE, SPAN, grafana_unit, grafana_units
from fleet_server.standing.measures import HAPPENING, HAPPENING_FIELDS, MEASURES
from tests.dashboards.asked import Json, annotations, panels

MEASURED: Final[Mapping[str, frozenset[str]]] = {
    **known_streams(),
    **{measure.name: frozenset(measure.names) for measure in MEASURES},
    HAPPENING: frozenset(HAPPENING_FIELDS),
}
"""Measurement -> its fields, as the declaring tables have them."""
UNITS: Final = grafana_units() | {COUNT, SHARE, SPAN, MOMENT}
SUFFIX: Final = "suffix: "
TIME: Final = "Time"
_DAYS: Final = re.compile(r" / 86400$")
_YES_NO: Final = grafana_unit("/")
FUNCTIONS: Final = frozenset({"count", "last", "max", "mean", "min", "sum", "time", "fill", "FROM", "AND"})
"""That InfluxDB 1, 2 and 3 document; InfluxDB 3 knows neither INTEGRAL nor SAMPLE, for instance."""
UNKNOWN_TO_3: Final = re.compile(r"\b(SLIMIT|SOFFSET|INTO|CARDINALITY|tz|DISTINCT)\b")
_CALL: Final = re.compile(r"(\w+) ?\(")
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
        *(
            f"annotation {mark['name']}: {fault}"
            for mark in annotations(dashboard)
            for fault in (*_source(mark), *_query(mark["target"]["query"]))
        ),
    ]


def _claims() -> Mapping[str, Mapping[str, frozenset[str]]]:
    """Measurement -> field -> the units in which Grafana may show it as it is."""
    out: dict[str, dict[str, frozenset[str]]] = {}
    for measure in MEASURES:
        for field in measure.fields:
            shown = {SHARE} if field.share else {SPAN} if field.unit == "s" else {grafana_unit(field.unit)}
            out.setdefault(measure.name, {})[field.name] = frozenset(shown)
    for name in names():
        for stream, spec in load(name).streams.items():
            for field_name, of in spec.fields.items():
                known = out.setdefault(stream, {})
                known[field_name] = known.get(field_name, frozenset()) | {grafana_unit(of.unit)}
    return out


CLAIMS: Final = _claims()


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
    units = (defaults.get("unit"), *set_units)
    yield from (f"unit {unit!r}: unknown" for unit in units if unit not in UNITS and not str(unit).startswith(SUFFIX))
    yield from _claimed(panel)
    for target in panel["targets"]:
        yield from _source(target)
        yield from _query(target["query"])
    if len({target["refId"] for target in panel["targets"]}) < len(panel["targets"]):
        yield "two queries have one refId"
    named = {name for target in panel["targets"] for name in _NAME.findall(target["query"])}
    columns = (field["matcher"]["options"] for field in overrides)
    yield from (f"column {column!r}: not in a query" for column in columns if column not in named | {TIME})


def _claimed(panel: Json) -> Iterator[str]:
    """A number in another unit than its field's. A yes or no may be counted, and be a share of many."""
    shown = {
        field["matcher"]["options"]: set_to["value"]
        for field in panel["fieldConfig"]["overrides"]
        for set_to in field["properties"]
        if set_to["id"] == "unit"
    }
    default = panel["fieldConfig"]["defaults"]["unit"]
    for query in (target["query"] for target in panel["targets"]):
        for term in query.removeprefix("SELECT ").partition(" FROM ")[0].split(", "):
            expression, _, alias = term.rpartition(" AS ")
            found = shown.get(alias.strip('"'), default)
            fits = _fits(expression or alias, _MEASUREMENT.findall(query)[0])
            if fits and found not in fits and not (SUFFIX in fits and str(found).startswith(SUFFIX)):
                yield f"{term}: expected unit {' or '.join(sorted(fits))}, got {found!r}"


def _fits(expression: str, measurement: str) -> frozenset[str]:
    """Units for what a query selects; none for what is no number, or was claimed by a query inside of it."""
    if _DAYS.search(expression):
        return frozenset({SUFFIX})
    if "/" in expression:
        return frozenset({SHARE})
    if "count(" in expression:
        return frozenset({COUNT})
    fits = CLAIMS.get(measurement, {}).get(_NAME.findall(expression)[0], frozenset())
    if _YES_NO in fits and "(" in expression:
        fits |= {SHARE, COUNT} - {COUNT if "mean(" in expression else SHARE}
    return fits


def _source(asking: Json) -> Iterator[str]:
    uid = asking["datasource"]["uid"]
    if uid != DATASOURCE_UID:
        yield f"data source: expected {DATASOURCE_UID}, got {uid!r}"


def _query(query: str) -> Iterator[str]:
    measurements = set(_MEASUREMENT.findall(query))
    yield from (f"measurement {name!r}: nobody declares it" for name in measurements - MEASURED.keys())
    bare = re.sub(r"/\^.*?\$/|\"[^\"]*\"", "", query)  # without names, and regular expressions
    yield from (f"{name}(): not of every InfluxDB" for name in set(_CALL.findall(bare)) - FUNCTIONS)
    yield from (f"{word}: not of InfluxDB 3" for word in UNKNOWN_TO_3.findall(bare))
    fields = frozenset().union(*(MEASURED.get(name, frozenset()) for name in measurements))
    known = measurements | fields | set(TAGS) | set(_ALIAS.findall(query))
    yield from (f"{name!r}: no field of {measurements}, no tag" for name in set(_NAME.findall(query)) - known)
