"""The whole way of commands, with real programs: API, signer, broker, agent, and back; with kills, and two people."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from edge_agent.adapters.counters import COUNTERS_NAME, Counters
from fleet_server.adapters.signer_socket import _serves
from fleet_server.cli.server import Json
from fleet_server.site import SIGNERS_FILE
from tests.faults.programs import ROOT, Program
from tests.servers import wait_until
from tests.system.fleets import CHOSEN, PLAIN, SERVER, Fleet, running

BACK_S = 40.0
"""A server that starts on a busy machine."""
PASSPHRASE = "one that nobody knows"
PROFILE = """
device_class = "body_camera"

[commands."recording.start"]
argv = ["{python}", "-I", "{script}"]
"""


@pytest.fixture(scope="module", params=CHOSEN)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("commands") / "site", request.param) as made:
        signing(made)
        yield made


def signing(fleet: Fleet, *, python: Sequence[str] = SERVER, environment: Mapping[str, str] = PLAIN) -> None:
    """The signer's process, beside the server."""
    config = str(fleet.directory / "server/fleet-server.toml")
    argv = [sys.executable, *python, "signer", "--config", config]
    signer = Program("signer", argv, fleet.directory / "signer.log", dict(environment))
    signer.start()
    fleet.exit.callback(signer.kill)
    (socket,) = [fleet.directory / found for found in _socket(fleet)]
    wait_until(lambda: _serves(socket), "the signer serves")


def _socket(fleet: Fleet) -> list[str]:
    text = (fleet.directory / "server/fleet-server.toml").read_text()
    return [f"server/{name}" for name in re.findall(r'^socket_file = "([^"]+)"', text, re.MULTILINE)]


def command(fleet: Fleet, *arguments: str, token: Path | None = None) -> subprocess.CompletedProcess[str]:
    where = ["--url", fleet.server.place.url, "--token-file", str(token or fleet.server.place.token_file)]
    argv = [sys.executable, "-m", "fleet_server.cli", "command", *arguments, *where]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Json]:
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Json] = json.loads(done.stdout)
    return found


def states(fleet: Fleet, name: str) -> list[str]:
    return [str(each["state"]) for each in targets(command(fleet, "show", name, "--json"))]


def targets(done: subprocess.CompletedProcess[str]) -> list[dict[str, Json]]:
    found = document(done)["targets"]
    assert isinstance(found, list)
    return [each for each in found if isinstance(each, dict)]


def ready(fleet: Fleet, device: str) -> Program:
    agent = fleet.enrolled(device)
    knows(fleet, device)
    return agent


def knows(fleet: Fleet, device: str) -> None:
    """Since when it counts orders."""
    state = fleet.device_directory(device) / "state"
    wait_until(lambda: Counters(state / COUNTERS_NAME).load().floor is not None, f"{device} knows the time")


def obeyed(fleet: Fleet, device: str) -> int:
    return (fleet.directory / f"{device}.log").read_text().count("order obeyed")


def test_a_command_is_sent_obeyed_and_its_end_is_known(fleet: Fleet) -> None:
    ready(fleet, "car-1")
    done = command(fleet, "send", "car-1", "self.test", "--wait", "--json")
    assert document(done)["summary"] == "1 done"
    (target,) = targets(done)
    assert isinstance(target["result"], dict)
    assert target["result"]["passed"] is True
    refused = command(fleet, "send", "car-1", "reboot", "--wait")
    assert refused.returncode == 1
    assert "1 refused (unsupported)" in refused.stdout
    wrong = command(fleet, "send", "car-1", "lost.mode", "on=perhaps")
    assert (wrong.returncode, "expected boolean" in wrong.stderr) == (1, True), wrong.stderr


def test_a_device_that_is_away_is_told_when_it_comes_back(fleet: Fleet) -> None:
    agent = ready(fleet, "car-2")
    agent.stop()
    told = document(command(fleet, "send", "car-2", "self.test", "--json"))
    wait_until(lambda: states(fleet, str(told["command"])) == ["sent"], "it was said, to nobody")
    fleet.agent("car-2")
    wait_until(lambda: states(fleet, str(told["command"])) == ["done"], "it is done")
    assert obeyed(fleet, "car-2") == 1


def test_a_restored_server_does_nothing_twice(fleet: Fleet, tmp_path: Path) -> None:
    agent = ready(fleet, "car-4")
    agent.stop()
    told = document(command(fleet, "send", "car-4", "self.test", "--json"))
    name = str(told["command"])
    wait_until(lambda: states(fleet, name) == ["sent"], "it was said, to nobody")
    database = next(fleet.directory.rglob("operators.db"))
    fleet.program.stop()
    shutil.copy(database, tmp_path / "backup.db")
    fleet.program.start()
    wait_until(lambda: command(fleet, "list").returncode == 0, "the server answers", BACK_S)
    agent = fleet.agent("car-4")
    wait_until(lambda: states(fleet, name) == ["done"], "it is done", BACK_S)
    agent.stop()
    fleet.program.stop()
    for part in ("-wal", "-shm"):
        database.with_name(database.name + part).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", database)
    fleet.program.start()
    wait_until(lambda: command(fleet, "list").returncode == 0, "the server answers", BACK_S)
    fleet.agent("car-4")
    wait_until(lambda: states(fleet, name) == ["done"], "it hears again that it is done", BACK_S)
    assert obeyed(fleet, "car-4") == 1


def test_what_is_hazardous_needs_a_second_person_and_is_then_done_once(fleet: Fleet, tmp_path: Path) -> None:
    second = make_second(fleet, tmp_path)
    camera(fleet, "cam-1", tmp_path)
    sent = document(
        command(fleet, "send", "cam-1", "recording.start", "reason=a call", "--expires-s", "30", "--json")
    )
    name = str(sent["command"])
    assert sent["summary"] == "1 awaiting approval"
    key = ["--key", str(tmp_path / "second.key"), "--passphrase-file", str(tmp_path / "passphrase"), "--yes"]
    key += ["--signers", str(fleet.directory / SIGNERS_FILE)]
    alone = command(fleet, "approve", name, *key)
    assert (alone.returncode, "another person" in alone.stderr) == (1, True), alone.stderr
    assert not (tmp_path / "started").exists()
    approved = command(fleet, "approve", name, *key, "--wait", token=second)
    assert approved.returncode == 0, approved.stderr
    assert "1 done" in approved.stdout
    assert json.loads((tmp_path / "started").read_text()) == {"reason": "a call"}
    assert document(command(fleet, "show", name, "--json"))["approved_by"] == "second"


def test_a_server_that_is_killed_says_it_again_and_it_is_done_once(fleet: Fleet) -> None:
    agent = ready(fleet, "car-3")
    agent.stop()
    told = document(command(fleet, "send", "car-3", "self.test", "--json"))
    fleet.program.kill()
    agent = fleet.agent("car-3")
    fleet.program.start()
    wait_until(lambda: command(fleet, "list").returncode == 0, "the server answers", BACK_S)
    wait_until(lambda: states(fleet, str(told["command"])) == ["done"], "it is done", BACK_S)
    fleet.program.kill()
    fleet.program.start()
    wait_until(lambda: command(fleet, "list").returncode == 0, "the server answers", BACK_S)
    agent.stop()
    fleet.agent("car-3")
    wait_until(lambda: fleet.is_connected("car-3"), "it is back", BACK_S)
    assert states(fleet, str(told["command"])) == ["done"]
    assert obeyed(fleet, "car-3") == 1


def make_second(fleet: Fleet, directory: Path) -> Path:
    """A second person: a key that devices obey, and a token of their own, whose file this is."""
    (directory / "passphrase").write_text(PASSPHRASE)
    made = server_command("make-signer-key", str(directory / "second.key"), "--passphrase-file",
                          str(directory / "passphrase"))  # fmt: skip
    server_command("add-signer", made.strip(), "--dir", str(fleet.directory), "--root-key",
                   str(fleet.directory / "ca/signers-root.key"))  # fmt: skip
    where = ["--url", fleet.server.place.url, "--token-file", str(fleet.server.place.token_file)]
    grant = ["tokens", "make", "second", "--grant", "equipment_manager@everywhere", "--json", *where]
    argv = [sys.executable, "-m", "fleet_server.cli", *grant]
    token = document(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False))
    file = directory / "second.token"
    file.write_text(str(token["secret"]))
    return file


def server_command(*arguments: str) -> str:
    argv = [sys.executable, "-m", "fleet_server", *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def camera(fleet: Fleet, device: str, directory: Path) -> None:
    """A body camera whose recorder is a script that writes down what it is told."""
    said: Json = {"device_class": "body_camera"}
    fleet.server.send("PUT", f"/v1/devices/{device}/registration", json=said, headers={"If-None-Match": "*"})
    assert fleet.enroll(device, fleet.claim_again(device)).returncode == 0
    script = directory / "recorder.py"
    script.write_text(f"import sys; open({str(directory / 'started')!r}, 'x').write(sys.stdin.read())")
    profile = directory / "camera.toml"
    profile.write_text(PROFILE.format(python=sys.executable, script=script))
    config = fleet.device_directory(device) / "agent.toml"
    config.write_text(re.sub(r'^profile = ".*"', f'profile = "{profile}"', config.read_text(), flags=re.MULTILINE))
    fleet.agent(device)
    wait_until(lambda: fleet.is_connected(device), f"{device} is connected", BACK_S)
    knows(fleet, device)
