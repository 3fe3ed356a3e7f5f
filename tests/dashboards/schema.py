"""``python -m tests.dashboards.schema``: holds every rendered dashboard to Grafana's own types with TypeScript.

What npm installs is kept outside the repository, below ``$XDG_CACHE_HOME/fieldfleet``, and used again.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.dashboards.asked import Json, annotations, dashboards, panels
from tests.npm import installed

PACKAGES: Final[Mapping[str, str]] = {"@grafana/schema": "13.2.2", "typescript": "5.9.3"}
COMPILE_S_MAX: Final = 60
_MODULES: Final = "@grafana/schema/dist/esm/raw/composable"
_KINDS: Final[Mapping[str, str]] = {
    "geomap": "Geomap",
    "stat": "Stat",
    "state-timeline": "StateTimeline",
    "table": "Table",
    "timeseries": "TimeSeries",
}
"""Type of a panel -> how the schema's modules call it."""
_LOOSE: Final = """\
// JSON has no enumerations: their members' values stand for them.
type Loose<T> = T extends string ? `${T}` : T extends number ? number : T extends boolean ? boolean
  : T extends (infer U)[] ? Loose<U>[] : T extends object ? { [K in keyof T]: Loose<T[K]> } : T;
"""


def faults(boards: Mapping[str, Json], workspace: Path) -> list[str]:
    """What TypeScript says of *boards*, a line each; *workspace* is written to.

    Raises:
        NpmError: the tools cannot be installed.
    """
    tools = installed(PACKAGES)
    (workspace / "node_modules").symlink_to(tools / "node_modules")
    sources = []
    for number, board in enumerate(boards.values()):
        sources.append(workspace / f"board_{number}.ts")
        sources[-1].write_text(_source(board), encoding="utf-8")
    done = subprocess.run(
        [
            str(tools / "node_modules/.bin/tsc"),
            *("--noEmit", "--strict", "--skipLibCheck", "--pretty", "false"),
            *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
            *map(str, sources),
        ],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=COMPILE_S_MAX,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert bool(told) == bool(done.returncode), done.stderr
    return told


def _source(board: Json) -> str:
    imports = [
        f"import type * as {name} from '{_MODULES}/{name.lower()}/panelcfg/x/{name}PanelCfg_types.gen';"
        for name in _KINDS.values()
    ]
    return "\n".join(["import type { Dashboard } from '@grafana/schema';", *imports, _LOOSE, *_values(board), ""])


def _values(board: Json) -> Iterator[str]:
    yield f"export const board = {json.dumps(_known(board), indent=1)} satisfies Loose<Dashboard>;"
    for panel in panels(board):
        kind, number = _KINDS[panel["type"]], panel["id"]
        yield f"export const options_{number} = {json.dumps(panel['options'])} satisfies Loose<{kind}.Options>;"
        custom = panel["fieldConfig"]["defaults"].get("custom")
        if custom is not None:
            yield f"export const custom_{number} = {json.dumps(custom)} satisfies Loose<{kind}.FieldConfig>;"


def _known(board: Json) -> Json:
    """Without what an annotation asks its data source: the schema knows that of Grafana's own source alone."""
    if not annotations(board):
        return board
    marks = [{**mark, "target": {"refId": mark["target"]["refId"]}} for mark in annotations(board)]
    return {**board, "annotations": {"list": marks}}


def main() -> None:
    """The command: prints every fault; exit code 1 if there is one."""
    with tempfile.TemporaryDirectory() as workspace:
        found = faults(dashboards(), Path(workspace))
    print("\n".join(found) or "nothing is wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
