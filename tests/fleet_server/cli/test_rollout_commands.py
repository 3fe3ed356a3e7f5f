"""``fieldfleet rollout``: planned from a file, begun, watched to its end, stopped."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from broker_config.ids import DeviceId
from broker_config.twin import ChangeState, Reported
from fleet_server.change.rollout_state import NotNowError
from fleet_server.change.twins import Drift
from fleet_server.cli.server import Exit
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.cli.test_fieldfleet import document, run, table
from tests.fleet_server.fleet import BOOT, NOW, Fleet, birth

PLAN = """
name = "720p"
layer = "class/body_camera"
patch = { video = "720p", mute_allowed = {} }

[[waves]]
name = "canary"
size = "1"

[[waves]]
name = "rest"
"""


@pytest.fixture(scope="module")
def cameras(served: tuple[Fleet, Path]) -> Fleet:
    fleet = served[0]
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=0)
    for name in ("cam-7", "cam-8"):
        fleet.registry.register(Registration(name, "body_camera", node="hq"), expected=None, create=True, now_ms=0)
        fleet.arrive(birth(DeviceId(name)))
    return fleet


@pytest.fixture
def plan(
    cameras: Fleet, served: tuple[Fleet, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("FIELDFLEET_SITE", str(served[1]))
    file = tmp_path / "720p.toml"
    file.write_text(PLAN)
    yield str(file)
    for rollout, _ in cameras.rolling.store.open():
        with suppress(NotNowError):
            cameras.rolling.cancel(rollout, by="test", reason="")
    cameras.rolling.turn()


def begun(plan: str) -> str:
    made = document("rollout", "create", plan)
    assert made["rollout"]["plan"]["patch"] == {"video": "720p", "mute_allowed": None}
    name: str = made["rollout"]["rollout"]
    return name


def test_a_dry_run_shows_whom_it_means(plan: str) -> None:
    result = run("rollout", "create", plan, "--dry-run")
    assert result.exit_code == Exit.OK, result.output
    assert "canary" in result.stdout
    assert "cam-7" in result.stdout
    assert "if all goes well" in result.stdout


def test_a_dry_run_of_what_cannot_begin_says_why_and_fails(plan: str) -> None:
    Path(plan).write_text(PLAN.replace("720p", "9000p"))
    result = run("rollout", "create", plan, "--dry-run")
    assert result.exit_code == Exit.PROBLEM
    assert "cannot begin: patch.video: expected one of 720p" in result.stdout


def test_a_plan_that_is_no_toml_is_wrong_usage(plan: str) -> None:
    Path(plan).write_text("= =")
    assert run("rollout", "create", plan).exit_code == Exit.USAGE


def test_a_rollout_is_listed_and_shown_with_its_devices(plan: str, cameras: Fleet) -> None:
    rollout = begun(plan)
    cameras.rolling.turn()
    head, *rows = table("rollout", "list", "--phase", "running")
    assert head[:4] == ["rollout", "name", "layer", "phase"]
    assert [row[:4] for row in rows] == [[rollout, "720p", "class/body_camera", "running"]]
    shown = run("rollout", "show", rollout).stdout
    assert "class/body_camera: video=720p, mute_allowed=(default)" in shown
    assert "wave 1 of 2: canary" in shown
    states = {row[0]: row[1] for row in table("rollout", "devices", rollout)[1:]}
    assert sorted(states.values()) == ["offered", "queued"]
    (offered,) = table("rollout", "devices", rollout, "--state", "offered")[1:]
    assert states[offered[0]] == "offered"


def test_a_rollout_is_paused_resumed_canceled_and_rolled_back(plan: str) -> None:
    rollout = begun(plan)
    for command, phase in (
        (("pause", rollout, "--reason", "lunch"), "paused"),
        (("resume", rollout), "running"),
        (("cancel", rollout), "canceling"),
        (("rollback", rollout), "rolling back"),
    ):
        assert run("rollout", *command).stdout == f"{rollout}: {phase}\n"
    refused = run("rollout", "approve", rollout)
    assert refused.exit_code == Exit.PROBLEM
    assert "expected a rollout that is waiting_approval" in refused.stderr


def test_who_watches_sees_its_end(plan: str, cameras: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = begun(plan)
    done = threading.Event()

    def go_on() -> None:
        said = 0
        while not done.wait(0.1):
            cameras.rolling.turn()
            for name, twin in cameras.twins.twins(["cam-7", "cam-8"]).items():
                if twin.aim is not None and twin.drift is not Drift.IN_SYNC:
                    said += 1
                    version = twin.aim.version
                    config = dict(twin.aim.config)
                    reported = Reported(1, said, BOOT, version, version, ChangeState.CURRENT, config)
                    cameras.twins.report([(name, reported)], now_ms=NOW)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        result = run("rollout", "watch", rollout, "--json")
    finally:
        done.set()
        thread.join()
    assert result.exit_code == Exit.OK, result.output
    seen = [json.loads(line) for line in result.stdout.splitlines()]
    assert seen[-1]["phase"] == "completed"
    assert seen[-1]["counts"] == {"succeeded": 2}
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    after = run("rollout", "watch", rollout)
    assert (after.exit_code, "completed" in after.stdout) == (Exit.OK, True)


def test_who_watches_what_waits_for_somebody_is_not_kept(plan: str) -> None:
    Path(plan).write_text("approved_by_second = true\n" + PLAN.replace("720p", "1440p"))
    made = document("rollout", "create", plan)["rollout"]["rollout"]
    result = run("rollout", "watch", made)
    assert result.exit_code == Exit.PROBLEM
    assert "waiting approval" in result.stdout
