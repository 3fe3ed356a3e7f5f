"""How fast a dashboard is answered while a fleet reports: real server, Mosquitto and InfluxDB, simulated devices.

``python -m tests.benchmarks.command_centre --devices 2600 --seconds 600`` makes a site with 23 stations, registers
the devices there, has them report, and asks every query of the dashboard again and again meanwhile, as Grafana would.
The table has each panel with its slowest query, and the most rows that one was answered with. Exit code 1: the fleet
lost something.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Final, NamedTuple

import httpx
from rich.console import Console
from rich.table import Table

from dashboards.provisioning import DATABASE
from tests.dashboards.asked import MINUTE_MS, Range, dashboards, panels, queries_of
from tests.faults.programs import ROOT
from tests.servers import SeriesServer, influxd
from tests.system.fleets import Fleet, running

STATIONS: Final = 23
ASK_EVERY_S: Final = 10.0
OVER_MS: Final = 3 * 60 * MINUTE_MS
MS: Final = 1_000.0
DASHBOARD: Final = "en/command_centre"


def main() -> int:
    """Run, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_600)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds from one batch of a stream to the next")
    parser.add_argument("--class", dest="device_class", default="body_camera")
    parser.add_argument(
        "--dashboard", default=DASHBOARD, help="a file of dashboards/grafana/dashboards, but for .json"
    )
    parser.add_argument("--report", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch:
        directory = Path(scratch)
        with influxd(directory / "influx") as series:
            table = f'\n[influx]\nurl = "{series.url}"\nflavour = "v1"\nretention_d = 30\n'
            with running(directory / "site", "mosquitto", tables=table) as fleet:
                register(fleet, chosen.devices, chosen.device_class)
                load = started(fleet, chosen, directory / "load.json")
                found = asked(series, chosen.dashboard, load)
        report = json.loads((directory / "load.json").read_text())
    Console(width=120).print(shown(found))
    numbers = report["numbers"]
    print(f"{chosen.devices} devices, {chosen.seconds:g} s: {numbers['sealed']} batches, {numbers['lost']} lost")
    if chosen.report is not None:
        chosen.report.write_text(json.dumps({"panels": found, "load": report}, indent=1))
    return int(load.returncode != 0)


def register(fleet: Fleet, devices: int, device_class: str) -> None:
    """Stations below a centre, and the devices one after the other at them."""
    stations = [f"station-{number:02}" for number in range(1, STATIONS + 1)]
    nodes = "\n".join(["node,kind,name,parent", "hq,centre,Centre,", *(f"{it},station,{it},hq" for it in stations)])
    rows = (f"sim-{at + 1:06d},{device_class},{stations[at % STATIONS]}" for at in range(devices))
    for what, text in (("org-nodes", nodes), ("devices", "\n".join(["device,device_class,node", *rows]))):
        fleet.server.send("POST", f"/v1/imports/{what}", content=text.encode(), headers={"Content-Type": "text/csv"})


def started(fleet: Fleet, chosen: argparse.Namespace, report: Path) -> "subprocess.Popen[bytes]":
    """The simulated devices, from now on."""
    options = f"--site {fleet.directory} --devices {chosen.devices} --seconds {chosen.seconds} --every {chosen.every}"
    argv = [sys.executable, "-m", "fleet_server.cli", "simulate", *options.split()]
    argv += ["--class", chosen.device_class, "--report", str(report)]
    load = subprocess.Popen(argv, cwd=ROOT)
    fleet.exit.callback(load.kill)
    return load


class Asked(NamedTuple):
    """A panel in one round: its slowest query, and the most rows of one."""

    taken_ms: float
    rows: int


def asked(series: SeriesServer, dashboard: str, load: "subprocess.Popen[bytes]") -> dict[str, list[Asked]]:
    """By panel, a round after the other until the load has ended."""
    found: dict[str, list[Asked]] = defaultdict(list)
    board = next(board for path, board in dashboards().items() if path.endswith(f"/{dashboard}.json"))
    with httpx.Client(base_url=series.url, timeout=60.0) as client:
        while load.poll() is None:
            next_s = time.monotonic() + ASK_EVERY_S
            now_ms = int(time.time() * MS)
            for panel in panels(board):
                queries = queries_of(panel, Range(now_ms - OVER_MS, now_ms)) if "targets" in panel else []
                if queries:
                    answers = list(answered(client, queries))
                    slowest, most = max(each.taken_ms for each in answers), max(each.rows for each in answers)
                    found[panel["title"]].append(Asked(slowest, most))
            try:
                load.wait(max(0.0, next_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
    return dict(found)


def answered(client: httpx.Client, queries: Sequence[str], database: str = DATABASE) -> Iterator[Asked]:
    """One query after the other."""
    for query in queries:
        begin_s = time.monotonic()
        answer = client.post("/query", params={"db": database, "q": query, "epoch": "ms"})
        taken_ms = MS * (time.monotonic() - begin_s)
        answer.raise_for_status()
        series = [each for result in answer.json()["results"] for each in result.get("series", [])]
        yield Asked(taken_ms, sum(len(each["values"]) for each in series))


def shown(found: Mapping[str, Sequence[Asked]]) -> Table:
    """The slowest first."""
    table = Table(title="a panel's slowest query, ms", title_justify="left")
    for name in ("panel", "asked", "p50", "p99", "most", "rows"):
        table.add_column(name, justify="left" if name == "panel" else "right")
    for title, rounds in sorted(found.items(), key=lambda item: -max(item[1]).taken_ms):
        times = [each.taken_ms for each in rounds]
        p99 = quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]
        told = (f"{each:.0f}" for each in (median(times), p99, max(times)))
        table.add_row(title, str(len(times)), *told, str(max(each.rows for each in rounds)))
    return table


if __name__ == "__main__":
    sys.exit(main())
