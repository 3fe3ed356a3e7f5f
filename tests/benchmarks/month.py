"""How fast dashboards are answered over a month of a whole fleet: InfluxDB itself, filled with points as the server
writes them: the last hours at the measures' own cadence, and a tier of means over all the days.

``python -m tests.benchmarks.month --devices 2600 --days 30`` asks every query of every dashboard: over three hours of
what is raw, and over all the days of the tier (``--every-min 60``: means of an hour; 5: of five minutes), two moments
chosen rather than the last of something, so that every panel is asked of all of it. The tables have each dashboard,
and each panel that took longer than a second.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Final, NamedTuple

import httpx
from rich.console import Console
from rich.table import Table

from broker_config import device_classes
from dashboards.provisioning import DATABASE
from fleet_server.config import USUAL_TIERS
from fleet_server.standing.measures import BY_NAME, INTERVIEWS, MEASURES, RECORDINGS, UPLOADS, Of
from tests.benchmarks.command_centre import answered
from tests.dashboards.asked import MINUTE_MS, Chosen, Json, Range, dashboards, panels, queries_of
from tests.servers import SeriesServer, influxd

STATIONS: Final = 23
POSTS: Final = 4
"""Of each station."""
STREAM_EVERY_S: Final = 60
LINES_A_POST: Final = 5_000
TRIES_MAX: Final = 20
"""Of one post: InfluxDB answers 500 when it took too long to write it."""
VARIANTS: Final = 16
"""Of each line's values: constants would be answered faster than what is measured."""
DAY_S: Final = 86_400
SHARES: Final = (
    ("body_camera", 0.45),
    ("in_car_terminal", 0.25),
    ("traffic_light", 0.25),
    ("interrogation_room", 0.04),
    ("host", 0.01),
)
ONLY: Final = {
    RECORDINGS.name: {"body_camera", "in_car_terminal", "interrogation_room"},
    UPLOADS.name: {"body_camera"},
    INTERVIEWS.name: {"interrogation_room"},
}
SLOW_MS: Final = 1_000.0


class Size(NamedTuple):
    """``hours``: of what is raw; ``every_min``: of the tier; ``streams``: whether readings are in that too."""

    devices: int
    days: int
    hours: float
    every_min: int
    streams: bool = True


class Line(NamedTuple):
    """A series: each of its lines has a place for the time in seconds. ``reading``: of a stream."""

    every_s: int
    reading: bool
    variants: tuple[bytes, ...]


class Took(NamedTuple):
    """A query of a panel. ``over``: ``raw`` or ``days``."""

    over: str
    dashboard: str
    panel: str
    taken_ms: float
    rows: int


def classes(devices: int) -> Iterator[str]:
    """Of each device, by the shares."""
    for at in range(devices):
        place, reached = (at * 0.618034) % 1, 0.0
        for name, share in SHARES:
            reached += share
            if place < reached or name == SHARES[-1][0]:
                yield name
                break


def nodes() -> list[str]:
    """Stations and posts."""
    stations = [f"hq/station-{number:02}" for number in range(1, STATIONS + 1)]
    return stations + [f"{station}/post-{number}" for station in stations for number in range(1, POSTS + 1)]


def lines(devices: int) -> list[Line]:
    """Every series of the fleet."""
    places = nodes()
    found = []
    for at, device_class in enumerate(classes(devices)):
        tags = f",device=sim-{at + 1:06d},device_class={device_class},org={places[at % len(places)]}"
        found += [
            _line(measure.name, tags, measure.every_s, measure.names, at)
            for measure in MEASURES
            if measure.of is Of.DEVICE and device_class in ONLY.get(measure.name, {device_class})
        ]
        for stream, spec in device_classes.load(device_class).streams.items():
            if spec.fields:
                found.append(_line(stream, tags, STREAM_EVERY_S, tuple(spec.fields), at))
    for measure in MEASURES:
        if measure.of is not Of.DEVICE:
            of = [f",org={node}" for node in places] if measure.of is Of.NODE else [""]
            found += [_line(measure.name, tags, measure.every_s, measure.names, at) for at, tags in enumerate(of)]
    return found


def _line(name: str, tags: str, every_s: int, fields: Sequence[str], at: int) -> Line:
    variants = []
    for turn in range(VARIANTS):
        values = (f"{field}={_value(field, at, turn)!r}" for field in fields)
        variants.append(f"{name}{tags} {','.join(values)} %d".encode())
    return Line(every_s, name not in BY_NAME, tuple(variants))


def _value(field: str, at: int, turn: int) -> float:
    """Mostly well; shares and yes or no are 0 or 1, all else some number."""
    if field.startswith(("gaps", "missing", "quarantined", "flaps", "damaged", "overdue")):
        return float((at + turn) % 97 == 0)
    if field in {"connected", "reporting", "healthy", "ready", "in_effect", "given_out"} or field.endswith("_ok"):
        return float((at * 7 + turn) % 41 != 0)
    return round(50 + 40 * math.sin(at + turn / 3), 3)


def raw(found: Sequence[Line], size: Size, now_s: int) -> Iterator[bytes]:
    """The last hours, by time."""
    span_s = int(size.hours * 3_600)
    steps = sorted({line.every_s for line in found})
    for at_s in range(now_s - span_s, now_s + 1, math.gcd(*steps)):
        for place, line in enumerate(found):
            if (at_s + place) % line.every_s < math.gcd(*steps):
                yield line.variants[(at_s // line.every_s + place) % VARIANTS] % at_s


def tier(found: Sequence[Line], size: Size, now_s: int) -> Iterator[bytes]:
    """All the days, by time."""
    every_s = 60 * size.every_min
    found = [line for line in found if size.streams or not line.reading]
    end_s = now_s // every_s * every_s
    for at_s in range(end_s - size.days * DAY_S, end_s + 1, every_s):
        for place, line in enumerate(found):
            yield line.variants[(at_s // every_s + place) % VARIANTS] % at_s


def write(server: SeriesServer, database: str, points: Iterator[bytes], told: Callable[[str], None]) -> int:
    """How many; as fast as they are taken."""
    written, began_s = 0, time.monotonic()
    with httpx.Client(base_url=server.url, timeout=120.0) as client:
        client.post("/query", params={"q": f'CREATE DATABASE "{database}"'}).raise_for_status()
        while part := list(islice(points, LINES_A_POST)):
            for _ in range(TRIES_MAX):
                answer = client.post("/write", params={"db": database, "precision": "s"}, content=b"\n".join(part))
                if answer.status_code < 500:
                    break
            answer.raise_for_status()
            written += len(part)
            if written % (50 * LINES_A_POST) == 0:
                told(f"{database}: {written:,} points, {written / (time.monotonic() - began_s):,.0f} a second")
    return written


def boards() -> dict[str, Json]:
    """Of one language, by name."""
    found: dict[str, Json] = {}
    for path, board in sorted(dashboards().items()):
        if "panels" in board:
            found.setdefault(Path(path).stem, board)
    return found


def ask(server: SeriesServer, size: Size, now_ms: int, rounds: int) -> list[Took]:
    """Every query, *rounds* times; in between the server has others to answer."""
    chosen = Chosen(device=("sim-000001",))
    found = []
    overs = (
        ("raw", DATABASE, Range(now_ms - int(min(size.hours, 3) * 60) * MINUTE_MS, now_ms)),
        ("days", tier_database(size), Range(now_ms - size.days * DAY_S * 1_000, now_ms, absolute=True)),
    )
    with httpx.Client(base_url=server.url, timeout=300.0) as client:
        for _ in range(rounds):
            for name, board in boards().items():
                for panel in panels(board):
                    for over, database, shown in overs:
                        whom = chosen if "'$device'" in json.dumps(panel) else Chosen(**_one(panel))
                        for query in queries_of(panel, shown, whom) if "targets" in panel else ():
                            (took,) = answered(client, [query], database)
                            found.append(Took(over, name, panel["title"], took.taken_ms, took.rows))
    return found


def _one(panel: Json) -> dict[str, tuple[str, ...]]:
    """What has to be one value, as where a dashboard is of one station."""
    text = json.dumps(panel)
    return {"org": (nodes()[0],)} if "'$org'" in text else {}


def tier_database(size: Size) -> str:
    """As the server calls it."""
    names: dict[int, str] = {each.every_min: each.name for each in USUAL_TIERS}
    return f"{DATABASE}_{names.get(size.every_min, 'days')}"


def run(size: Size, *, rounds: int, told: Callable[[str], None]) -> tuple[list[Took], dict[str, int]]:
    """Fill, ask; and how many points there were of each."""
    now_s = int(time.time())
    found = lines(size.devices)
    told(f"{len(found):,} series")
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch, influxd(Path(scratch) / "i") as server:
        points = {
            "raw": write(server, DATABASE, raw(found, size, now_s), told),
            "days": write(server, tier_database(size), tier(found, size, now_s), told),
        }
        return ask(server, size, now_s * 1_000, rounds), points


def tables(took: Sequence[Took]) -> Iterator[Table]:
    """Of each dashboard, and of slow panels."""
    whole = Table(title="queries of each dashboard, ms", title_justify="left")
    for name in ("dashboard", "over", "queries", "p50", "p99", "most"):
        whole.add_column(name, justify="left" if name in {"dashboard", "over"} else "right")
    for board in dict.fromkeys(each.dashboard for each in took):
        for over in ("raw", "days"):
            times = [each.taken_ms for each in took if (each.dashboard, each.over) == (board, over)]
            if times:
                p99 = quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]
                whole.add_row(board, over, str(len(times)), *(f"{it:.0f}" for it in (median(times), p99, max(times))))
    yield whole
    slow = Table(title=f"panels with a query of more than {SLOW_MS:.0f} ms", title_justify="left")
    for name in ("dashboard", "panel", "over", "most", "rows"):
        slow.add_column(name, justify="right" if name in {"most", "rows"} else "left")
    worst: dict[tuple[str, str, str], Took] = {}
    for each in took:
        key = (each.dashboard, each.panel, each.over)
        if each.taken_ms > SLOW_MS and each.taken_ms > (worst[key].taken_ms if key in worst else 0):
            worst[key] = each
    for each in sorted(worst.values(), key=lambda one: -one.taken_ms):
        slow.add_row(each.dashboard, each.panel, each.over, f"{each.taken_ms:.0f}", str(each.rows))
    yield slow


def main() -> int:
    """Run, print the tables, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_600)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--hours", type=float, default=3.0, help="of what is raw")
    parser.add_argument("--every-min", type=int, default=60, help="minutes of a point of the tier")
    parser.add_argument("--measures-only", action="store_true", help="no readings in the tier, to fill it sooner")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--report", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    size = Size(chosen.devices, chosen.days, chosen.hours, chosen.every_min, streams=not chosen.measures_only)
    console = Console(width=120)
    took, points = run(size, rounds=chosen.rounds, told=lambda text: console.print(text, highlight=False))
    for table in tables(took):
        console.print(table)
    print(f"{size}; points: {points}")
    if chosen.report is not None:
        chosen.report.write_text(json.dumps({"points": points, "took": [each._asdict() for each in took]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
