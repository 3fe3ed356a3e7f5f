"""Faults of a real fleet are told as alerts and clear when they are healed: Mosquitto, ``fleet-server`` and agents as
they are started, a signal cabinet that is played. Only times are shorter.
"""

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest

from firmware_bridge import ntcip
from firmware_bridge.peripherals.controller import Controller, SnmpPeripheral
from firmware_bridge.peripherals.modbus import Cabinet, ModbusPeripheral
from fleet_server.cli.server import Json
from tests.faults.programs import ROOT, Program
from tests.servers import HOST, free_port, wait_until
from tests.system.fleets import Fleet, running
from tests.system.hasty import CLOCK, HASTY

pytestmark = pytest.mark.server("mosquitto")

TOLD_S_MAX: Final = 90.0
"""A device that dies is told to be away when its will is: half a minute later."""
PATIENCE: Final = 0.02
TABLES: Final = """
[alerts]
patience = {patience}
look_s = 0.2

[measuring]
pace = 30

[outbound]
settle_s = 5
"""
SIGNAL_EVERY_S: Final = 1


class Cable:
    """Of an instrument that is played in another thread's *loop*."""

    def __init__(self, peripheral: ModbusPeripheral | SnmpPeripheral, loop: asyncio.AbstractEventLoop) -> None:
        self._peripheral = peripheral
        self._loop = loop

    def pull(self) -> None:
        self._do(self._peripheral.unplug)

    def plug(self) -> None:
        self._do(self._peripheral.plug)

    def _do(self, act: Callable[[], None]) -> None:
        async def done() -> None:
            act()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(30)


class Tampered(Cabinet):
    """A cabinet in which one can break things."""

    conflict = lamp_failed = False

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.controller = Controller(seed)

    @property
    def flashes(self) -> bool:
        """Whether its controller says that it flashes."""
        return self.controller.flash_status != ntcip.NOT_FLASH

    @flashes.setter
    def flashes(self, on: bool) -> None:
        self.controller.flash_status = 4 if on else ntcip.NOT_FLASH

    def bits(self, seconds: float) -> list[bool]:
        return [*super().bits(seconds)[:2], not self.conflict]

    def words(self, seconds: float) -> list[int]:
        found = super().words(seconds)
        found[5] = int(self.lamp_failed)
        return found


@contextmanager
def played(cabinet: Cabinet, controller: Controller, port: int, directory: Path) -> Iterator[Cable]:
    """The cabinet's line is behind the link ``line``, the controller at *port*, both in a loop of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    peripheral = ModbusPeripheral(cabinet, directory / "line", directory, lambda: 0.0)
    agent = SnmpPeripheral(controller, port, directory / "controller", lambda: 0.0, time.time)
    try:
        asyncio.run_coroutine_threadsafe(peripheral.start(), loop).result(30)
        cable, other = Cable(peripheral, loop), Cable(agent, loop)
        other.plug()
        yield cable
        other.pull()
        asyncio.run_coroutine_threadsafe(peripheral.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    at = tmp_path_factory.mktemp("alerts")
    tables = TABLES.format(patience=PATIENCE)
    clock = {CLOCK: str(at / "clock")}
    with running(at / "site", "mosquitto", tables=tables, server=HASTY, environment=clock) as made:
        put(made, "/v1/org-nodes/hq", {"kind": "centre", "name": "HQ"})
        for station in ("station-7", "station-8"):
            put(made, f"/v1/org-nodes/{station}", {"kind": "station", "name": station, "parent": "hq"})
        yield made


def put(fleet: Fleet, path: str, said: Json) -> None:
    fleet.server.send("PUT", path, json=said, headers={"If-None-Match": "*"})


def enrolled(fleet: Fleet, device: str, device_class: str, node: str) -> None:
    """It is registered at *node* and has its certificate; nobody has started it."""
    put(fleet, f"/v1/devices/{device}/registration", {"device_class": device_class, "node": node})
    done = fleet.enroll(device, fleet.claim_again(device))
    assert done.returncode == 0, done.stderr


def started(fleet: Fleet, device: str) -> Program:
    agent = fleet.agent(device)
    wait_until(lambda: fleet.is_connected(device), f"{device} is connected", TOLD_S_MAX)
    return agent


def alerts(fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cast("dict[str, Any]", fleet.server.get("/v1/alerts"))["alerts"]
    return found


def is_open(fleet: Fleet, rule: str, subject: str | None = None) -> bool:
    return any(each["rule"] == rule and subject in {None, each["device"], each["org"]} for each in alerts(fleet))


def told(fleet: Fleet, kind: str, rule: str) -> list[str]:
    """Of whom, oldest first."""
    document = cast("dict[str, Any]", fleet.server.get(f"/v1/happenings?kinds=alert.{kind}&limit=1000"))
    found = [each for each in document["happenings"][::-1] if each["data"]["alert"] == rule]
    return [each["device"] or each["org"] for each in found]


def opens(fleet: Fleet, rule: str, subject: str = "") -> dict[str, Any]:
    wait_until(lambda: is_open(fleet, rule, subject or None), f"{rule} {subject} opens", TOLD_S_MAX)
    wait_until(lambda: subject in told(fleet, "opened", rule), f"{rule} {subject} is told", TOLD_S_MAX)
    return next(each for each in alerts(fleet) if each["rule"] == rule)


def clears(fleet: Fleet, rule: str, subject: str = "") -> None:
    wait_until(lambda: not is_open(fleet, rule, subject or None), f"{rule} {subject} clears", TOLD_S_MAX)
    wait_until(lambda: subject in told(fleet, "cleared", rule), f"{rule} {subject} is told to be over", TOLD_S_MAX)
    assert told(fleet, "opened", rule).count(subject) == told(fleet, "cleared", rule).count(subject)


@pytest.fixture(scope="module")
def cabinet(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tampered, Cable]]:
    """Of light-1 at station-7, whose agent reads it every second."""
    at = tmp_path_factory.mktemp("cabinet")
    enrolled(fleet, "light-1", "traffic_light", "station-7")
    config = fleet.device_directory("light-1") / "agent.toml"
    profile = at / "profile.toml"
    shipped = (ROOT / "edge_agent/profiles/traffic_light.toml").read_text()
    profile.write_text(
        re.sub(r"^every_s = .*\n", "", shipped, flags=re.MULTILINE).replace(
            "[[wires]]\n", f"[[wires]]\nevery_s = {SIGNAL_EVERY_S}\n"
        )
    )
    text = re.sub(r'^profile = ".*"', f'profile = "{profile}"\nseal_s = 0.5', config.read_text(), flags=re.MULTILINE)
    port = free_port()
    config.write_text(f"{text}\n[addresses]\nline = '{at / 'line'}'\ncontroller = 'udp:{HOST}:{port}'\n")
    tampered = Tampered(seed=7)
    with played(tampered, tampered.controller, port, at) as cable:
        started(fleet, "light-1")
        wait_until(lambda: bool(latest(fleet, "light-1", "monitor")), "the cabinet is read", TOLD_S_MAX)
        yield tampered, cable


def latest(fleet: Fleet, device: str, stream: str) -> dict[str, float]:
    rows = cast("list[dict[str, Any]]", fleet.server.get(f"/v1/devices/{device}/latest"))
    return next((each["values"] for each in rows if each["stream"] == stream), {})


@pytest.mark.parametrize(
    ("fault", "rule"),
    [("conflict", "signal-conflict"), ("flashes", "signal-flash"), ("lamp_failed", "lamp-failed")],
)
def test_what_breaks_in_a_cabinet_is_told(
    fleet: Fleet, cabinet: tuple[Tampered, Cable], fault: str, rule: str
) -> None:
    setattr(cabinet[0], fault, True)
    alert = opens(fleet, rule, "light-1")
    assert (alert["org"], alert["device_class"]) == ("hq/station-7", "traffic_light")
    setattr(cabinet[0], fault, False)
    clears(fleet, rule, "light-1")


def test_a_cable_that_is_pulled_is_a_device_that_is_not_well(fleet: Fleet, cabinet: tuple[Tampered, Cable]) -> None:
    cabinet[1].pull()
    opens(fleet, "device-unhealthy", "light-1")
    cabinet[1].plug()
    clears(fleet, "device-unhealthy", "light-1")


def test_a_device_that_dies_is_an_alert_and_a_site_that_goes_is_one_with_its_devices_in_it(fleet: Fleet) -> None:
    """All at once: who dies is told to be away half a minute later."""
    boards = [f"board-8{at}" for at in range(4)]
    for board, node in (("board-1", "station-7"), *((board, "station-8") for board in boards)):
        enrolled(fleet, board, "host", node)
    agents = [started(fleet, board) for board in ("board-1", *boards)]
    for agent in agents:
        agent.kill()
    alert = opens(fleet, "device-dead", "board-1")
    assert alert["texts"]["zh-Hans"].endswith("未连接")
    assert alert["runbook"] == "docs/runbooks/device-dead.md"
    listed = subprocess.run(
        [sys.executable, "-m", "fleet_server.cli", "alerts", "--node", "hq/station-7", "--url",
         fleet.server.place.url, "--token-file", str(fleet.server.place.token_file)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "device-dead" in listed
    opens(fleet, "site-outage", "hq/station-8")
    wait_until(
        lambda: any(set(each["grouped"]) == set(boards) for each in alerts(fleet)), "all are in it", TOLD_S_MAX
    )
    assert [each["rule"] for each in alerts(fleet) if each["org"] == "hq/station-8"] == ["site-outage"]
    for board in ("board-1", *boards):
        fleet.agent(board)
    clears(fleet, "device-dead", "board-1")
    clears(fleet, "site-outage", "hq/station-8")
    assert not set(told(fleet, "opened", "device-dead")) & set(boards)


def test_a_broker_that_dies_is_told_and_no_device_with_it(fleet: Fleet) -> None:
    dead = told(fleet, "opened", "device-dead")
    fleet.broker.kill()
    opens(fleet, "broker-lost")
    fleet.broker.start()
    clears(fleet, "broker-lost")
    assert told(fleet, "opened", "device-dead") == dead


def test_a_certificate_that_ends_soon_is_told(fleet: Fleet) -> None:
    reconfigured(fleet, "[device_ca]", "[device_ca]\nleaf_d = 4")
    enrolled(fleet, "short-1", "host", "station-7")
    agent = started(fleet, "short-1")
    assert opens(fleet, "device-certificate", "short-1")["unit"] == "s"
    reconfigured(fleet, "leaf_d = 4", "leaf_d = 30")
    assert agent.stop() == 0
    assert fleet.enroll("short-1", fleet.claim_again("short-1"), "--again").returncode == 0
    started(fleet, "short-1")
    clears(fleet, "device-certificate", "short-1")


def reconfigured(fleet: Fleet, before: str, after: str) -> None:
    """The server is started anew with that in its configuration."""
    config = fleet.directory / "server/fleet-server.toml"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))
    assert fleet.program.stop() == 0
    fleet.program.start()
    wait_until(lambda: is_healthy(fleet), "the server is back", TOLD_S_MAX)


def is_healthy(fleet: Fleet) -> bool:
    try:
        return bool(fleet.server.get("/v1/health"))
    except Exception:  # noqa: BLE001 - whatever it is, it is not back
        return False


def test_a_rollout_that_is_paused_is_told(fleet: Fleet) -> None:
    said: Json = {"name": "x", "layer": "class/host", "patch": {"keep_alive_s": 45}, "confirm_s": 5}
    made = cast("dict[str, Any]", fleet.server.send("POST", "/v1/rollouts", json=said))
    rollout = made["rollout"]["rollout"]
    fleet.server.send("POST", f"/v1/rollouts/{rollout}/pause", json={"reason": "a drill"})
    opens(fleet, "rollout-paused")
    fleet.server.send("POST", f"/v1/rollouts/{rollout}/cancel", json={"reason": "a drill"})
    clears(fleet, "rollout-paused")
