"""The demo shows four devices of four classes stored and receipted, and leaves nothing behind however it ends."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from fleet_server.cli.demo import fleet, rig
from tests.commands import fieldfleet
from tests.servers import wait_until

SECONDS_MAX: Final = 60.0
LINES_MAX: Final = 60
CLASSES: Final = {"body_camera", "in_car_terminal", "traffic_light", "interrogation_room"}
ALL_REPORTING: Final = re.compile(rb"receipts [1-9].*(  [a-z]+-\d+ reporting){4}")
CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where the demo puts what is temporary; nothing of it may run or be there afterwards."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    yield directory
    wait_until(lambda: not running_in(directory), f"no process of the demo: {running_in(directory)}")
    wait_until(lambda: not list(directory.iterdir()), f"nothing in {directory}: {list(directory.iterdir())}")


def running_in(directory: Path) -> dict[int, str]:
    """Every process that was started with a path in *directory*, or in it."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            at = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(directory) in command or at.startswith(str(directory)):
            found[int(process.name)] = command
    return found


def start(place: Path, *arguments: str, terminal: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fleet_server.cli", "demo", *arguments],
        env=os.environ | {"TMPDIR": str(place), "TERM": "xterm-256color", "COLUMNS": "180", "LINES": "60"},
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.STDOUT,
        start_new_session=terminal is not None,
    )


def started(place: Path) -> subprocess.Popen[bytes]:
    """A demo that has shown four devices that report."""
    demo = start(place)
    assert demo.stdout is not None
    seen = b""
    for line, _ in zip(demo.stdout, range(LINES_MAX), strict=False):  # one a second
        seen += line
        if ALL_REPORTING.search(line):
            return demo
    demo.kill()
    raise AssertionError(seen.decode(errors="replace"))


def part_of(demo: subprocess.Popen[bytes], place: Path, words: str) -> int:
    """The process id of one of its programs."""
    (pid,) = [pid for pid, command in running_in(place).items() if words in command and pid != demo.pid]
    return pid


def ended(demo: subprocess.Popen[bytes], seconds_max: float = SECONDS_MAX) -> tuple[int, str]:
    output, _ = demo.communicate(timeout=seconds_max)
    return demo.returncode, output.decode(errors="replace")


@pytest.mark.parametrize("broker", ["embedded", pytest.param("mosquitto", marks=pytest.mark.server("mosquitto"))])
def test_by_itself_it_ends_with_everything_sealed_stored_and_receipted(
    place: Path, tmp_path: Path, broker: str
) -> None:
    path = tmp_path / "report.json"
    code, output = ended(start(place, "--seconds", "6", "--broker", broker, "--report", str(path)))
    assert code == 0, output
    report = json.loads(path.read_text())
    assert (report["broker"], report["stopped_cleanly"]) == (broker, True)
    assert {device["device_class"] for device in report["fleet"]} == CLASSES
    assert report["devices"] == report["devices_connected"] == report["devices_reporting"] == 4, report
    assert report["all_reporting_s"] > 0
    stored = report["records_stored"] + report["records_quarantined"]
    assert report["records_sealed"] == stored == report["records_receipted"] > 0
    assert (report["records_missing"], report["records_duplicate"], report["gaps_unexplained"]) == (0, 0, 0)
    assert all(device["values_stored"] >= 20 for device in report["fleet"]), report
    assert all(size > 0 for size in report["agent_rss_bytes"].values())
    files = report["files"]
    assert files["made"] == files["verified"] > 0, files
    assert files["unlike"] == 0


@pytest.mark.server("ffmpeg")
@pytest.mark.server("mosquitto")
def test_what_the_camera_records_is_kept_though_its_link_is_cut_and_the_broker_killed(
    place: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    arguments = ("--seconds", "27", "--faults", "--broker", "mosquitto", "--report", str(path))
    code, output = ended(start(place, *arguments))
    assert code == 0, output
    report = json.loads(path.read_text())
    assert report["files"]["made"] == report["files"]["verified"] >= 9, report["files"]
    assert (report["files"]["unlike"], report["records_missing"], report["gaps_unexplained"]) == (0, 0, 0)


@pytest.mark.server("mosquitto")
def test_a_good_change_waits_for_an_interview_and_a_bad_one_undoes_itself_and_stops_its_rollout(
    place: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    arguments = ("--seconds", "50", "--changes", "--broker", "mosquitto", "--report", str(path))
    code, output = ended(start(place, *arguments), seconds_max=180)
    assert code == 0, output
    report = json.loads(path.read_text())
    good, bad = report["rollouts"]
    assert (good["phase"], set(good["devices"].values())) == ("completed", {"succeeded"}), good
    assert "interview_in_progress" in good["waited"]["room-2"], good
    assert bad["phase"] == "canceled", bad
    assert bad["devices"]["camera-12"] == "failed", bad
    assert {state for device, state in bad["devices"].items() if device != "camera-12"} == {"canceled"}, bad
    assert report["devices_connected"] == report["devices_reporting"] == 4, report
    assert (report["records_missing"], report["gaps_unexplained"]) == (0, 0)


def test_asked_to_end_it_ends_in_order(place: Path) -> None:
    demo = started(place)
    demo.send_signal(signal.SIGTERM)
    code, output = ended(demo)
    assert code == 0, output
    assert "0 missing, 0 duplicates, 0 unexplained gaps" in output


def test_asked_before_it_began_it_ends_at_once(place: Path) -> None:
    demo = start(place)
    wait_until(lambda: any("fleet_server run" in command for command in running_in(place).values()), "a server")
    demo.send_signal(signal.SIGINT)
    code, output = ended(demo)
    assert code in {0, 1}, output
    assert "Traceback" not in output


def test_meanwhile_the_command_sees_the_devices_and_no_gap(place: Path) -> None:
    demo = started(place)
    (site,) = place.glob("*/site")

    def ask(*arguments: str) -> Any:
        return json.loads(fieldfleet(site, *arguments, "--json"))

    devices = ask("devices")["devices"]
    assert {device["device_class"] for device in devices if device["connected"]} == CLASSES
    series = ask("series", "room-2", "room", "--from", "-5m")
    assert all(-20 < value < 60 for value in series["columns"]["temp_c"])
    assert "agent.start" in {event["kind"] for event in ask("events", "car-7")["events"]}
    assert ask("gaps", "--reason", "unexplained") == {"gaps": []}
    demo.send_signal(signal.SIGINT)
    assert ended(demo)[0] == 0


def test_killed_it_leaves_nothing(place: Path) -> None:
    demo = started(place)
    assert len(running_in(place)) >= 12
    demo.kill()
    demo.communicate(timeout=SECONDS_MAX)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("broker_config.embedded", "broker"),
        ("devices/light-3/agent.toml", "agent of light-3"),
    ],
)
def test_when_a_part_dies_it_says_which_and_ends(place: Path, words: str, name: str) -> None:
    demo = started(place)
    os.kill(part_of(demo, place, words), signal.SIGKILL)
    code, output = ended(demo)
    assert code == 1
    assert f"fieldfleet: the {name} ended with -9" in output, output


def test_with_a_directory_site_store_and_logs_are_kept(place: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    code, output = ended(start(place, "--seconds", "3", "--dir", str(kept)))
    assert code == 0, output
    assert {"site.toml", "broker.log", "server.log", "agent-of-car-7.log"} <= {path.name for path in kept.iterdir()}
    assert running_in(kept) == {}
    code, output = ended(start(place, "--seconds", "3", "--dir", str(kept)))
    assert (code, "never overwritten" in output) == (1, True)


class Terminal:
    """The near end of one on which a demo runs: what it drew since the last look, and its keys."""

    def __init__(self, near: int) -> None:
        self._near = near
        self._drawn = b""

    def press(self, keys: str) -> None:
        os.write(self._near, keys.encode())

    def until(self, pattern: str) -> None:
        """Read on until *pattern* was drawn after what was waited for last."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            text = CONTROL.sub("", self._drawn.decode(errors="replace"))
            if re.search(pattern, text):
                self._drawn = b""
                return
            assert time.monotonic() < deadline, f"{pattern}: not in {text[-4000:]}"
            self._drawn += self._read()

    def to_the_end(self) -> str:
        with suppress(OSError):  # Linux says so when the last of the other side is gone
            while piece := self._read():
                self._drawn += piece
        return CONTROL.sub("", self._drawn.decode(errors="replace"))

    def _read(self) -> bytes:
        return os.read(self._near, 65_536)


@contextmanager
def on_terminal(place: Path) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    ours, theirs = pty.openpty()
    demo = start(place, terminal=theirs)
    os.close(theirs)
    try:
        yield demo, Terminal(ours)
    finally:
        os.close(ours)
        if demo.poll() is None:
            demo.kill()
            demo.wait()


def test_keys_take_parts_away_and_the_table_shows_that_they_come_back(place: Path) -> None:
    with on_terminal(place) as (demo, terminal):
        terminal.until(r"room-2 +interrogation_room +yes +yes")
        terminal.press("2a")
        terminal.until(r">2 +car-7 .*not running +agent killed, back in \d s")
        terminal.press("a")  # again: at once
        terminal.until(r"car-7 +in_car_terminal +yes +yes +yes .* MiB +\r?\n")
        terminal.press("3i")
        terminal.until(r"light-3 +signal .*plan -  mode -")
        terminal.press("i")
        terminal.until(r"light-3 +signal .*plan 3  mode 2")
        terminal.press("4l")
        terminal.until(r"room-2 +interrogation_room +yes +no .*link cut")
        terminal.press("lb")
        terminal.until(r"embedded broker not connected")
        terminal.press("b")
        terminal.until(r"embedded broker connected")
        terminal.press("q")
        drawn = terminal.to_the_end()
        assert demo.wait(SECONDS_MAX) == 0, drawn
        for words in ("keys: 1-4 choose a device", "look yourself", "in a browser: http://"):
            assert words in drawn, drawn
        assert re.search(r" 0 missing, \d+ duplicates, 0 unexplained gaps", drawn), drawn


def test_a_terminal_that_is_closed_ends_it(place: Path) -> None:
    with on_terminal(place) as (demo, terminal):
        terminal.until(r"room-2 +interrogation_room +yes")
        demo.send_signal(signal.SIGHUP)
        terminal.to_the_end()
        assert demo.wait(SECONDS_MAX) == 0


def test_without_mosquitto_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rig, "SYSTEM_DIRECTORIES", str(tmp_path))
    with pytest.raises(rig.NoBrokerError, match="sudo apt-get install mosquitto"):
        rig.find_broker()


@pytest.mark.parametrize("device_class", sorted(CLASSES))
def test_a_hastened_profile_differs_in_its_cadence_only(device_class: str) -> None:
    text = (Path(fleet.__file__).parents[3] / "edge_agent" / "profiles" / f"{device_class}.toml").read_text()
    shipped, hastened = tomllib.loads(text), tomllib.loads(fleet.hastened(text))
    assert {wire.pop("every_s") for wire in hastened["wires"]} == {fleet.EVERY_S, fleet.BOARD_EVERY_S}
    for wire in shipped["wires"]:
        wire.pop("every_s", None)
    assert hastened == shipped
