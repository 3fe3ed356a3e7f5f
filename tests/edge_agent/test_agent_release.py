"""Another agent waits for leases that defer firmware, and goes on with the change that brought it."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from broker_config import device_classes
from broker_config.device_classes import Change
from broker_config.signing import Kind
from broker_config.twin import Desired, SettingValue
from edge_agent import obeying
from edge_agent.adapters.applying import RestartError
from edge_agent.adapters.twin_file import TwinFile
from edge_agent.configuring import Configuring
from edge_agent.handlers import ByFile, ByRelease
from edge_agent.obeying import Order
from tests.edge_agent.configurer import OWN, Board
from tests.orders import ROOTS, claims, order

NEW = "agent/body_camera/0.2.0.tar"


class Runs:
    """What runs, as the places would say; puts nothing anywhere."""

    def __init__(self, running: str = "", committed: str = "") -> None:
        self._running = running
        self._committed = committed
        self.put_in: list[str] = []

    def in_force(self) -> str:
        return self._committed

    def running(self) -> str:
        return self._running

    def check(self, name: str) -> str:
        return "" if name == self._running else "another one"

    def commit(self) -> str:
        self._committed = self._running
        return ""

    async def put(self, name: str) -> str:
        self.put_in.append(name)
        raise RestartError


class Camera:
    """A device that can be set to another agent."""

    def __init__(self, directory: Path, runs: Runs) -> None:
        self.lease = {Change.CONFIG: "", Change.FIRMWARE: "recording"}
        self.runs, self.restarts, board = runs, 0, Board()
        self.configuring = Configuring(
            device_classes.load("body_camera"),
            {"video": ByFile(str(directory / "video.json"), needs_server=False), "agent_release": ByRelease()},
            OWN,
            TwinFile(directory, lambda _step: None),
            board,
            journal=board,
            waits_for=lambda change: self.lease[change],
            now_ms=lambda: 1_767_225_600_000,
            wall_ms=lambda: 1_767_225_600_000,
            say=lambda _payload: None,
            come_back=lambda: None,
            ready=lambda: True,
            release=runs,
            restart=self._restart,
        )

    def _restart(self) -> None:
        self.restarts += 1

    def ordered(self, version: int, **config: str) -> None:
        wanted = Desired(1, version, dict[str, SettingValue](config), 600)
        found = obeying.read(order(claims(wanted, kind=Kind.TWIN)), Kind.TWIN, ROOTS)
        assert isinstance(found, Order)
        assert self.configuring.carry_out(found)

    def status(self, *names: str) -> list[object]:
        return [self.configuring.status()[name] for name in names]

    async def until(self, ready: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.configuring.run())
        try:
            async with asyncio.timeout(20):
                while not ready():  # noqa: ASYNC110 - a device tells nobody
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_another_agent_waits_for_what_defers_firmware_and_other_settings_do_not(tmp_path: Path) -> None:
    camera = Camera(tmp_path, Runs())
    camera.ordered(5, video="720p")
    await camera.until(lambda: camera.status("stage", "in_force") == ["idle", 5])
    camera.ordered(6, video="720p", agent_release=NEW)
    await camera.until(lambda: camera.status("stage", "waits_for") == ["waiting", "recording"])
    assert camera.runs.put_in == []
    camera.lease[Change.FIRMWARE] = ""
    await camera.until(lambda: camera.restarts == 1)
    assert (camera.runs.put_in, camera.status("stage", "in_force")) == ([NEW], ["applying", 5])


async def test_the_agent_that_is_started_next_is_confirmed_by_the_server_and_only_then_committed(
    tmp_path: Path,
) -> None:
    before = Camera(tmp_path, Runs())
    before.lease[Change.FIRMWARE] = ""
    before.ordered(6, agent_release=NEW)
    await before.until(lambda: before.restarts == 1)
    after = Camera(tmp_path, Runs(running=NEW))
    await after.until(lambda: after.status("stage") == ["confirming"])
    assert after.runs.in_force() == ""
    after.configuring.connecting()
    after.configuring.connected()
    after.configuring.heard_server()
    await after.until(lambda: after.status("stage", "in_force") == ["idle", 6])
    assert after.runs.in_force() == NEW


async def test_the_old_agent_that_was_started_again_says_what_became_of_the_new_one(tmp_path: Path) -> None:
    class GivenUp(Runs):
        async def put(self, name: str) -> str:
            return f"given up before: {name} was started 3 times"

    before = Camera(tmp_path, Runs())
    before.lease[Change.FIRMWARE] = ""
    before.ordered(6, agent_release=NEW)
    await before.until(lambda: before.restarts == 1)
    after = Camera(tmp_path, GivenUp())
    await after.until(lambda: after.status("stage") == ["idle"])
    assert after.status("state", "in_force") == ["failed", 0]
    assert "given up before" in str(after.status("reason"))
