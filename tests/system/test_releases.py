"""From two persons' keys to an image on a device that enrolled, with server and device as they run in the field."""

import json
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from fleet_server.__main__ import app
from tests.faults.programs import ROOT
from tests.servers import wait_until
from tests.system.fleets import Fleet, running

TABLE = '\n[releases]\ndirectory = "releases"\n'
IMAGE = bytes(n * 7 % 251 for n in range(300_000))
ALL = """
make-key {to}/a.key --no-passphrase
make-key {to}/b.key --no-passphrase
propose-root {site} --root {a} --root {b} --targets {a} --targets {b}
sign {last} --key {to}/a.key --yes
sign {last} --key {to}/b.key --yes
adopt {last} {site}
propose {image} --hw host --kind agent --version 2.0.0 --counter 7 {site}
sign {last} --key {to}/a.key --root {root} --image {image} --yes
sign {last} --key {to}/b.key --root {root} --yes
adopt {last} --image {image} {site}
"""
"""What a bureau does: what one command prints is what the next one is given."""


def _all(site: Path, to: Path) -> None:
    to.mkdir()
    image, last = to / "image.bin", to / "last.json"
    image.write_bytes(IMAGE)
    names = {"to": to, "site": f"--dir {site}", "image": image, "last": last}
    names["root"] = site / "server/releases/metadata/1.root.json"
    for line in ALL.split("\n")[1:-1]:
        command = line.format(**{"a": "", "b": "", **names}).split()
        done = CliRunner().invoke(app, ["releases", *command])
        assert done.exit_code == 0, (line, done.stderr)
        if command[0] == "make-key":
            names["a" if "a" not in names else "b"] = done.stdout.strip()
        elif command[0] != "adopt":
            last.write_text(done.stdout)


def test_an_image_that_two_persons_signed_comes_to_an_enrolled_device(tmp_path: Path) -> None:
    with running(tmp_path / "site", "embedded", tables=TABLE) as fleet:
        _all(fleet.directory, tmp_path / "persons")
        done = fleet.enroll("car-1", fleet.claim("car-1"))
        assert done.returncode == 0, done.stderr
        agent = str(fleet.device_directory("car-1") / "agent.toml")
        command = [sys.executable, "-m", "edge_agent", "fetch-release", "agent/host/2.0.0.bin", "--config", agent]
        taken = subprocess.run([*command, "--installed", "6", "--json"], cwd=ROOT, capture_output=True, check=False)
        assert taken.returncode == 0, taken.stderr
        assert Path(json.loads(taken.stdout)["fetched"]["file"]).read_bytes() == IMAGE
        older = subprocess.run([*command, "--installed", "8"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert older.returncode == 5
        assert "refused, rollback: release counter 7" in older.stderr
        wait_until(lambda: {"releases.root", "releases.list"} <= _actions(fleet), "the audit log has it")


def _actions(fleet: Fleet) -> set[str]:
    found = fleet.server.get("/v1/audit", {"limit": 100})
    assert isinstance(found, dict)
    return {each["action"] for each in found["entries"]}  # type: ignore[union-attr, call-overload, index, misc]
