import subprocess
import sys
from pathlib import Path

import pytest

from fleet_server.__main__ import EXIT_FENCED
from tests.deploy.files import DEPLOY

UNITS = [DEPLOY / "systemd" / f"{name}.service" for name in ("edge-agent", "fleet-server", "fleet-signer")]
"""What runs all the while; the others are in test_install."""
EXPOSURE_MAX = 25
"""Of 100, as systemd-analyze judges what a program that was taken over could still reach."""
analyze = pytest.mark.server("systemd-analyze")


def _settings(unit: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in unit.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name: value for name, _, value in lines if not name.startswith("#")}


@pytest.fixture(params=UNITS, ids=lambda unit: unit.stem)
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit whose program is where this test's own programs are: systemd looks whether it can be run."""
    unit: Path = request.param
    text = unit.read_text(encoding="utf-8").replace("/opt/fieldfleet/bin", str(Path(sys.executable).parent))
    (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return tmp_path / unit.name


@analyze
def test_systemd_takes_the_unit_without_a_word(installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@analyze
def test_a_program_that_was_taken_over_reaches_little(installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", installed],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_nobodys_but_its_own(unit: Path) -> None:
    settings = _settings(unit)
    users = (DEPLOY / "systemd" / "fieldfleet.sysusers").read_text(encoding="utf-8")
    assert f"u {settings['User']} " in users
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["ProtectSystem"] == "strict"
    assert settings["CapabilityBoundingSet"] == ""
    assert settings["Restart"] == "on-failure"
    assert int(settings["RestartSec"]) >= 5


def test_a_server_that_was_overtaken_is_not_started_again() -> None:
    (unit,) = (unit for unit in UNITS if unit.stem == "fleet-server")
    assert _settings(unit)["RestartPreventExitStatus"] == str(EXIT_FENCED)
