"""What every test folder shares: golden files, and tests that need a real server or root."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.servers import program

REQUIRE_SERVERS: Final = "FIELDFLEET_REQUIRE_SERVERS"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite golden files with what the code now says")


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
