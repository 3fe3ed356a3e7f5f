"""The driver as it is, through BlueZ's bus: BlueZoo answers as BlueZ and carries between two adapters; the sensor is
bluez-peripheral's. Each is a process of its own.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import program, wait_until

HERE, THERE = "00:00:00:00:00:01", "00:00:00:00:00:02"
START_S_MAX = 30.0
READ_S_MAX = 60.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Bus:
    directory: Path
    environment: dict[str, str]

    @contextlib.contextmanager
    def running(self, name: str, *command: str, ready: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program whose output goes into the file *name*, from when it has said *ready* to the block's end."""
        out = self.directory / name
        with (
            out.open("wb") as file,
            subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=self.environment, cwd=ROOT
            ) as process,
        ):
            try:
                wait_until(lambda: ready in out.read_text() or process.poll() is not None, name, START_S_MAX)
                assert ready in out.read_text(), out.read_text()
                yield process
            finally:
                process.kill()

    def read(self, mode: str, changes: int) -> list[dict[str, float | str]]:
        """What a reader of its own read, until the temperature had changed so often."""
        done = subprocess.run(
            reads(mode, changes),
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=READ_S_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def reads(mode: str, changes: int) -> list[str]:
    return [sys.executable, "-m", "tests.firmware_bridge.bluez_read", THERE, mode, str(changes)]


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    """With BlueZ's stand-in and a sensor on it."""
    daemon = program("dbus-daemon")
    assert daemon is not None
    address = f"unix:path={tmp_path / 'bus'}"
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address, "DBUS_SESSION_BUS_ADDRESS": address}
    found = Bus(tmp_path, environment)
    adapters = [each for address in (HERE, THERE) for each in ("-a", address)]
    bluez = [str(Path(sys.executable).with_name("bluezoo")), "-v", "--auto-enable", "--scan-interval", "1", *adapters]
    sensor = [sys.executable, "-m", "tests.firmware_bridge.bluez_sensor", THERE]
    with (
        found.running(
            "dbus", daemon, "--session", f"--address={address}", "--nofork", "--print-address", ready="unix:"
        ),
        found.running("bluez", *bluez, ready=THERE),
        found.running("sensor", *sensor, ready="ready"),
    ):
        yield found


@pytest.mark.server("dbus-daemon")
@pytest.mark.parametrize("mode", ["read", "notify"])
def test_a_sensor_is_found_identified_and_read(bus: Bus, mode: str) -> None:
    told = bus.read(mode, 3)
    temperatures = [each["temp_c"] for each in told]
    assert all(isinstance(each, float) and each >= 21.5 for each in temperatures)
    assert len(set(temperatures)) == 3
    assert {each["humidity_pct"] for each in told} == {48.2}
    assert {each["battery_pct"] for each in told} == {"the device has no 0x2a19 in a service 0x180f"}


@pytest.mark.server("dbus-daemon")
def test_a_connection_that_a_killed_agent_left_behind_is_taken_over(bus: Bus) -> None:
    with bus.running("killed", *reads("read", 1000), ready="temp_c") as agent:
        agent.kill()
        agent.wait()
    assert bus.read("read", 2)
