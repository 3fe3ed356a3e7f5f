"""Rollouts over a real database with played devices: what is desired of whom, when, and what is in the layer then."""

from collections.abc import Callable
from pathlib import Path

import pytest

from broker_config.twin import ApplyWindow, ChangeState, SettingValue
from fleet_server.change.layers import FLEET, LayerKind, LayerName
from fleet_server.change.planning import BadPlanError
from fleet_server.change.rolling import NoRolloutError
from fleet_server.change.rollout_plan import (
    AbortRule,
    Control,
    Ill,
    Metric,
    Plan,
    Rate,
    Spread,
    Stop,
    Then,
    Timers,
    Wave,
    Worse,
)
from fleet_server.change.rollout_state import NotNowError, PauseWhy, Phase, State
from fleet_server.outbound.happenings import Kind
from tests.fleet_server.change.played import CAMERA, Played, migrated_once

CAMERAS = LayerName(LayerKind.DEVICE_CLASS, CAMERA)
WAVES = (Wave("canary", "2", soak_s=10), Wave("rest", soak_s=2))


@pytest.fixture
def played(tmp_path: Path) -> Played:
    migrated_once(tmp_path)
    return Played(tmp_path, 10)


def plan(**more: object) -> Plan:
    patch: dict[str, SettingValue | None] = {"video": "720p"}
    fields = {"name": "720p", "layer": f"class/{CAMERA}", "patch": patch, "waves": WAVES, "rate": Rate(600)}
    return Plan(**{**fields, **more})  # type: ignore[arg-type]


def begun(played: Played, **more: object) -> str:
    return played.rolling.create(plan(**more), by="token:ann")


def ended(played: Played, rollout: str) -> Callable[[], bool]:
    return lambda: played.head(rollout).ended_ms is not None


def test_the_change_goes_in_waves_and_into_its_layer_when_all_went_well(played: Played) -> None:
    rollout = begun(played)
    played.pass_(5)
    assert len(played.having("video", "720p")) == 2
    assert played.layers.layer(CAMERAS) is None
    played.until(lambda: len(played.having("video", "720p")) > 2)
    assert played.states(rollout)[State.SUCCEEDED] == 2  # the canaries had their soak before
    played.until(ended(played, rollout))
    assert played.head(rollout).phase is Phase.COMPLETED
    assert played.having("video", "720p") == set(played.fleet)
    layer = played.layers.layer(CAMERAS)
    assert layer is not None
    assert layer.document == {"video": "720p"}
    twins = played.twins.twins(sorted(played.fleet)).values()
    assert {twin.held_by for twin in twins} == {""}
    assert len({twin.desired_version for twin in twins} | {twin.drift for twin in twins}) > 1
    assert [news.kind for news in played.news] == [Kind.ROLLOUT_ENDED]


def test_what_went_into_the_layer_is_no_second_change_for_who_has_it(played: Played) -> None:
    rollout = begun(played)
    played.until(ended(played, rollout))
    versions = {name: twin.desired_version for name, twin in played.twins.twins(sorted(played.fleet)).items()}
    played.pass_(5)
    assert {name: twin.desired_version for name, twin in played.twins.twins(sorted(played.fleet)).items()} == versions


def test_the_window_and_the_time_to_confirm_are_passed_on_to_the_device(played: Played) -> None:
    begun(played, window=ApplyWindow(120, 300), confirm_s=77)
    played.pass_(2)
    aims = [twin.aim for twin in played.twins.twins(sorted(played.fleet)).values() if twin.aim is not None]
    assert {(aim.window, aim.confirm_s) for aim in aims} == {(ApplyWindow(120, 300), 77)}


def test_a_bad_change_reverts_and_stops_its_rollout(played: Played) -> None:
    for device in played.fleet.values():
        device.does = ChangeState.REVERTED
    rule = AbortRule(Ill.FAILED, 10.0, 2, Stop.ROLL_BACK)
    rollout = begun(played, abort=(rule,))
    played.pass_(5)
    for device in played.fleet.values():
        device.does = ChangeState.CURRENT
    played.until(ended(played, rollout))
    assert played.head(rollout).phase is Phase.ROLLED_BACK
    assert played.having("video", "720p") == set()
    assert played.layers.layer(CAMERAS) is None
    assert played.states(rollout) == {State.CANCELED: 8, State.ROLLED_BACK: 2}
    assert all(played.desired(name) == {} for name in played.fleet)
    assert [news.kind for news in played.news] == [Kind.ROLLOUT_STOPPED, Kind.ROLLOUT_ENDED]


def test_a_server_that_is_killed_between_two_looks_goes_on(played: Played) -> None:
    rollout = begun(played)
    for _ in range(40):
        played.pass_(1)
        played.begin()
    played.until(ended(played, rollout))
    assert played.head(rollout).phase is Phase.COMPLETED


def test_a_turn_that_was_stored_and_not_carried_out_is_given_again(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = begun(played)
    with monkeypatch.context() as patch:
        patch.setattr(type(played.rolling), "_carry_out", lambda *_: None)
        played.pass_(1)
    assert played.states(rollout)[State.OFFERED] > 0
    played.begin()
    played.until(ended(played, rollout))
    assert played.having("video", "720p") == set(played.fleet)


def test_another_layer_reaches_devices_in_the_middle_of_a_rollout_with_the_change_in_it(played: Played) -> None:
    rollout = begun(played, waves=(Wave("canary", "2", soak_s=300), Wave("rest")))
    played.pass_(5)
    canaries = played.having("video", "720p")
    played.composer.put_layer(FLEET, {"pre_event_s": 60}, expected=None, by="token:bob")
    played.until(lambda: played.having("pre_event_s", 60) == set(played.fleet))
    assert played.having("video", "720p") == canaries
    assert len(canaries) == 2
    played.until(ended(played, rollout))
    assert played.having("video", "720p") == played.having("pre_event_s", 60) == set(played.fleet)


def test_who_is_canceled_keeps_the_change_until_it_is_rolled_back(played: Played) -> None:
    rollout = begun(played)
    played.pass_(5)
    played.rolling.cancel(rollout, by="token:bob", reason="later")
    played.until(ended(played, rollout))
    canaries = played.having("video", "720p")
    assert len(canaries) == 2
    played.composer.put_layer(FLEET, {"pre_event_s": 60}, expected=None, by="token:bob")
    played.pass_(150)
    assert played.having("video", "720p") == canaries
    assert played.having("pre_event_s", 60) == set(played.fleet)
    played.rolling.roll_back(rollout, by="token:bob", reason="")
    played.until(ended(played, rollout))
    assert played.head(rollout).phase is Phase.ROLLED_BACK
    assert played.having("video", "720p") == set()


def test_a_change_for_some_of_a_layer_stays_with_them_and_can_be_taken_back(played: Played) -> None:
    some = {"cam-01", "cam-02"}
    rollout = begun(played, where="device=in=(cam-01,cam-02)", into_layer=False)
    played.until(ended(played, rollout))
    assert played.head(rollout).phase is Phase.COMPLETED
    assert played.having("video", "720p") == some
    assert played.layers.layer(CAMERAS) is None
    played.composer.put_layer(FLEET, {"pre_event_s": 60}, expected=None, by="token:bob")
    played.pass_(150, every_s=5)
    assert played.having("pre_event_s", 60) == set(played.fleet)
    assert played.having("video", "720p") == some
    played.rolling.roll_back(rollout, by="token:bob", reason="")
    played.until(ended(played, rollout))
    assert played.having("video", "720p") == set()


def test_what_is_in_its_layer_is_not_rolled_back(played: Played) -> None:
    rollout = begun(played)
    played.until(ended(played, rollout))
    with pytest.raises(NotNowError, match="it is over"):
        played.rolling.roll_back(rollout, by="token:bob", reason="")


def test_a_newer_rollout_supersedes_an_older_one(played: Played) -> None:
    older = begun(played, waves=(Wave("canary", "10", soak_s=100_000), Wave("rest")))
    played.pass_(5)
    newer = begun(played, patch={"video": "1440p"}, waves=(Wave("all"),))
    played.until(ended(played, newer))
    assert played.head(newer).phase is Phase.COMPLETED
    assert played.having("video", "1440p") == set(played.fleet)
    assert played.states(older) == {State.SUPERSEDED: 10}
    played.until(ended(played, older))
    assert played.head(older).phase is Phase.CANCELED
    layer = played.layers.layer(CAMERAS)
    assert layer is not None
    assert layer.document == {"video": "1440p"}


def test_what_would_undo_something_newer_is_left_to_somebody(played: Played) -> None:
    played.composer.put_group("night", 0, ["cam-00", "cam-01"], expected=None, by="token:ann")
    older = begun(played, waves=(Wave("all", soak_s=30),))
    played.pass_(5)
    newer = begun(played, layer="group/night", patch={"video": "1440p"}, waves=(Wave("all"),))
    played.until(ended(played, newer))
    played.until(lambda: played.head(older).phase is Phase.PAUSED)
    pause = played.head(older).pause
    assert pause is not None
    assert pause.why is PauseWhy.SUPERSEDED
    played.rolling.resume(older)
    played.until(ended(played, older))
    assert played.having("video", "1440p") == {"cam-00", "cam-01"}  # the group's layer wins
    assert len(played.having("video", "720p")) == 8


def test_who_joins_late_is_of_the_last_wave_and_bound_by_the_rate(played: Played) -> None:
    rollout = begun(played, rate=Rate(1, max_per_min=1))
    played.pass_(3)
    played.add("cam-99")
    played.pass_(130, every_s=5)
    assert "cam-99" in played.members(rollout)
    assert len(played.having("video", "720p")) <= 3
    assert played.members(rollout)["cam-99"].wave == 1


def test_who_is_no_longer_selected_still_has_its_turn_before_the_layer_has_the_change(played: Played) -> None:
    rollout = begun(played, where="power.battery_pct=gt=20", waves=(Wave("canary", "2", soak_s=90), Wave("rest")))
    played.pass_(3)
    had = played.having("video", "720p")
    weak = next(name for name in played.fleet if name not in had)
    played.fleet[weak].reading = 5.0
    played.until(ended(played, rollout), every_s=5)
    assert played.states(rollout) == {State.SUCCEEDED: 10}


def test_who_is_deleted_is_on_no_side(played: Played) -> None:
    for device in played.fleet.values():
        device.does = None
    rollout = begun(played)
    played.pass_(3)
    for name in list(played.members(rollout)):
        if name != "cam-00":
            played.registry.forget(name, expected=None, now_ms=0)
    played.pass_(10)
    assert set(played.members(rollout)) == {"cam-00"}


def test_an_absent_device_has_its_turn_when_it_comes(played: Played) -> None:
    played.fleet["cam-03"].connected = False
    rollout = begun(played, waves=(Wave("all"),))
    played.pass_(30)
    assert played.states(rollout) == {State.SUCCEEDED: 9, State.QUEUED: 1}
    assert played.head(rollout).waits == {"not there": 1}
    played.fleet["cam-03"].connected = True
    played.until(ended(played, rollout))
    assert "cam-03" in played.having("video", "720p")


def test_a_worse_wave_pauses_it(played: Played) -> None:
    for number in range(10, 30):
        played.add(f"cam-{number:02}", f"station-{number % 2}")
    control = Control((Metric("power.battery_pct", Worse.LOWER),))
    rollout = begun(played, waves=(Wave("canary", "8", soak_s=5), Wave("rest")), control=control)
    played.pass_(3)
    for name in played.having("video", "720p"):
        played.fleet[name].reading = 40.0
    played.until(lambda: played.head(rollout).phase is Phase.PAUSED)
    pause = played.head(rollout).pause
    assert pause is not None
    assert pause.why is PauseWhy.CONTROL
    assert "power.battery_pct is lower by" in pause.text
    played.rolling.resume(rollout)
    played.until(ended(played, rollout))
    assert played.head(rollout).phase is Phase.COMPLETED


def test_a_wave_may_wait_for_somebody(played: Played) -> None:
    rollout = begun(played, waves=(Wave("canary", "2", then=Then.PAUSE), Wave("rest")))
    played.until(lambda: played.head(rollout).phase is Phase.PAUSED)
    played.pass_(60)
    assert len(played.having("video", "720p")) == 2
    played.rolling.resume(rollout)
    played.until(ended(played, rollout))
    assert [news.kind for news in played.news] == [Kind.ROLLOUT_PAUSED, Kind.ROLLOUT_ENDED]


def test_a_class_that_can_endanger_people_needs_a_second_person(played: Played) -> None:
    played.add("light-1", device_class="traffic_light")
    rollout = begun(played, layer="fleet", patch={"keep_alive_s": 45})
    played.pass_(5)
    assert played.head(rollout).phase is Phase.WAITING_APPROVAL
    assert played.having("keep_alive_s", 45) == set()
    with pytest.raises(NotNowError, match="second person"):
        played.rolling.approve(rollout, by="token:ann")
    played.rolling.approve(rollout, by="token:bob")
    played.until(ended(played, rollout))
    assert played.having("keep_alive_s", 45) == set(played.fleet)


def test_of_a_pair_both_are_never_touched_at_once(played: Played) -> None:
    played.composer.put_group("pair-1", 0, ["cam-00", "cam-01"], expected=None, by="token:ann")
    rollout = begun(played, waves=(Wave("all", soak_s=20),), spread=Spread())
    played.pass_(10)
    pair = [played.members(rollout)[name].state for name in ("cam-00", "cam-01")]
    assert sorted(pair) == [State.QUEUED, State.VERIFYING]
    played.until(ended(played, rollout))


def test_who_fell_silent_stops_it(played: Played) -> None:
    rule = AbortRule(Ill.SILENT, 0.0, 1, Stop.CANCEL)
    timers = Timers(silent_s=20)
    rollout = begun(played, waves=(Wave("canary", "2", soak_s=600), Wave("rest")), abort=(rule,), timers=timers)
    played.pass_(3)
    quiet, off = sorted(played.having("video", "720p"))
    played.fleet[off].connected, played.fleet[off].stopped = False, True  # it was switched off, and said so
    played.pass_(40)
    assert played.head(rollout).phase is Phase.RUNNING
    played.fleet[quiet].connected = False
    played.until(lambda: played.head(rollout).phase is not Phase.RUNNING, seconds_max=30)
    assert "silent" in played.head(rollout).why


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"layer": "colour/red"}, "layer: expected one of fleet, class/NAME"),
        ({"layer": "class/toaster"}, "nothing is known of class/toaster"),
        ({"patch": {"video": "9000p"}}, "patch.video: expected one of 720p"),
        ({"patch": {"no_such": 1}}, "patch.no_such: unknown"),
        ({"where": "device=="}, "where: position 8"),
        ({"where": "device==cam-0[12]"}, "where: position"),
        ({"where": "device==nobody"}, "nobody is meant"),
        ({"where": "device=in=(cam-01,cam-02)"}, "where: leaves out 8 devices"),
        ({"patch": {"video": None}}, "nobody is meant: no device's configuration would be another one"),
    ],
)
def test_what_cannot_begin_says_why(played: Played, more: dict[str, object], fault: str) -> None:
    assert any(fault in each for each in played.rolling.preview(plan(**more)).faults)
    with pytest.raises(BadPlanError):
        begun(played, **more)


def test_a_preview_says_whom_it_means_and_what_will_hold_it_up(played: Played) -> None:
    played.fleet["cam-04"].connected = False
    waves = (Wave("canary", "20%", where="node==hq/station-1"), Wave("rest"))
    control = Control((Metric("power.battery_pct", Worse.LOWER),))
    found = played.rolling.preview(plan(waves=waves, control=control, rate=Rate(4, max_per_min=4)))
    assert [len(wave) for wave in found.waves] == [2, 8]
    assert all(int(name[-2:]) % 2 for name in found.waves[0])
    assert sorted(name for wave in found.waves for name in wave) == sorted(played.fleet)
    assert found.faults == ()
    assert found.warnings == (
        "1 of 10 devices are not there now; each has its turn once it is",
        "wave canary: 2 devices are too few to compare, needs 5",
    )
    assert found.takes_s == 30 + 120
    assert played.rolling.store.all(phase=None, before=None, rows_max=9) == []


def test_what_is_not_there_cannot_be_changed(played: Played) -> None:
    with pytest.raises(NoRolloutError):
        played.rolling.resume("f" * 16)
