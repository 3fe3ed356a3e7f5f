"""The ground that the other tests stand on: real servers, and what happens where there are none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ServerFailedError, accepts, free_port, lay_out, mosquitto

MARKED = """
import pytest

@pytest.mark.server("no-such-program")
def test_with_a_server() -> None:
    raise AssertionError("must not run")
"""


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_an_absent_program_is_a_skip_with_a_reason_or_where_required_a_failure(
    tmp_path: Path, required: str, outcome: str
) -> None:
    (tmp_path / "test_marked.py").write_text(MARKED)
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-rs", "-c", str(root / "pyproject.toml"), "-p", "tests.conftest"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        cwd=root,
        env=os.environ | {"FIELDFLEET_REQUIRE_SERVERS": required},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome in done.stdout
    assert "needs a real server: no no-such-program on this machine" in done.stdout
    assert done.returncode == bool(required)


@pytest.mark.server("mosquitto")
def test_a_broker_comes_back_on_its_ports_and_its_data_can_be_wiped(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        first, port = broker.pid, broker.device_port
        broker.restart()
        assert broker.pid != first
        broker.stop()
        assert not accepts(port)
        assert list(broker.data.iterdir())
        broker.wipe()
        broker.start()
        assert accepts(port)
        assert list(broker.data.iterdir()) == []
    assert not accepts(port)


@pytest.mark.server("mosquitto")
def test_a_broker_that_cannot_start_tells_what_it_said(tmp_path: Path) -> None:
    broker = lay_out(tmp_path)
    (tmp_path / "acl").unlink()
    with pytest.raises(ServerFailedError, match="Unable to open acl_file"):
        broker.start()


def test_a_free_port_is_free() -> None:
    assert not accepts(free_port())
