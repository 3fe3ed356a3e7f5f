"""Twins, layers and groups in either database."""

import pytest
from sqlalchemy import Engine, func, select

from broker_config.twin import ApplyWindow, ChangeState, Reported, SettingValue
from fleet_server.adapters.sql import config_layers, database, twin_rows
from fleet_server.adapters.sql.config_layers import SqlLayers
from fleet_server.adapters.sql.twin_tables import twin_desired, twin_document, twin_reported
from fleet_server.adapters.sql.twins import SqlTwins
from fleet_server.change.layers import FLEET, Layer, LayerKind, LayerName, Leaf, Placed, Source
from fleet_server.change.store import StaleError, TooManyError
from fleet_server.change.twins import Drift, Twin, Versions, Wish

NOW_MS = 1_767_225_600_000
FROM_FLEET = Source(FLEET, 1)


@pytest.fixture
def twins(engine: Engine) -> SqlTwins:
    database.migrate(engine)
    return SqlTwins(engine)


@pytest.fixture
def layers(engine: Engine) -> SqlLayers:
    database.migrate(engine)
    return SqlLayers(engine)


def wish(device: str, rollout: str = "", **config: SettingValue) -> Wish:
    return Wish(device, config, dict.fromkeys(config, FROM_FLEET), "token:root", "layer fleet@1", rollout)


def said(
    version: int, desired: int = 0, state: ChangeState = ChangeState.CURRENT, **config: SettingValue
) -> Reported:
    in_force = desired if state is ChangeState.CURRENT else 0
    return Reported(1, version, "ab" * 8, desired, in_force, state, config)


# desired


def test_what_is_desired_has_a_version_only_if_it_is_different(twins: SqlTwins) -> None:
    assert twins.desire([wish("cam-7", video="720p"), wish("cam-8")], now_ms=NOW_MS) == {"cam-7": NOW_MS}
    assert twins.desire([wish("cam-7", video="720p")], now_ms=NOW_MS + 5) == {}
    assert twins.desire([wish("cam-7", video="1080p")], now_ms=NOW_MS) == {"cam-7": NOW_MS + 1}
    assert twins.desire([wish("cam-7")], now_ms=NOW_MS) == {"cam-7": NOW_MS + 2}  # the defaults again
    aim = twins.twin("cam-7").aim
    assert aim is not None
    assert (aim.version, aim.config, aim.by, aim.origin) == (NOW_MS + 2, {}, "token:root", "layer fleet@1")
    assert twins.twin("cam-8") == Twin("cam-8")


def test_true_is_another_value_than_one(twins: SqlTwins) -> None:
    twins.desire([wish("cam-7", x=True)], now_ms=NOW_MS)
    assert twins.desire([wish("cam-7", x=1)], now_ms=NOW_MS) == {"cam-7": NOW_MS + 1}


def test_another_source_of_the_same_value_is_known_and_no_new_version(twins: SqlTwins) -> None:
    twins.desire([wish("cam-7", video="720p")], now_ms=NOW_MS)
    source = Source(LayerName(LayerKind.DEVICE, "cam-7"), 4)
    again = wish("cam-7", video="720p")._replace(provenance={"video": source})
    assert twins.desire([again], now_ms=NOW_MS + 1) == {}
    aim = twins.twin("cam-7").aim
    assert aim is not None
    assert (aim.version, aim.provenance) == (NOW_MS, {"video": source})


def test_all_of_a_wish_is_kept(twins: SqlTwins) -> None:
    wanted = wish("cam-7", "ab" * 8, video="720p")._replace(confirm_s=60, window=ApplyWindow(60, 120, (1, 7)))
    twins.desire([wanted], now_ms=NOW_MS)
    aim = twins.twin("cam-7").aim
    assert aim is not None
    assert (aim.rollout, aim.confirm_s, aim.window) == ("ab" * 8, 60, ApplyWindow(60, 120, (1, 7)))
    assert aim.desired.version == NOW_MS


def test_a_document_that_many_desire_is_stored_once(twins: SqlTwins, engine: Engine) -> None:
    twins.desire([wish(f"cam-{number}", video="720p") for number in range(600)], now_ms=NOW_MS)
    with database.reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(twin_document)).scalar_one() == 2
    assert len(twins.versions([f"cam-{number}" for number in range(600)])) == 600


def test_who_is_held_gets_what_the_holder_wishes_alone(twins: SqlTwins) -> None:
    assert twins.hold(["cam-7", "cam-8"], "r1") == ["cam-7", "cam-8"]
    assert twins.hold(["cam-8", "cam-9"], "r2") == ["cam-9"]
    assert twins.desire([wish("cam-7", video="720p"), wish("cam-7", "r2", video="720p")], now_ms=NOW_MS) == {}
    assert twins.desire([wish("cam-7", "r1", video="720p")], now_ms=NOW_MS) == {"cam-7": NOW_MS}
    assert twins.desire([wish("cam-7", video="1080p")], now_ms=NOW_MS) == {"cam-7": NOW_MS + 1}  # held no longer
    twins.free(["cam-8"], "r2")
    assert twins.twin("cam-8").held_by == "r1"
    twins.free(["cam-8"], "r1")
    assert twins.desire([wish("cam-8", video="720p")], now_ms=NOW_MS) == {"cam-8": NOW_MS}


def test_a_restored_server_desires_above_what_a_device_took_up(twins: SqlTwins) -> None:
    twins.desire([wish("cam-7", video="720p"), wish("cam-8", video="720p")], now_ms=NOW_MS)
    hour_ms = 3_600_000
    twins.report([("cam-7", said(5, NOW_MS + hour_ms, video="720p"))], now_ms=NOW_MS)
    assert twins.renew(["cam-7"], now_ms=NOW_MS + 1) == {"cam-7": NOW_MS + hour_ms + 1}
    aim = twins.twin("cam-7").aim
    assert aim is not None
    assert aim.config == {"video": "720p"}
    # what is ahead by more than a counter may be is not believed: it would end all changes
    twins.report([("cam-8", said(5, 2**53 - 1, video="720p"))], now_ms=NOW_MS)
    assert twins.renew(["cam-8", "cam-9"], now_ms=NOW_MS + 1) == {"cam-8": NOW_MS + 1}


# reported


def test_only_what_is_newer_is_kept_of_what_a_device_reports(twins: SqlTwins) -> None:
    twins.desire([wish("cam-7", video="720p")], now_ms=NOW_MS)
    assert twins.report([("cam-7", said(9, video="1080p"))], now_ms=NOW_MS) == {"cam-7": Versions(NOW_MS, 9, 0)}
    assert twins.report([("cam-7", said(9, NOW_MS, video="720p"))], now_ms=NOW_MS) == {
        "cam-7": Versions(NOW_MS, 9, 0)
    }
    assert twins.twin("cam-7").drift is Drift.PENDING
    found = twins.report([("cam-7", said(10, NOW_MS, video="720p")), ("cam-8", said(1))], now_ms=NOW_MS)
    assert found == {"cam-7": Versions(NOW_MS, 10, NOW_MS), "cam-8": Versions(0, 1, 0)}
    assert twins.drifts(["cam-7", "cam-8", "cam-9"]) == {"cam-7": Drift.IN_SYNC, "cam-8": Drift.IN_SYNC}


@pytest.mark.parametrize(
    ("reported", "state"),
    [
        (None, Drift.NEVER_REPORTED),
        (said(1), Drift.PENDING),
        (said(1, NOW_MS, ChangeState.APPLYING), Drift.PENDING),
        (said(1, NOW_MS, ChangeState.CONFIRMING, video="720p"), Drift.PENDING),
        (said(1, NOW_MS, ChangeState.DEFERRED), Drift.DEFERRED),
        (said(1, NOW_MS, ChangeState.REVERTED), Drift.REVERTED),
        (said(1, NOW_MS, ChangeState.FAILED), Drift.FAILED),
        (said(1, NOW_MS, ChangeState.REFUSED), Drift.REFUSED),
        (said(1, NOW_MS, video="720p", keep_alive_s=60), Drift.IN_SYNC),
        (said(1, NOW_MS, video="1080p"), Drift.DRIFTED),  # somebody else set it
        (said(1, NOW_MS), Drift.DRIFTED),  # it cannot be set there
        (said(1, NOW_MS + 1, video="720p"), Drift.IN_SYNC),  # newer than the server knows
    ],
)
def test_drift_is_told_and_found(twins: SqlTwins, reported: Reported | None, state: Drift) -> None:
    twins.desire([wish("cam-7", video="720p")], now_ms=NOW_MS)
    if reported is not None:
        twins.report([("cam-7", reported)], now_ms=NOW_MS)
    assert twins.twin("cam-7").drift is state
    assert twins.drifts(["cam-7"]) == {"cam-7": state}


def test_a_new_wish_makes_a_device_in_sync_pending(twins: SqlTwins) -> None:
    twins.desire([wish("cam-7", video="720p")], now_ms=NOW_MS)
    twins.report([("cam-7", said(1, NOW_MS, video="720p"))], now_ms=NOW_MS)
    twins.desire([wish("cam-7", video="1080p")], now_ms=NOW_MS)
    assert twins.drifts(["cam-7", "cam-8"]) == {"cam-7": Drift.PENDING}


# histories


def test_history_is_found_by_version_and_by_time(twins: SqlTwins) -> None:
    for number, video in enumerate(("720p", "1080p", "1440p")):
        twins.desire([wish("cam-7", video=video)], now_ms=NOW_MS + 1_000 * number)
        twins.report(
            [("cam-7", said(number + 1, NOW_MS + 1_000 * number, video=video))], now_ms=NOW_MS + 1_000 * number + 9
        )
    versions = [aim.version for aim in twins.desired_history("cam-7", before=None, rows_max=10)]
    assert versions == [NOW_MS + 2_000, NOW_MS + 1_000, NOW_MS]
    assert [aim.version for aim in twins.desired_history("cam-7", before=versions[1], rows_max=1)] == [NOW_MS]
    reports = twins.reported_history("cam-7", before=3, rows_max=10)
    assert [report.reported.version for report in reports] == [2, 1]
    then = twins.at("cam-7", NOW_MS + 1_005)
    assert then.aim is not None
    assert then.report is not None
    assert (then.aim.config, then.report.reported.config) == ({"video": "1080p"}, {"video": "720p"})
    assert twins.at("cam-7", NOW_MS - 1) == Twin("cam-7")


def test_a_report_that_says_the_same_again_is_no_entry(twins: SqlTwins) -> None:
    for version in (3, 4, 7):
        twins.report([("cam-7", said(version, video="720p"))], now_ms=NOW_MS + version)
    reports = twins.reported_history("cam-7", before=None, rows_max=10)
    assert [(report.at_ms, report.reported.version) for report in reports] == [(NOW_MS + 3, 7)]


def test_the_oldest_entries_go(twins: SqlTwins, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_rows, "HISTORY_MAX", 3)
    for number in range(1, 8):
        twins.desire([wish("cam-7", pre_event_s=number)], now_ms=NOW_MS)
        twins.report([("cam-7", said(number, pre_event_s=number))], now_ms=NOW_MS)
    with database.reading(engine) as connection:
        for table in (twin_desired, twin_reported):
            assert connection.execute(select(table.c.number).order_by(table.c.number)).scalars().all() == [5, 6, 7]
    assert twins.twin("cam-7").aim is not None


# layers and groups


def test_a_layer_has_a_revision_that_must_be_seen(layers: SqlLayers) -> None:
    first = layers.put_layer(FLEET, {"video": "720p", "keep_alive_s": None}, expected=0, by="a", now_ms=1)
    assert first == Layer(FLEET, 1, {"video": Leaf("720p", 1), "keep_alive_s": Leaf(None, 1)}, 1, "a")
    with pytest.raises(StaleError) as stale:
        layers.put_layer(FLEET, {}, expected=0, by="b", now_ms=2)
    assert stale.value.revision == 1
    second = layers.put_layer(FLEET, {"video": "720p", "battery_low_pct": 15.0}, expected=1, by="b", now_ms=2)
    assert second.leaves == {"video": Leaf("720p", 1), "battery_low_pct": Leaf(15.0, 2)}
    assert layers.layer(FLEET) == second
    assert layers.put_layer(FLEET, dict(second.document), expected=2, by="c", now_ms=3) == second


def test_layers_of_single_devices_are_asked_for_by_name(layers: SqlLayers) -> None:
    own, node = LayerName(LayerKind.DEVICE, "cam-7"), LayerName(LayerKind.ORG_NODE, "hq")
    for name in (own, node, FLEET):
        layers.put_layer(name, {"keep_alive_s": 30}, expected=None, by="a", now_ms=1)
    assert [layer.name for layer in layers.all_layers()] == [FLEET, node]
    assert layers.layers([own, LayerName(LayerKind.DEVICE, "cam-8"), node]).keys() == {own, node}


def test_a_group_is_made_changed_and_taken_away_with_its_layer(layers: SqlLayers) -> None:
    night = LayerName(LayerKind.GROUP, "night")
    made = layers.put_group("night", 5, ["cam-7", "cam-8"], expected=0, now_ms=1)
    assert made.before is None
    assert made.members == {"cam-7", "cam-8"}
    layers.put_layer(night, {"video": "720p"}, expected=0, by="a", now_ms=1)
    placed = Placed("cam-7", "body_camera", "")
    assert layers.layering().of(placed, None) == ({"video": "720p"}, {"video": Source(night, 1)})
    changed = layers.put_group("night", 6, ["cam-8", "cam-9"], expected=1, now_ms=9)
    assert changed.members == {"cam-7", "cam-8", "cam-9"}
    assert changed.after == layers.group("night")
    assert layers.layering().of(placed, None) == ({}, {})
    with pytest.raises(StaleError):
        layers.drop_group("night", expected=1)
    assert layers.drop_group("night", expected=2).members == {"cam-8", "cam-9"}
    assert (layers.groups(), layers.layer(night)) == ([], None)


def test_groups_are_bounded(layers: SqlLayers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_layers, "GROUPS_MAX", 1)
    monkeypatch.setattr(config_layers, "MEMBERS_MAX", 2)
    layers.put_group("night", 5, ["a", "b"], expected=None, now_ms=1)
    with pytest.raises(TooManyError, match="at most 1 groups"):
        layers.put_group("day", 5, [], expected=None, now_ms=1)
    with pytest.raises(TooManyError, match="at most 2, got 3"):
        layers.put_group("night", 5, ["a", "b", "c"], expected=None, now_ms=1)
