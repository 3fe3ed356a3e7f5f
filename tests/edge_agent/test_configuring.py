"""What is desired is applied whole or not at all, whatever dies when, and the device can say which."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from broker_config import device_classes, twin
from broker_config.twin import Reported
from edge_agent import configuring, handlers
from edge_agent.adapters.twin_file import TwinFile
from edge_agent.changing import Kept
from edge_agent.handlers import AGENTS_OWN, ByAgent, ByFile, Handler
from edge_agent.journal import Kind
from tests.edge_agent import configurer
from tests.edge_agent.configurer import FIRST, NEW, OLD, SECOND, Board, device, ordered

ROOT = Path(__file__).parents[2]
DEFAULTS = {"mute_allowed": False}
CAMERA = device_classes.load("body_camera")


def nothing(_step: str) -> None:
    pass


# Killed in between --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "state"),
    [
        ("good", "current"),
        ("cannot be applied", "failed"),
        ("does not prove itself", "reverted"),
        ("has no check", "current"),
    ],
)
def test_pains_31_and_40_killed_before_and_after_each_step_it_ends_with_old_or_new_and_says_which(
    tmp_path: Path, scenario: str, state: str
) -> None:
    command = [sys.executable, "-m", "tests.edge_agent.configurer", str(tmp_path / "runs"), scenario]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    whole, *cuts = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [cut["step"] for cut in cuts]
    assert {"before waiting", "after applying", "before a handler", "after a handler", "after idle"} < set(steps)
    assert ("after confirming" in steps) is (state != "failed")
    assert ("after reverting" in steps) is (state != "current")
    assert whole["state"] == state
    for cut in cuts:
        twice = [cut["twice"]] if "twice" in cut else []
        for told in (cut["alone"], cut["again"], *twice):
            config = OLD if told["said"] == FIRST else NEW
            assert told["real"] == {**DEFAULTS, **config}, cut
            assert told["config"] == told["real"], cut
        # what was not yet taken up is not there; what was goes on by itself
        assert cut["alone"]["desired"] == (FIRST if cut["step"] == "before waiting" else SECOND)
        for again in (cut["again"], *twice):
            assert {name: again[name] for name in ("desired", "said", "state")} == {
                "desired": SECOND,
                "said": whole["said"],
                "state": state,
            }


# One after the other ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "AGAIN_S_MIN", 0.01)


async def until(ready: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(configurer.ENDED_S_MAX):
        while not ready():  # noqa: ASYNC110  # nothing tells it
            await asyncio.sleep(0.005)
    assert ready(), what


async def test_each_step_is_in_the_journal(tmp_path: Path) -> None:
    board = Board()
    found = device(tmp_path, "does not prove itself", nothing, board)
    running = asyncio.create_task(found.run())
    wrong: twin.Document = {"video": "8k"}
    for version, config, state in ((FIRST, OLD, "current"), (SECOND, NEW, "reverted"), (10, wrong, "refused")):
        assert found.carry_out(ordered(version, config))
        await until(lambda state=state: found.status()["state"] == state, state)  # type: ignore[misc]
        assert found.status()["taken"] == version
    running.cancel()
    assert board.noted == [
        (Kind.CONFIG_TAKEN, {"version": FIRST}),
        (Kind.CONFIG_APPLIED, {"version": FIRST}),
        (Kind.CONFIG_CONFIRMED, {"version": FIRST}),
        (Kind.CONFIG_TAKEN, {"version": SECOND}),
        (Kind.CONFIG_APPLIED, {"version": SECOND}),
        (Kind.CONFIG_REVERTED, {"version": SECOND, "to": FIRST, "reason": "sh ended with 1"}),
        (Kind.CONFIG_REFUSED, {"version": 10, "reason": "video: expected one of 720p, 1080p, 1440p, got '8k'"}),
    ]
    assert configurer.in_force(tmp_path) == {**DEFAULTS, **OLD}


@pytest.mark.parametrize("step", ["after waiting", "after confirming", "after idle"])
async def test_what_a_power_cut_kept_from_the_journal_the_next_start_tells_once(tmp_path: Path, step: str) -> None:
    class CutError(Exception):
        pass

    def cut(at: str) -> None:
        if at == step:
            raise CutError

    board = Board()
    found = device(tmp_path, "good", cut, board)
    running = asyncio.create_task(found.run())
    try:
        found.carry_out(ordered(FIRST, OLD))
        await running
    except CutError:
        running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    before = list(board.noted)
    again = Board()
    found = device(tmp_path, "good", nothing, again)
    running = asyncio.create_task(found.run())
    await until(lambda: bool(again.noted), "it tells")
    await until(lambda: found.status()["in_force"] == FIRST and found.status()["stage"] == "idle", "it goes on")
    running.cancel()
    before += again.noted
    assert [kind for kind, _ in before] == [Kind.CONFIG_TAKEN, Kind.CONFIG_APPLIED, Kind.CONFIG_CONFIRMED]
    if step == "after idle":
        last = Board()
        await device(tmp_path, "good", nothing, last)._begin()
        assert last.noted == []


async def test_pain_41_a_report_that_cannot_be_said_undoes_nothing(tmp_path: Path) -> None:
    found = device(tmp_path, "good", nothing)  # it never connects
    running = asyncio.create_task(found.run())
    found.carry_out(ordered(FIRST, NEW))
    await until(lambda: found.status()["stage"] == "idle" and found.status()["taken"] == FIRST, "it has ended")
    running.cancel()
    assert found.status()["state"] == "current"
    assert configurer.in_force(tmp_path) == {**DEFAULTS, **NEW}


async def test_what_comes_while_another_proves_itself_is_taken_up_after_it(tmp_path: Path) -> None:
    found = device(tmp_path, "does not prove itself", nothing)
    running = asyncio.create_task(found.run())
    found.carry_out(ordered(FIRST, NEW))
    await until(lambda: found.status()["stage"] == "confirming", "it proves itself")
    found.carry_out(ordered(SECOND, OLD))
    await until(lambda: found.status()["in_force"] == SECOND and found.status()["stage"] == "idle", "the next one")
    running.cancel()
    assert configurer.in_force(tmp_path) == {**DEFAULTS, **OLD}


async def test_an_older_version_that_is_signed_anew_changes_nothing(tmp_path: Path) -> None:
    found = device(tmp_path, "good", nothing)
    running = asyncio.create_task(found.run())
    found.carry_out(ordered(SECOND, NEW))
    await until(lambda: found.status()["in_force"] == SECOND, "the first")
    assert found.carry_out(ordered(FIRST, OLD))
    assert found.status()["taken"] == SECOND
    running.cancel()


# Disks --------------------------------------------------------------------------------------------------------------


class FullDisk(TwinFile):
    """Takes nothing while it is ``full``."""

    full = False

    def save(self, kept: Kept, *, good: bool) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().save(kept, good=good)


async def test_a_disk_that_takes_nothing_takes_nothing_up_and_the_order_may_come_again(tmp_path: Path) -> None:
    found, disk = device(tmp_path, "good", nothing), FullDisk(tmp_path, nothing)
    found._file = disk
    disk.full = True
    assert not found.carry_out(ordered(FIRST, OLD))
    disk.full = False
    assert found.carry_out(ordered(FIRST, OLD))


async def test_a_change_is_undone_though_the_disk_takes_nothing(tmp_path: Path) -> None:
    found, disk = device(tmp_path, "does not prove itself", nothing), FullDisk(tmp_path, nothing)
    found._file = disk
    running = asyncio.create_task(found.run())
    found.carry_out(ordered(FIRST, OLD))
    await until(lambda: found.status()["in_force"] == FIRST and found.status()["stage"] == "idle", "the first")
    found.carry_out(ordered(SECOND, NEW))
    await until(lambda: found.status()["stage"] == "confirming", "it proves itself")
    disk.full = True
    await until(lambda: found.status()["state"] == "reverted" and found.status()["stage"] == "idle", "it is undone")
    running.cancel()
    assert configurer.in_force(tmp_path) == {**DEFAULTS, **OLD}
    configurer.forked(tmp_path, "does not prove itself", None)  # what is stored is older, and comes to the same
    assert configurer.told(tmp_path)["real"] == {**DEFAULTS, **OLD}
    assert configurer.told(tmp_path)["state"] == "reverted"


@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 10_000, b"\xff", b'{"stage":"waiting"}', b'{"v":2}'])
def test_a_damaged_file_is_set_aside_and_what_was_confirmed_last_is_taken(tmp_path: Path, damage: bytes) -> None:
    configurer.forked(tmp_path, "good", ordered(FIRST, OLD))
    (tmp_path / "twin.json").write_bytes(damage)
    if damage == b"{}":  # is one that took nothing up: so is that
        assert TwinFile(tmp_path, nothing).load().in_force == 0
        return
    kept = TwinFile(tmp_path, nothing).load()
    assert (kept.in_force, kept.config) == (FIRST, OLD)
    assert any(".damaged-" in path.name for path in tmp_path.iterdir())


def test_without_any_file_nothing_was_taken_up(tmp_path: Path) -> None:
    assert TwinFile(tmp_path, nothing).load() == Kept()
    (tmp_path / "twin.json").write_bytes(b"x")
    (tmp_path / "twin.good.json").write_bytes(b"x")
    assert TwinFile(tmp_path, nothing).load() == Kept()


async def test_what_another_one_wrote_into_the_equipments_file_is_put_right_at_the_start(tmp_path: Path) -> None:
    configurer.forked(tmp_path, "good", ordered(FIRST, OLD))
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "video.json").unlink()
    running = asyncio.create_task(device(tmp_path, "good", nothing).run())
    await until(lambda: configurer.in_force(tmp_path) == {**DEFAULTS, **OLD}, "as it was confirmed")
    running.cancel()


# Handlers -----------------------------------------------------------------------------------------------------------

FILE = ByFile("/nowhere/settings.json", needs_server=False)


@pytest.mark.parametrize(
    ("config", "faults"),
    [
        ({"video": "720p"}, []),
        ({}, []),
        ({"pre_event_s": 30}, []),  # the default, which needs nobody
        ({"pre_event_s": 20}, ["pre_event_s: nothing here applies it"]),
        ({"broker_host": "a.example"}, []),
        ({"broker_host": "a..b"}, ["broker_host: expected a host's name or address, got 'a..b'"]),
        ({"broker_host": "bücher"}, ["broker_host: expected a host's name or address, got 'bücher'"]),
        ({"broker_host": ""}, ["broker_host: expected a host's name or address, got ''"]),
        ({"broker_host": "a" * 64}, [f"broker_host: expected a host's name or address, got '{'a' * 29}…'"]),
        ({"nothing": 1}, ["nothing: unknown"]),
    ],
)
def test_what_a_device_cannot_be_set_to(config: twin.Document, faults: list[str]) -> None:
    known: dict[str, Handler] = {"video": FILE, "broker_host": ByAgent()}
    assert list(handlers.faults_of(CAMERA, known, config)) == faults


def test_settings_of_one_handler_are_applied_together_and_what_is_not_set_has_its_default() -> None:
    known: dict[str, Handler] = {"video": FILE, "mute_allowed": FILE, **dict.fromkeys(sorted(AGENTS_OWN), ByAgent())}
    own: twin.Document = {"broker_host": "a", "broker_port": 1, "keep_alive_s": 30}
    filled = handlers.filled(CAMERA, known, own, {"mute_allowed": True, "broker_port": 2, "pre_event_s": 1})
    assert filled == {"video": "1080p", "mute_allowed": True, **own, "broker_port": 2}
    assert handlers.grouped(known, filled)[0] == (FILE, {"video": "1080p", "mute_allowed": True})


def test_what_is_stored_can_be_said(tmp_path: Path) -> None:
    configurer.forked(tmp_path, "good", ordered(FIRST, OLD))
    said = twin.decode_said(twin.encode(configurer.reported(tmp_path)))
    assert isinstance(said, Reported)
    assert msgspec.structs.replace(said, version=1) == Reported(
        1, 1, "b0070000b0070000", FIRST, FIRST, twin.ChangeState.CURRENT, {**OLD, **DEFAULTS}
    )
