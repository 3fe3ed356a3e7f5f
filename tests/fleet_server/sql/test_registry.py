"""The registry says what operators said, on either database, and changes all of it or nothing."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.projection.labels import Labels
from fleet_server.registry.model import (
    DeviceFilter,
    DutyUnit,
    InUseError,
    NodeKind,
    OrgNode,
    Registration,
    RegistryError,
    Reported,
    RuleError,
    StaleError,
    TakenError,
    UnknownError,
)

HQ = OrgNode("hq", NodeKind.CENTRE, "Command centre")
STATION = OrgNode("station-7", NodeKind.STATION, "Seventh station", "hq")
POST = OrgNode("post-3", NodeKind.POST, "Third post", "station-7")
CAR = Registration("car-7", "in_car_terminal", "SN-1", "station-7", "unit-4", "spare key in the office")
SAID = Reported("in_car_terminal", "fieldfleet/0.1.0", "Raspberry Pi 4", "in_car_terminal", "d" * 64, 5_000)


@pytest.fixture
def registry(engine: Engine) -> SqlRegistry:
    """With three nodes and one unit."""
    database.migrate(engine)
    registry = SqlRegistry(engine)
    for node in (HQ, STATION, POST):
        registry.put_node(node, expected=None, create=True, now_ms=0)
    registry.put_unit(DutyUnit("unit-4", "Fourth unit", "hq"), expected=None, create=True)
    return registry


def register(registry: SqlRegistry, *rows: Registration, now_ms: int = 1_000) -> None:
    for row in rows:
        registry.register(row, expected=None, create=True, now_ms=now_ms)


def ids(registry: SqlRegistry, wanted: DeviceFilter) -> list[str]:
    return [device.device for device in registry.devices(wanted, after="", rows_max=100)]


def test_what_was_registered_is_read_back_with_its_place(registry: SqlRegistry) -> None:
    made = registry.register(CAR, expected=0, create=True, now_ms=1_000)
    assert registry.device("car-7") == made
    assert (made.registration, made.path, made.registered_ms, made.revision) == (CAR, "hq/station-7", 1_000, 1)


def test_saying_the_same_again_changes_nothing(registry: SqlRegistry) -> None:
    register(registry, CAR)
    assert registry.register(CAR, expected=1, create=False, now_ms=2_000).revision == 1


def test_a_change_of_what_was_changed_meanwhile_is_refused(registry: SqlRegistry) -> None:
    register(registry, CAR, Registration("car-7", "in_car_terminal"))
    with pytest.raises(StaleError) as told:
        registry.register(CAR, expected=1, create=False, now_ms=2_000)
    assert told.value.revision == 2
    stays = registry.device("car-7")
    assert stays is not None
    assert stays.registration.serial is None


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (Registration("cam-1", "body_camera", "SN-1"), TakenError),
        (Registration("cam-1", "body_camera", node="nowhere"), UnknownError),
        (Registration("cam-1", "body_camera", unit="nobody"), UnknownError),
    ],
)
def test_what_cannot_be_registered_is_told_and_nothing_is_changed(
    registry: SqlRegistry, wanted: Registration, error: type[RegistryError]
) -> None:
    register(registry, CAR)
    with pytest.raises(error):
        register(registry, wanted)
    assert ids(registry, DeviceFilter()) == ["car-7"]


def test_an_import_is_all_or_nothing_and_tells_what_it_would_do(registry: SqlRegistry) -> None:
    register(registry, CAR)
    rows = [CAR, Registration("cam-1", "body_camera"), Registration("cam-2", "body_camera", node="nowhere")]
    with pytest.raises(UnknownError, match="nowhere"):
        registry.import_devices(rows, now_ms=2_000, dry_run=False)
    assert ids(registry, DeviceFilter()) == ["car-7"]
    would = registry.import_devices(rows[:2], now_ms=2_000, dry_run=True)
    assert (would.created, would.changed, would.unchanged) == (("cam-1",), (), 1)
    assert ids(registry, DeviceFilter()) == ["car-7"]
    assert registry.import_devices(rows[:2], now_ms=2_000, dry_run=False) == would
    assert ids(registry, DeviceFilter()) == ["cam-1", "car-7"]


def test_serials_may_change_hands_within_one_import(registry: SqlRegistry) -> None:
    register(registry, Registration("a", "host", "SN-A"), Registration("b", "host", "SN-B"))
    rows = [Registration("a", "host", "SN-B"), Registration("b", "host", "SN-A")]
    assert registry.import_devices(rows, now_ms=2_000, dry_run=False).changed == ("a", "b")
    assert [each.registration.serial for each in registry.devices(DeviceFilter(), after="", rows_max=9)] == [
        "SN-B",
        "SN-A",
    ]


def test_what_births_say_enters_a_device_and_never_touches_what_operators_said(registry: SqlRegistry) -> None:
    register(registry, CAR)
    registry.heard(
        [("car-7", SAID), ("cam-1", Reported("body_camera", at_ms=7_000)), ("x", Reported())], now_ms=8_000
    )
    car, camera, silent = (registry.device(name) for name in ("car-7", "cam-1", "x"))
    assert car is not None
    assert (car.registration, car.reported, car.revision) == (CAR, SAID, 1)
    assert camera is not None
    assert (camera.registered_ms, camera.revision, camera.registration.device_class) == (None, 0, "body_camera")
    assert silent is not None
    assert silent.reported == Reported()


def test_a_registration_that_is_taken_away_leaves_what_was_heard(registry: SqlRegistry) -> None:
    register(registry, CAR, Registration("never", "host"))
    registry.heard([("car-7", SAID)], now_ms=2_000)
    registry.forget("car-7", expected=1, now_ms=3_000)
    registry.forget("never", expected=None, now_ms=3_000)
    car = registry.device("car-7")
    assert car is not None
    assert (car.registered_ms, car.registration.serial, car.reported) == (None, None, SAID)
    assert registry.device("never") is None
    with pytest.raises(UnknownError):
        registry.forget("car-7", expected=None, now_ms=4_000)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (DeviceFilter(), ["cam-1", "cam-2", "car-7", "heard"]),
        (DeviceFilter(device_class="body_camera"), ["cam-1", "cam-2"]),
        (DeviceFilter(path="hq"), ["cam-1", "cam-2", "car-7"]),
        (DeviceFilter(path="hq/station-7"), ["cam-1", "car-7"]),
        (DeviceFilter(path="hq/station"), []),  # a path is whole names
        (DeviceFilter(unit="unit-4"), ["car-7"]),
        (DeviceFilter(registered=False), ["heard"]),
        (DeviceFilter(connected=False, path="hq/station-7"), ["cam-1", "car-7"]),
        (DeviceFilter(connected=True), []),
        (DeviceFilter(text="ca"), ["cam-1", "cam-2", "car-7"]),
        (DeviceFilter(text="SN"), ["car-7"]),
        (DeviceFilter(text="sn"), []),
        (DeviceFilter(text="c%"), []),
    ],
)
def test_devices_that_are_meant(registry: SqlRegistry, wanted: DeviceFilter, found: list[str]) -> None:
    register(
        registry,
        CAR,
        Registration("cam-1", "body_camera", node="post-3"),
        Registration("cam-2", "body_camera", node="hq"),
    )
    registry.heard([("heard", Reported("host", at_ms=1))], now_ms=1)
    assert ids(registry, wanted) == found


def test_pages_follow_each_other(registry: SqlRegistry) -> None:
    register(registry, *(Registration(f"d{at}", "host") for at in range(5)))
    first = registry.devices(DeviceFilter(), after="", rows_max=3)
    second = registry.devices(DeviceFilter(), after=first[-1].device, rows_max=3)
    assert [each.device for each in (*first, *second)] == [f"d{at}" for at in range(5)]


def test_tallies_count_by_place_and_class(registry: SqlRegistry) -> None:
    register(registry, CAR, Registration("cam-1", "body_camera"), Registration("cam-2", "body_camera"))
    assert [(each.path, each.device_class, each.devices, each.connected) for each in registry.tallies()] == [
        ("", "body_camera", 2, 0),
        ("hq/station-7", "in_car_terminal", 1, 0),
    ]


def test_a_node_that_moves_takes_along_what_is_below_it(registry: SqlRegistry) -> None:
    register(registry, CAR, Registration("cam-1", "body_camera", node="post-3"))
    registry.put_node(OrgNode("east", NodeKind.CENTRE, "East", "hq"), expected=None, create=True, now_ms=0)
    moved = registry.put_node(
        OrgNode("station-7", NodeKind.STATION, "Seventh", "east"), expected=1, create=False, now_ms=9
    )
    assert moved.path == "hq/east/station-7"
    assert [placed.path for placed in registry.nodes()] == [
        "hq",
        "hq/east",
        "hq/east/station-7",
        "hq/east/station-7/post-3",
    ]
    assert ids(registry, DeviceFilter(path="hq/east")) == ["cam-1", "car-7"]
    assert registry.labels("cam-1", 10_000) == Labels("body_camera", "hq/east/station-7/post-3")


@pytest.mark.parametrize(
    ("node", "error"),
    [
        (OrgNode("hq", NodeKind.CENTRE, "x", "post-3"), RuleError),
        (OrgNode("hq", NodeKind.STATION, "x"), RuleError),
        (OrgNode("station-7", NodeKind.POST, "x", "hq"), RuleError),
        (OrgNode("p", NodeKind.POST, "x"), RuleError),
        (OrgNode("p", NodeKind.POST, "x", "nowhere"), UnknownError),
        (OrgNode("station-7", NodeKind.CENTRE, "x", "hq"), RuleError),  # a post stands below it
    ],
)
def test_the_trees_rules(registry: SqlRegistry, node: OrgNode, error: type[RegistryError]) -> None:
    before = registry.nodes()
    with pytest.raises(error):
        registry.put_node(node, expected=None, create=True, now_ms=0)
    assert registry.nodes() == before


def test_nodes_are_imported_in_any_order(engine: Engine) -> None:
    database.migrate(engine)
    registry = SqlRegistry(engine)
    assert registry.import_nodes([POST, HQ, STATION], now_ms=0, dry_run=False).created == (
        "hq",
        "station-7",
        "post-3",
    )
    with pytest.raises(RuleError, match="circle"):
        registry.import_nodes(
            [OrgNode("a", NodeKind.CENTRE, "a", "b"), OrgNode("b", NodeKind.CENTRE, "b", "a")],
            now_ms=0,
            dry_run=False,
        )


@pytest.mark.parametrize(
    "drop",
    [
        lambda registry: registry.drop_node("station-7", expected=None),
        lambda registry: registry.drop_node("hq", expected=None),
        lambda registry: registry.drop_unit("unit-4", expected=None),
    ],
)
def test_what_is_in_use_stays(registry: SqlRegistry, drop: Callable[[SqlRegistry], None]) -> None:
    register(registry, CAR)
    before = (registry.nodes(), registry.units())
    with pytest.raises(InUseError):
        drop(registry)
    assert (registry.nodes(), registry.units()) == before


def test_what_nobody_uses_can_go(registry: SqlRegistry) -> None:
    registry.drop_unit("unit-4", expected=1)
    for node in ("post-3", "station-7", "hq"):
        registry.drop_node(node, expected=1)
    assert (registry.nodes(), registry.units()) == ([], [])


def test_labels_are_those_of_the_readings_own_time_after_a_restart_too(engine: Engine, registry: SqlRegistry) -> None:
    register(registry, CAR, now_ms=1_000)
    register(registry, Registration("car-7", "in_car_terminal", node="post-3"), now_ms=2_000)
    register(registry, Registration("car-7", "in_car_terminal"), now_ms=2_000)  # two changes within one ms
    for each in (registry, SqlRegistry(engine)):
        assert each.labels("car-7", 500) == Labels("in_car_terminal", "hq/station-7")
        assert each.labels("car-7", 1_999) == Labels("in_car_terminal", "hq/station-7")
        assert each.labels("car-7", 2_000) == Labels("in_car_terminal", "hq/station-7/post-3")
        assert each.labels("car-7", 2_001) == Labels("in_car_terminal", "unassigned")
        assert each.labels("nobody", 0) == Labels("unknown", "unassigned")
