"""What is told of devices: once, in time, as one when many go, and only by a server that hears."""

import random
from collections.abc import Sequence
from typing import Final

import msgspec
import pytest

from fleet_server.outbound import memory
from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.outages import OutagePolicy
from fleet_server.outbound.watch import NEWS_LOOK_MAX, DeviceFacts, Told, Watch, WatchPolicy

T0: Final = 1_767_254_400_000
LOOK_MS: Final = 1_000
POLICY: Final = WatchPolicy(
    settle_ms=90_000,
    resume_ms=60_000,
    outages=OutagePolicy(
        together_devices=10, together_share=0.5, share_devices_min=3, gather_ms=5_000, gather_ms_max=30_000
    ),
)


def device(
    name: str, *, org: str = "hq/st-1", up: bool = True, overdue: str = "", faults: Sequence[str] = ()
) -> DeviceFacts:
    return DeviceFacts(name, "body_camera", org, up, (overdue,) if overdue else (), tuple(faults))


class Scene:
    """A watch, a fleet that changes, and time."""

    def __init__(self, *fleet: DeviceFacts, told: dict[str, Told] | None = None, baseline: bool = True) -> None:
        self.fleet = {each.device: each for each in fleet}
        self.now_ms = T0
        self.kept: memory.Changes = {}
        if told is None:
            told = {name: Told(each.connected, True, True) for name, each in self.fleet.items()} if baseline else {}
        self.watch = Watch(POLICY, told, baseline=baseline)

    def be(self, *devices: DeviceFacts) -> None:
        self.fleet.update({each.device: each for each in devices})

    def look(self, seconds: float = 1, *, judging: bool = True, recorded: bool = True) -> list[News]:
        """Everything told in so much time, looking each second."""
        told: list[News] = []
        for _ in range(max(1, int(1000 * seconds / LOOK_MS))):
            self.now_ms += LOOK_MS
            self.watch.begin()
            for look in (
                self.watch.look(self.fleet.values(), self.now_ms, judging=judging),
                self.watch.gathered(self.now_ms, judging=judging),
            ):
                if recorded:
                    told += look.news
                    self.kept = {**self.kept, **memory.devices(look.told)}
                    self.watch.accept(look, self.now_ms)
            self.watch.passed(judging=judging)
        return told

    def restart(self) -> "Scene":
        """The same fleet, seen by a server that has only what was recorded."""
        rows = [(topic, name, value) for (topic, name), value in self.kept.items() if value is not None]
        again = Scene(*self.fleet.values(), told=memory.read(rows).devices)
        again.now_ms, again.kept = self.now_ms, self.kept
        return again


def kinds(told: Sequence[News]) -> list[str]:
    return [each.kind.value for each in told]


CAM = device("cam-1")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([CAM], []),
        ([device("cam-1", up=False)], ["device.disconnected"]),
        # it went and was back before anybody was told
        ([], []),
        ([device("cam-1", up=False), CAM], ["device.disconnected", "device.connected"]),
        ([device("cam-1", overdue="power")] * 2, ["device.silent"]),
        ([device("cam-1", overdue="power")] * 2 + [CAM], ["device.silent", "device.reporting"]),
        # a device that went is silent too, and that is one thing
        ([device("cam-1", up=False, overdue="power")], ["device.disconnected"]),
        ([device("cam-1", faults=["driver.fault gnss: no fix"])], ["device.unhealthy"]),
        ([device("cam-1", faults=["driver.fault gnss"]), CAM], ["device.unhealthy", "device.healthy"]),
        # another detail of the same fault is no news
        (
            [device("cam-1", faults=["driver.fault gnss: a"]), device("cam-1", faults=["driver.fault gnss: b"])],
            ["device.unhealthy"],
        ),
        # another fault is
        (
            [device("cam-1", faults=["a"]), device("cam-1", faults=["a", "b"])],
            ["device.unhealthy", "device.unhealthy"],
        ),
        ([device("cam-1", faults=["a", "b"]), device("cam-1", faults=["a"])], ["device.unhealthy"]),
        ([device("cam-2")], ["device.connected"]),
        ([device("cam-2", up=False)], []),
    ],
)
def test_each_change_is_told_once(steps: list[DeviceFacts], expected: list[str]) -> None:
    scene = Scene(CAM)
    told: list[News] = []
    for step in steps:
        scene.be(step)
        told += scene.look(40)
    assert kinds(told) == expected


def test_a_device_that_is_back_while_it_waits_to_be_told_was_never_away() -> None:
    scene = Scene(CAM)
    scene.be(device("cam-1", up=False))
    told = scene.look(4)
    scene.be(CAM)
    assert told + scene.look(60) == []


def test_a_device_that_has_just_connected_may_take_a_while_until_it_reports() -> None:
    scene = Scene(device("cam-1", up=False))
    scene.be(device("cam-1", overdue="power"))
    assert kinds(scene.look(60)) == ["device.connected"]
    (told,) = scene.look(5)
    assert (told.kind, told.data) == (Kind.DEVICE_SILENT, {"streams": ("power",)})


def test_news_say_which_device_of_what_class_and_where() -> None:
    scene = Scene(CAM)
    scene.be(device("cam-1", up=False))
    (told,) = scene.look(10)
    assert (told.device, told.device_class, told.org) == ("cam-1", "body_camera", "hq/st-1")


@pytest.mark.parametrize(
    ("size", "gone", "expected"),
    [
        (40, 40, ["site.disconnected"]),
        (40, 10, ["site.disconnected"]),  # so many at once, though a quarter
        (40, 9, ["device.disconnected"] * 9),
        (6, 3, ["site.disconnected"]),  # half of a small place
        (7, 3, ["device.disconnected"] * 3),
        (2, 2, ["device.disconnected"] * 2),  # too few to be a place's
    ],
)
def test_devices_of_a_place_that_go_at_once_are_one_thing(size: int, gone: int, expected: list[str]) -> None:
    fleet = [device(f"cam-{n:02}") for n in range(size)]
    scene = Scene(*fleet, *(device(f"far-{n}", org="hq/st-2") for n in range(40)))
    scene.be(*(device(each.device, up=False) for each in fleet[:gone]))
    told = scene.look(60)
    assert kinds(told) == expected
    if expected == ["site.disconnected"]:
        assert (told[0].org, told[0].data["count"], told[0].data["devices"]) == ("hq/st-1", gone, size)
        names = told[0].data["names"]
        assert isinstance(names, tuple)
        assert len(names) <= 20


def test_a_place_that_comes_back_is_one_thing_too() -> None:
    fleet = [device(f"cam-{n:02}") for n in range(40)]
    scene = Scene(*fleet)
    scene.be(*(device(each.device, up=False) for each in fleet))
    assert kinds(scene.look(60)) == ["site.disconnected"]
    scene.be(*fleet)
    assert kinds(scene.look(60)) == ["site.connected"]


def test_an_outage_that_spreads_over_half_a_minute_is_told_in_few_happenings() -> None:
    # keep-alives of forty devices run out one after the other, and nobody's will comes
    fleet = [device(f"cam-{n:02}") for n in range(40)]
    scene = Scene(*fleet)
    told: list[News] = []
    for each in fleet:
        scene.be(device(each.device, up=False))
        told += scene.look(1)
    told += scene.look(120)
    assert sum(int(str(each.data["count"])) for each in told if each.kind is Kind.SITE_DISCONNECTED) == 40
    assert set(kinds(told)) == {"site.disconnected"}
    assert len(told) <= 3


def test_a_device_that_moves_to_another_place_while_it_waits_is_told_of_there() -> None:
    scene = Scene(CAM)
    scene.be(device("cam-1", up=False))
    scene.look(3)
    scene.be(device("cam-1", up=False, org="hq/st-2"))
    told = scene.look(20)
    assert [(each.kind, each.org) for each in told] == [(Kind.DEVICE_DISCONNECTED, "hq/st-2")]


def test_a_fleet_that_comes_back_after_a_restart_is_no_news() -> None:
    fleet = [device(f"cam-{n:04}", org=f"hq/st-{n % 23}") for n in range(1_000)]
    before = Scene(*fleet, told={})
    before.look(20)
    before.be(*(device(f"cam-{n:04}", org=f"hq/st-{n % 23}", up=False) for n in range(3)))
    before.look(20)
    # at first everybody looks gone: nothing was heard yet
    after = before.restart()
    for each in fleet:
        after.be(each._replace(connected=False))
    told = after.look(60, judging=False)
    # then all are there but two: one that was gone is back, one went meanwhile
    after.be(*fleet, device("cam-0001", org="hq/st-1", up=False), device("cam-0002", org="hq/st-2", up=False))
    after.be(device("cam-0500", org=f"hq/st-{500 % 23}", up=False))
    told += after.look(60)
    assert sorted((each.kind.value, each.device) for each in told) == [
        ("device.connected", "cam-0000"),
        ("device.disconnected", "cam-0500"),
    ]


def test_a_fleet_that_is_seen_for_the_first_time_is_remembered_and_not_told() -> None:
    scene = Scene(*(device(f"cam-{n}", up=n % 2 == 0) for n in range(100)), baseline=False)
    assert scene.look(90, judging=False) == []
    assert scene.look(60) == []
    assert len(scene.kept) == 100
    scene.be(device("cam-1", up=True))
    assert kinds(scene.look(60)) == ["device.connected"]


def test_nobody_waits_through_a_time_in_which_the_server_was_deaf() -> None:
    scene = Scene(CAM)
    scene.be(device("cam-1", up=False))
    told = scene.look(3)
    told += scene.look(120, judging=False)
    scene.be(CAM)
    assert told + scene.look(60) == []


def test_what_could_not_be_recorded_is_told_once_it_can() -> None:
    scene = Scene(CAM, device("cam-2"))
    scene.be(device("cam-1", up=False), device("cam-2", faults=["spool.full"]))
    scene.look(20, recorded=False)
    assert sorted(kinds(scene.look(20))) == ["device.disconnected", "device.unhealthy"]


def test_one_look_tells_a_bounded_number_and_the_next_the_rest() -> None:
    count = NEWS_LOOK_MAX + 500
    scene = Scene(*(device(f"cam-{n:05}") for n in range(count)))
    scene.be(*(device(f"cam-{n:05}", faults=["spool.full"]) for n in range(count)))
    assert len(scene.look(1)) == NEWS_LOOK_MAX
    assert len(scene.look(1)) == 500


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_what_is_told_in_the_end_is_what_is(seed: int) -> None:
    """A receiver that believes every happening knows the fleet once it is quiet, over restarts and deaf times."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    names = [f"cam-{n:02}" for n in range(30)]
    scene = Scene(*(device(name, org=f"hq/st-{n % 3}") for n, name in enumerate(names)), told={}, baseline=True)
    told: list[News] = []
    for _ in range(60):
        some = rng.sample(names, rng.choice([1, 1, 2, 25]))
        up = rng.random() < 0.5
        scene.be(*(device(name, org=f"hq/st-{names.index(name) % 3}", up=up) for name in some))
        told += scene.look(rng.choice([1, 4, 20]), judging=rng.random() < 0.9)
        if rng.random() < 0.1:
            scene = scene.restart()
    told += scene.look(120)
    assert scene.look(60) == []
    kept = [(topic, name, value) for (topic, name), value in scene.kept.items() if value is not None]
    believed = {name: each.connected for name, each in memory.read(kept).devices.items()}
    assert believed == {name: each.connected for name, each in scene.fleet.items() if name in believed}
    assert {name for name, each in scene.fleet.items() if each.connected} <= believed.keys()


def test_what_is_remembered_comes_back_as_it_was() -> None:
    told = {"cam-1": Told(True, False, False, ("driver.fault gnss", "spool.full"))}
    rows = [(topic, name, value) for (topic, name), value in memory.devices(told).items() if value is not None]
    assert memory.read([*rows, ("something newer", "x", msgspec.json.encode({}).decode())]).devices == told
