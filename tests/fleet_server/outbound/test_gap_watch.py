"""Each gap that nobody explains is told once, and each of what was receipted at once."""

from typing import Final

from fleet_server.outbound import gap_watch, memory
from fleet_server.outbound.gap_watch import EXPLAIN_MS, FORGET_MS, GapWatch
from fleet_server.outbound.happenings import News, text
from fleet_server.projection.labels import Labels
from fleet_server.telemetry.view import Gap, GapReason

T0: Final = 1_767_254_400_000
LABELS: Final = {"cam-1": Labels("body_camera", "hq/st-1"), "cam-2": Labels("body_camera", "hq/st-1")}


def gap(
    first: int, *, device: str = "cam-1", reason: GapReason = GapReason.UNEXPLAINED, is_open: bool = False
) -> Gap:
    return Gap(device, "power", "9f0c2b1a77d3e458", reason, first, first + 3, None, None, is_open, "why")


class Scene:
    """A watch, and a look each minute."""

    def __init__(self, *, baseline: bool = True) -> None:
        self.watch = GapWatch((), T0, baseline=baseline)
        self.now_ms = T0
        self.kept: memory.Changes = {}

    def look(self, *gaps: Gap, minutes: int = 1) -> list[News]:
        told: list[News] = []
        for _ in range(minutes):
            self.now_ms += 60_000
            look = self.watch.look(gaps, LABELS, self.now_ms)
            told += look.news
            self.kept = {**self.kept, **memory.gaps(look.told, look.forgotten)}
            self.watch.accept(look, self.now_ms)
        return told


def test_what_is_explained_in_time_is_not_told() -> None:
    scene = Scene()
    assert scene.look(gap(5), minutes=EXPLAIN_MS // 60_000) + scene.look(minutes=10) == []


def test_what_nobody_explains_is_told_once() -> None:
    scene = Scene()
    (told,) = scene.look(gap(5), minutes=60)
    assert (told.kind, told.device, told.device_class, told.org) == (
        "gap.unexplained",
        "cam-1",
        "body_camera",
        "hq/st-1",
    )
    assert text(told) == "cam-1: a gap without a reason in power"


def test_what_was_receipted_and_is_lost_is_told_at_once() -> None:
    assert [each.kind for each in Scene().look(gap(5, reason=GapReason.LOST))] == ["gap.lost"]


def test_many_gaps_of_a_device_are_one_happening_and_another_devices_are_its_own() -> None:
    told = Scene().look(
        *(gap(n, reason=GapReason.LOST) for n in (1, 11, 21)), gap(1, device="cam-2", reason=GapReason.LOST)
    )
    assert [(each.device, each.data["count"]) for each in told] == [("cam-1", 3), ("cam-2", 1)]


def test_what_is_explained_or_goes_on_is_told_by_others() -> None:
    others = [reason for reason in GapReason if reason not in gap_watch.KINDS]
    assert Scene().look(*(gap(5, reason=each) for each in others), gap(5, is_open=True), minutes=30) == []


def test_what_was_there_before_anybody_looked_is_not_told() -> None:
    scene = Scene(baseline=False)
    assert scene.look(gap(5, reason=GapReason.LOST), gap(9)) == []
    assert [
        each.data["first_seq"] for each in scene.look(gap(5, reason=GapReason.LOST), gap(9), gap(20), minutes=9)
    ] == [20]


def test_a_restart_tells_no_gap_twice() -> None:
    scene = Scene()
    assert len(scene.look(gap(5), minutes=9)) == 1
    again = Scene()
    kept = [(topic, name, value) for (topic, name), value in scene.kept.items() if value is not None]
    again.watch = GapWatch(memory.read(kept).gaps, scene.now_ms, baseline=True)
    again.now_ms = scene.now_ms
    assert again.look(gap(5), minutes=9) == []


def test_a_gap_that_is_over_is_forgotten() -> None:
    scene = Scene()
    scene.look(gap(5, reason=GapReason.LOST))
    assert list(scene.kept.values()) == [""]
    scene.now_ms += FORGET_MS
    scene.look()
    assert list(scene.kept.values()) == [None]


def test_what_is_remembered_is_bounded() -> None:
    scene = Scene()
    count = gap_watch.TOLD_MAX + 50
    told = [gap(10 * n, device="cam-1", reason=GapReason.LOST) for n in range(count)]
    scene.look(*told[: count // 2])
    scene.look(*told[count // 2 :])
    assert len([value for value in scene.kept.values() if value is not None]) == gap_watch.TOLD_MAX
