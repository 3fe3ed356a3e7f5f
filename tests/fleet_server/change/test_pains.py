"""What users of other fleet managers report about twins, rollouts and commands: each pain is not one here.

The numbers are those of a survey of such reports. A pain has a test with its number in its name, here or elsewhere,
or is shown by others (``SHOWN_BY``), or a line says why it cannot happen (``NOT_HERE``);
``test_every_pain_is_accounted_for`` holds the three together.
"""

import re
from pathlib import Path
from typing import Final

import pytest

from broker_config.twin import ChangeState, SettingValue
from fleet_server.change.rollout_plan import AbortRule, Ill, Plan, Rate, Retries, Spread, Stop, Timers, Wave
from fleet_server.change.rollout_state import ENDS, Phase, State
from tests.fleet_server.change.played import CAMERA, Played, migrated_once

TESTS: Final = Path(__file__).parents[2]
ABOUT: Final = {23, 24, 25, 26, 30, 31, 32, 33, 34, 35, 36, 37, 38, 40, 41, 42, 43, 44, 53, 56}
"""The rows that are about twins, rollouts or commands."""

SHOWN_BY: Final[dict[int, tuple[str, ...]]] = {
    23: (
        "edge_agent/test_twin_over_mosquitto.py::test_pains_23_and_42_what_was_desired_while_it_was_away_is_asked_for",
    ),
    25: (
        "fleet_server/change/test_layers.py::test_each_leaf_is_what_the_last_layer_that_has_it_says",
        "fleet_server/api/test_twins.py::test_each_value_of_a_twin_says_where_it_comes_from",
    ),
    31: (
        "edge_agent/test_configuring.py::test_pains_31_and_40_killed_before_and_after_each_step_it_ends_with_old_or_new_and_says_which",
        "edge_agent/test_orders.py::test_killed_at_any_step_it_never_does_it_twice_and_says_that_it_was_interrupted",
    ),
    33: (
        "edge_agent/test_twin_over_mosquitto.py::test_pains_23_and_42_what_was_desired_while_it_was_away_is_asked_for",
    ),
    37: ("edge_agent/test_leases.py::test_pain_37_a_stale_file_is_no_lease_and_one_that_is_written_again_is_one_on",),
    40: (
        "edge_agent/test_changing.py::test_in_every_stage_what_was_confirmed_last_is_kept",
        "edge_agent/test_configuring.py::test_a_damaged_file_is_set_aside_and_what_was_confirmed_last_is_taken",
    ),
    42: (
        "edge_agent/test_changing.py::test_an_older_version_is_never_taken_up",
        "fleet_server/change/test_service.py::test_a_restored_server_is_obeyed",
    ),
}
"""Pain -> tests elsewhere that show it is none."""

NOT_HERE: Final = {
    32: "Nothing but births and the server's state is retained, and each command has an id and a counter of its own:"
    " one that hangs keeps no other from its device (broker_config/policy.py, the conformance suite).",
    38: "A configuration is a few KiB, and takes no space that was free. A disk that takes nothing takes no change up"
    " either, and what was applied is undone: edge_agent/test_configuring.py.",
    43: "Who is meant is read from the tables themselves, not from an index beside them.",
    56: "What was done is in the device's journal, which has no holes; the twin is never read as a log of events.",
}
"""Pain -> why it cannot happen."""


@pytest.fixture
def played(tmp_path: Path) -> Played:
    migrated_once(tmp_path)
    return Played(tmp_path, 8)


def begun(played: Played, **more: object) -> str:
    patch: dict[str, SettingValue | None] = {"video": "720p"}
    fields = {"name": "720p", "layer": f"class/{CAMERA}", "patch": patch, "rate": Rate(600), "abort": ()}
    return played.rolling.create(Plan(**{**fields, **more}), by="token:ann")  # type: ignore[arg-type]


def test_every_pain_is_accounted_for() -> None:
    told = "\n".join(file.read_text() for file in TESTS.rglob("test_*.py"))
    names = re.findall(r"^(?:async )?def (test_pains?_\w+)", told, re.MULTILINE)
    here = {int(number) for name in names for number in re.findall(r"(?<=_)\d+(?=_)", name)}
    assert here | SHOWN_BY.keys() | NOT_HERE.keys() >= ABOUT - FOR_COMMANDS
    for shown in (each for some in SHOWN_BY.values() for each in some):
        file, _, name = shown.partition("::")
        assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE), shown


FOR_COMMANDS: Final = {44}
"""Said with the server's side of commands."""


def test_pain_24_who_says_that_it_is_current_and_shows_something_else_has_failed(played: Played) -> None:
    """A device came back with its old version and reported success."""
    rollout = begun(played)
    for device in played.fleet.values():
        device.lies = True
    played.pass_(5)
    assert played.states(rollout) == {State.FAILED: 8}


def test_pain_26_and_30_no_device_is_under_way_for_ever_and_no_rollout_hangs(played: Played) -> None:
    """Devices took an update up, or never did, and nothing was heard of them again."""
    for number, device in enumerate(played.fleet.values()):
        device.does = (None, ChangeState.APPLYING, ChangeState.CONFIRMING, ChangeState.CURRENT)[number % 4]
    rollout = begun(played, timers=Timers(step_s=30, total_s=60, silent_s=20))
    played.pass_(3)
    for number, device in enumerate(played.fleet.values()):
        device.connected = number >= 4
    played.pass_(120, every_s=5)
    assert not {State.OFFERED, State.APPLYING, State.WAITING, State.VERIFYING} & played.states(rollout).keys()
    assert {State.TIMED_OUT, State.SILENT} <= played.states(rollout).keys()
    assert played.head(rollout).phase in ENDS | {Phase.PAUSED}


def test_pain_34_devices_that_are_deleted_move_no_threshold(played: Played) -> None:
    """Deleted targets stayed in the denominator, and a rollout never reached its threshold."""
    names = sorted(played.fleet)
    for name in names[:4]:
        played.fleet[name].does = None
    rollout = begun(played, waves=(Wave("canary", "100%", success_pct=100), Wave("rest")))
    played.pass_(3)
    for name in names[:4]:
        played.registry.forget(name, expected=None, now_ms=0)
        del played.fleet[name]
    played.until(lambda: played.head(rollout).phase is Phase.COMPLETED)
    assert played.states(rollout) == {State.SUCCEEDED: 4}


def test_pain_35_one_who_rejected_it_is_never_offered_it_again_and_a_site_is_not_first(played: Played) -> None:
    """Groups were made by creation date, so that one site's uplink carried all; what was denied stayed offered."""
    for number in range(8, 24):
        played.add(f"cam-{number:02}", "station-1")
    for device in played.fleet.values():
        device.does = ChangeState.REFUSED
    plan = {"waves": (Wave("canary", "8", min_done=8, success_pct=0), Wave("rest")), "spread": Spread(station_pct=20)}
    rollout = begun(played, retries=Retries(failed=10, timed_out=10), **plan)
    played.pass_(1)
    at_once = [name for name, each in played.members(rollout).items() if each.executed]
    assert len(at_once) <= 5  # a fifth of each station
    played.pass_(120, every_s=5)
    assert played.states(rollout)[State.REJECTED] >= 8
    assert all(member.tries_failed == 0 for member in played.members(rollout).values())
    assert all(device.said <= 1 for device in played.fleet.values())


def test_pain_36_a_cancellation_waits_for_no_device(played: Played) -> None:
    """The server waited for the device's word that it had canceled, and devices canceled what had succeeded."""
    for device in played.fleet.values():
        device.does = ChangeState.APPLYING
    rollout = begun(played, timers=Timers(grace_s=30))
    played.pass_(3)
    played.rolling.cancel(rollout, by="token:bob", reason="")
    played.until(lambda: played.head(rollout).phase is Phase.CANCELED, seconds_max=40)
    assert played.states(rollout) == {State.CANCELED: 8}


def test_pain_53_what_is_done_of_it_is_said_plainly(played: Played) -> None:
    """Queries to many devices were dropped in silence, and a partial answer looked like a whole one."""
    kinds = (ChangeState.CURRENT, ChangeState.FAILED, ChangeState.REFUSED, ChangeState.DEFERRED)
    for number, device in enumerate(played.fleet.values()):
        device.does = kinds[number % 4]
    played.fleet["cam-00"].connected = False
    rollout = begun(played)
    played.pass_(5)
    assert played.states(rollout) == {
        State.QUEUED: 1,
        State.SUCCEEDED: 1,
        State.FAILED: 2,
        State.REJECTED: 2,
        State.WAITING: 2,
    }
    assert played.head(rollout).waits == {"not there": 1, "waits for recording": 2}


def test_a_rule_that_is_broken_stops_it_before_the_next_wave(played: Played) -> None:
    """What the pains above have in common: nobody has to watch."""
    for device in played.fleet.values():
        device.does = ChangeState.FAILED
    rollout = begun(
        played, waves=(Wave("canary", "2"), Wave("rest")), abort=(AbortRule(Ill.FAILED, 0.0, 1, Stop.CANCEL),)
    )
    played.until(lambda: played.head(rollout).phase is Phase.CANCELED)
    assert played.states(rollout) == {State.FAILED: 2, State.CANCELED: 6}
