"""``python -m tests.dashboards.look --to DIR``: draws a dashboard of the seeded fleet with Grafana's own code.

Not part of the tests: it installs some 400 MB of npm packages (outside the repository, once) and needs chromium. DIR
gets ``dashboard.png``, and ``told.json``: of each panel's fields their displayed name, and the last value with its
unit and colour.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Final

import httpx

from dashboards.provisioning import DATABASE
from tests.dashboards import seeded
from tests.dashboards.asked import MINUTE_MS, Chosen, Json, Range, dashboards, queries_of
from tests.dashboards.filled_site import device_of
from tests.npm import installed
from tests.servers import SeriesServer, influxd, program

PACKAGES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("@grafana/ui", "@grafana/data", "@grafana/schema", "@grafana/i18n"), "13.2.2"),
    "@grafana/e2e-selectors": "13.2.2",  # a newer one that it would take is not there
    "react": "18.3.1",
    "react-dom": "18.3.1",
    "rxjs": "7.8.2",
    "esbuild": "0.25.12",
}
PAGE_S_MAX: Final = 60
DRAW_MS: Final = 10_000
WIDTH_PX, HEIGHT_PX = 1_500, 3_400
PAGE: Final = """\
<meta charset="utf-8"><style>body { background: #111217; margin: 8px }</style>
<div id="root"></div><script>
"""
"""Without its script, which stands in it: of a file of its own a browser would not tell what failed."""


def _opened(board: Json) -> Iterator[tuple[Json, Json]]:
    """Each panel and where it stands, with every collapsed row opened below the ones before."""
    below = 0
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel, panel["gridPos"] | {"y": panel["gridPos"]["y"] + below}
            continue
        for inner in panel["panels"]:
            yield inner, inner["gridPos"] | {"y": inner["gridPos"]["y"] + below}
        if panel["panels"]:
            below += max(inner["gridPos"]["y"] + inner["gridPos"]["h"] for inner in panel["panels"])
            below -= panel["gridPos"]["y"] + panel["gridPos"]["h"]


def _frames(server: SeriesServer, panel: Json, shown: Range, chosen: Chosen) -> list[Json]:
    """What Grafana's server makes of InfluxDB's answer: one table, or a frame for each series and column."""
    out: list[Json] = []
    for target, query in zip(panel["targets"], queries_of(panel, shown, chosen), strict=True):
        answer = httpx.post(f"{server.url}/query", params={"db": DATABASE, "q": query, "epoch": "ms"}).json()
        series = answer["results"][0].get("series", [])
        if series and target["resultFormat"] == "table":
            out.append(_table(series) | {"refId": target["refId"]})
        else:
            out += [_frame(panel, one, at) for one in series for at in range(1, len(one["columns"]))]
    return out


def _chosen(board: Json, panel: Json) -> Chosen:
    return Chosen(device=[device_of(panel["title"])]) if board["uid"].startswith("fieldfleet-device") else Chosen()


def _table(series: list[Json]) -> Json:
    columns = series[0]["columns"]
    fields = [_field("Time", "time", [row[0] for one in series for row in one["values"]])]
    fields += [
        _field(tag, "string", [one["tags"][tag] for one in series for _ in one["values"]])
        for tag in series[0].get("tags", {})
    ]
    for at, column in enumerate(columns[1:], 1):
        values = [row[at] for one in series for row in one["values"]]
        fields.append(_field(column, "string" if isinstance(values[0], str) else "number", values))
    return {"name": series[0]["name"], "fields": fields}


def _frame(panel: Json, one: Json, at: int) -> Json:
    name = panel["targets"][0]["alias"].replace("$col", one["columns"][at])
    for tag, value in one.get("tags", {}).items():
        name = name.replace(f"$tag_{tag}", value)
    times, values = ([row[column] for row in one["values"]] for column in (0, at))
    value = _field("Value", "number", values) | {"config": {"displayNameFromDS": name}, "labels": one.get("tags", {})}
    return {"name": name, "fields": [_field("Time", "time", times), value]}


def _field(name: str, kind: str, values: list[object]) -> Json:
    shown = {} if name == "Time" else {"displayNameFromDS": name}
    return {"name": name, "type": kind, "config": shown, "values": values}


def draw(board: Json, to: Path) -> list[Json]:
    """Draw *board* into *to*; what ``told.json`` holds."""
    tools = installed(PACKAGES)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        with influxd(work / "influxd") as server:
            now_ms = int(time.time()) // 60 * MINUTE_MS
            seeded.fill(server, now_ms=now_ms)
            shown = Range(now_ms - 60 * MINUTE_MS, now_ms)
            asked = [
                {"panel": panel, "at": at, "frames": _frames(server, panel, shown, _chosen(board, panel))}
                for panel, at in _opened(board)
            ]
        (work / "panels.json").write_text(json.dumps(asked), encoding="utf-8")
        (work / "page.tsx").write_text(Path(__file__).with_name("look.tsx").read_text(encoding="utf-8"))
        (work / "node_modules").symlink_to(tools / "node_modules")
        bundle = ["--bundle", "--format=iife", '--define:process.env.NODE_ENV="development"', "--log-level=error"]
        loaders = [f"--loader:.{kind}=dataurl" for kind in ("svg", "png", "gif", "ttf", "woff", "woff2")]
        subprocess.run(
            [
                str(tools / "node_modules/@esbuild/linux-x64/bin/esbuild"),
                "page.tsx",
                *bundle,
                *loaders,
                "--outfile=page.js",
            ],
            cwd=work,
            check=True,
            timeout=PAGE_S_MAX,
        )
        script = (work / "page.js").read_text(encoding="utf-8").replace("</script", "<\\/script")
        style = (work / "page.css").read_text(encoding="utf-8")
        (work / "page.html").write_text(
            f"<!doctype html><style>{style}</style>{PAGE}{script}</script>", encoding="utf-8"
        )
        to.mkdir(parents=True, exist_ok=True)
        return _photographed(work, to)


def _photographed(work: Path, to: Path) -> list[Json]:
    browser = program("chromium")
    assert browser is not None, "no chromium on this machine"
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={work}/browser"),
        *(f"--window-size={WIDTH_PX},{HEIGHT_PX}", f"--virtual-time-budget={DRAW_MS}"),
    ]
    page = (work / "page.html").as_uri()
    picture = f"--screenshot={to / 'dashboard.png'}"
    subprocess.run([browser, *options, picture, page], check=True, capture_output=True, timeout=PAGE_S_MAX)
    done = subprocess.run(
        [browser, *options, "--dump-dom", page], check=True, capture_output=True, text=True, timeout=PAGE_S_MAX
    )
    found = re.search(r'<script type="application/json" id="told">(.*?)</script>', done.stdout, re.DOTALL)
    failed = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    if found is None or failed:
        sys.exit(f"not all was drawn: {unescape(failed[1]) if failed else done.stderr[-2000:]}")
    told: list[Json] = json.loads(found[1])
    (to / "told.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
    return told


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards.look", description=__doc__)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    parser.add_argument("--board", default="en/command_centre", help="language and name, such as zh-Hans/station")
    told = parser.parse_args()
    for entry in draw(dashboards()[f"dashboards/{told.board}.json"], told.to):
        print(entry["title"], *(f"  {field['name']}: {field['first']}" for field in entry["fields"]), sep="\n")


if __name__ == "__main__":
    main()
