"""What every test folder shares: golden files, and tests that need a real server or root."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

import pytest

from tests.servers import program

REQUIRE_SERVERS: Final = "FIELDFLEET_REQUIRE_SERVERS"
AREA_BUDGET_S: Final = 60
AREA_BUDGETS_S: Final = {
    "broker_config": 120,
    "contract": 120,
    "dashboards": 240,
    "deploy": 240,
    "edge_agent": 480,
    "faults": 900,
    "firmware_bridge": 240,
    "fleet_server": 1800,
    "system": 1500,
}
"""Of one worker's time; four workers run, and .ci/run bounds the whole."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite golden files with what the code now says")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What each area took beside what it may take; workers' seconds, so that it reads the same with any -n."""
    spent: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                area = PurePosixPath(report.nodeid.partition("::")[0]).parent.name or "."
                area = next((name for name in AREA_BUDGETS_S if f"tests/{name}/" in report.nodeid), area)
                spent[area] = spent.get(area, 0.0) + report.duration
    terminalreporter.write_sep("=", "areas: seconds of their budget")
    for area, seconds in sorted(spent.items()):
        budget_s = AREA_BUDGETS_S.get(area, AREA_BUDGET_S)
        over = "  OVER ITS BUDGET" if seconds > budget_s else ""
        terminalreporter.write_line(f"{area:24} {seconds:7.1f} of {budget_s}{over}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("server"):
        name = mark.args[0]
        if program(name) is None:
            reason = f"needs a real server: no {name} on this machine"
            if os.environ.get(REQUIRE_SERVERS) == "1":
                pytest.fail(f"{reason}, and {REQUIRE_SERVERS}=1", pytrace=False)
            pytest.skip(reason)
    for mark in item.iter_markers("root"):
        if os.geteuid() != 0:
            pytest.skip(f"needs root: {mark.args[0]}")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a golden file; ``--update`` rewrites the file instead."""

    def compare(file: Path, text: str) -> None:
        if request.config.getoption("--update"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: differs; pytest --update rewrites it"

    return compare
