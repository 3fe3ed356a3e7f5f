"""The demo shows this machine's own readings stored and receipted, and leaves nothing behind however it ends."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_server.cli.demo import rig
from tests.servers import wait_until

SECONDS_MAX = 60.0
STORED = re.compile(rb"stored [1-9]\d*  receipted [1-9]\d*")

pytestmark = pytest.mark.server("mosquitto")


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


def start(place: Path, *arguments: str, output: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fleet_server.cli", "demo", *arguments],
        env=os.environ | {"TMPDIR": str(place), "TERM": "xterm-256color", "COLUMNS": "180", "LINES": "50"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def started(place: Path) -> subprocess.Popen[bytes]:
    """A demo that has shown something stored and receipted."""
    demo = start(place)
    assert demo.stdout is not None
    seen = b""
    for line in demo.stdout:
        seen += line
        if STORED.search(line):
            return demo
    raise AssertionError(seen.decode(errors="replace"))


def part_of(demo: subprocess.Popen[bytes], place: Path, words: str) -> int:
    """The process id of one of its programs."""
    (pid,) = [pid for pid, command in running_in(place).items() if words in command and pid != demo.pid]
    return pid


def ended(demo: subprocess.Popen[bytes]) -> tuple[int, str]:
    output, _ = demo.communicate(timeout=SECONDS_MAX)
    return demo.returncode, output.decode(errors="replace")


def test_by_itself_it_ends_with_everything_sealed_stored_and_receipted(place: Path, tmp_path: Path) -> None:
    code, output = ended(start(place, "--seconds", "5", "--report", str(tmp_path / "report.json")))
    assert code == 0, output
    assert "available_bytes" in output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["stopped_cleanly"] is True
    assert report["devices"] == 1
    assert report["values_stored"] >= 20
    assert report["records_sealed"] == report["records_stored"] == report["records_receipted"] > 0
    assert (report["records_missing"], report["records_quarantined"], report["gaps_unexplained"]) == (0, 0, 0)
    assert report["agent_rss_bytes"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_it_ends_in_order(place: Path, number: signal.Signals) -> None:
    demo = started(place)
    demo.send_signal(number)
    code, output = ended(demo)
    assert code == 0, output
    assert "0 missing" in output


def test_meanwhile_the_command_sees_the_device_and_no_gap(place: Path) -> None:
    demo = started(place)
    (site,) = place.glob("*/site")

    def ask(*arguments: str) -> Any:
        command = [sys.executable, "-m", "fleet_server.cli", *arguments, "--site", str(site), "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    (device,) = ask("devices")["devices"]
    assert (device["device_class"], device["connected"]) == ("host", True)
    series = ask("series", device["device"], "memory", "--from", "-5m")
    assert all(value > 0 for value in series["columns"]["available_bytes"])
    events = ask("events", device["device"])["events"]
    assert "agent.start" in {event["kind"] for event in events}
    assert ask("gaps", "--reason", "unexplained") == {"gaps": []}
    demo.send_signal(signal.SIGINT)
    assert ended(demo)[0] == 0


def test_killed_it_leaves_nothing(place: Path) -> None:
    demo = started(place)
    assert len(running_in(place)) >= 3
    demo.kill()
    demo.communicate(timeout=SECONDS_MAX)


@pytest.mark.parametrize("words", ["mosquitto", "fleet_server run", "edge_agent run"])
def test_when_a_part_dies_it_says_which_and_ends(place: Path, words: str) -> None:
    demo = started(place)
    os.kill(part_of(demo, place, words), signal.SIGKILL)
    code, output = ended(demo)
    assert code == 1
    assert re.search(r"fieldfleet: the (broker|server|agent) ended with -9", output), output


def test_with_a_directory_site_store_and_logs_are_kept(place: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    code, output = ended(start(place, "--seconds", "3", "--dir", str(kept)))
    assert code == 0, output
    assert {"site.toml", "broker.log", "server.log", "agent.log"} <= {path.name for path in kept.iterdir()}
    assert running_in(kept) == {}
    code, output = ended(start(place, "--seconds", "3", "--dir", str(kept)))
    assert (code, "never overwritten" in output) == (1, True)


def test_on_a_terminal_it_draws_a_screen(place: Path) -> None:
    ours, theirs = pty.openpty()
    demo = start(place, "--seconds", "4", output=theirs)
    os.close(theirs)
    drawn = b""
    try:
        while piece := os.read(ours, 65_536):
            drawn += piece
    except OSError:  # Linux says so when the last of the other side is gone
        pass
    finally:
        os.close(ours)
    assert demo.wait(SECONDS_MAX) == 0, drawn.decode(errors="replace")
    for words in ("stream", "stored", "receipted", "missing", "cpu_pct", "look yourself"):
        assert words.encode() in drawn, words


def test_without_mosquitto_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rig, "SYSTEM_DIRECTORIES", str(tmp_path))
    with pytest.raises(rig.NoBrokerError, match="sudo apt-get install mosquitto"):
        rig.find_broker()


@pytest.mark.parametrize(
    ("host", "device"),
    [
        ("Unit-7.Example.org", "demo-unit-7-example-org"),
        ("", "demo-host"),
        ("北京", "demo-host"),
        ("x" * 80, "demo-" + "x" * 58),
    ],
)
def test_any_machine_is_a_device(host: str, device: str) -> None:
    assert rig.this_machine(host) == device
