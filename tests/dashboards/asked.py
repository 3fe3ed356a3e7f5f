"""What Grafana would ask InfluxDB: every query of a dashboard, its macros and variables filled in as Grafana does."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from dashboards.rendered import files

Json: TypeAlias = dict[str, Any]

MINUTE_MS: Final = 60_000
ALL: Final = ".*"
_SPECIAL: Final = re.compile(r"[\\^$*+?.()|\[\]{}/]")
_UNIT_MS: Final = {"s": 1_000, "m": MINUTE_MS, "h": 60 * MINUTE_MS}


def dashboards() -> dict[str, Json]:
    """Every rendered dashboard by its path."""
    return {path: json.loads(text) for path, text in files().items() if path.endswith(".json")}


def panels(dashboard: Json) -> Iterator[Json]:
    """Every panel but rows, those in collapsed rows too."""
    for panel in dashboard["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def panel(dashboard: Json, title: str) -> Json:
    """The one of that title."""
    (found,) = (panel for panel in panels(dashboard) if panel["title"] == title)
    return found


@dataclass(frozen=True, slots=True)
class Range:
    """What the time picker says; ``absolute``: two moments rather than something like the last three hours."""

    start_ms: int
    end_ms: int
    absolute: bool = False


class Chosen(NamedTuple):
    """What each variable is set to; empty is All."""

    org: Sequence[str] = ()
    device_class: Sequence[str] = ()
    device: Sequence[str] = ()


def annotations(dashboard: Json) -> list[Json]:
    """What marks the times of a dashboard."""
    found: list[Json] = dashboard.get("annotations", {}).get("list", [])
    return found


def queries_of(panel: Json, shown: Range, chosen: Chosen = Chosen()) -> list[str]:  # noqa: B008 - frozen
    """The queries of a panel as InfluxDB is asked."""
    over = shown
    if "timeFrom" in panel and not shown.absolute:
        over = Range(shown.end_ms - _ms(panel["timeFrom"].removeprefix("now-")), shown.end_ms)
    points_max = panel.get("maxDataPoints", 1_000)
    interval_ms = max((over.end_ms - over.start_ms) // points_max, _ms(panel.get("interval", "1s")))
    macros = {
        "timeFilter": f"time >= {over.start_ms}ms and time <= {over.end_ms}ms",
        "__interval": f"{interval_ms}ms",
    }
    return [filled(target["query"], macros, chosen) for target in panel["targets"]]


def filled(query: str, macros: Mapping[str, str], chosen: Chosen) -> str:
    """*query* with every ``$name`` replaced; a name that Grafana does not know fails."""
    for name, value in chosen._asdict().items():
        if f"'${name}'" in query:  # a variable of one value, which stands as it is
            (only,) = value
            query = query.replace(f"'${name}'", f"'{only}'")
    values = {**{name: _expression(value) for name, value in chosen._asdict().items()}, **macros}
    # a backreference or an end of a pattern is no variable: $ before a slash stays
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], query)


def _expression(values: Sequence[str]) -> str:
    return f"({'|'.join(_SPECIAL.sub(_escaped, value) for value in values)})" if values else ALL


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _ms(text: str) -> int:
    return int(text[:-1]) * _UNIT_MS[text[-1]]
