"""Which files are closed, and where in their recording they stand."""

import msgspec
import pytest

from broker_config import device_classes
from broker_config.manifest import Name
from edge_agent import folders
from edge_agent.folders import ABNORMAL, Found, Place, Recording

SPEC = device_classes.load("body_camera").files["recordings"]
OPEN = {"rec-1": Recording("rec-1")}


def found(name: str, waited_s: float = 0.0) -> Found:
    return Found(name, 1, 10, 0, waited_s)


def planned(
    *names: str | Found, recordings: dict[str, Recording] | None = None, closes: dict[str, str] | None = None
) -> folders.Plan:
    files = [found(each) if isinstance(each, str) else each for each in names]
    return folders.plan(files, SPEC, OPEN if recordings is None else recordings, closes or {}, abnormal_s=60)


def places(plan: folders.Plan) -> list[Place | None]:
    return [job.place for job in plan.jobs]


def test_the_newest_segment_waits_for_the_next_one() -> None:
    assert places(planned("rec-1_00001.mp4")) == []
    assert places(planned("rec-1_00001.mp4", "rec-1_00002.mp4")) == [Place("rec-1", 1, False, "", 0)]


def test_the_close_makes_the_newest_the_last_and_says_why() -> None:
    plan = planned("rec-1_00001.mp4", "rec-1_00002.mp4", closes={"rec-1": "switched off"})
    assert places(plan) == [Place("rec-1", 1, False, "", 0), Place("rec-1", 2, True, "switched off", 0)]
    assert plan.closed == {}  # only when they are sealed
    assert planned(recordings={"rec-1": Recording("rec-1", 3)}, closes={"rec-1": "off"}).closed == {"rec-1": "off"}


def test_a_recording_that_fell_silent_ended_abnormally_and_has_no_last() -> None:
    assert places(planned(found("rec-1_00001.mp4", 60))) == [Place("rec-1", 1, False, ABNORMAL, 0)]


def test_a_number_that_is_skipped_is_waited_for_then_told() -> None:
    assert places(planned("rec-1_00003.mp4", closes={"rec-1": ""})) == []
    assert places(planned(found("rec-1_00003.mp4", 60), closes={"rec-1": ""})) == [Place("rec-1", 3, True, "", 2)]


@pytest.mark.parametrize(
    ("name", "recordings"),
    [
        ("holiday.mp4", {}),
        ("rec-1_1.mp4", OPEN),
        ("Rec-1_00001.mp4", OPEN),
        ("rec-1_00000.mp4", OPEN),
        ("rec-1_00001.mp4", {"rec-1": Recording("rec-1", 2)}),  # a number that was there
        ("rec-1_00009.mp4", {}),  # a recording that is over
    ],
)
def test_what_fits_no_recording_stands_alone_and_is_taken(name: str, recordings: dict[str, Recording]) -> None:
    plan = planned(name, recordings=recordings)
    assert places(plan) == [None]
    assert plan.jobs[0].media_type == "video/mp4"


@pytest.mark.parametrize("name", ["notes.txt", "mp4", "rec-1_00001.mp4.exe"])
def test_a_suffix_that_is_not_of_the_class_is_told_and_left(name: str) -> None:
    assert planned(name) == folders.Plan((), (name,), {})


@pytest.mark.parametrize("name", [".hidden.mp4", "a.mp4.part", ".a.mp4.part", "STOP"])
def test_what_is_still_written_is_not_closed(name: str) -> None:
    assert not folders.is_closed(name)


@pytest.mark.parametrize("name", ["../../etc/passwd", "名前.mp4", "-rf.log", "a" * 300, "\n.log", "Room 3 (2).log"])
def test_a_name_in_a_manifest_is_always_one(name: str) -> None:
    assert msgspec.convert(folders.safe_name(name), Name)


def test_marks_are_of_their_recording() -> None:
    assert folders.is_mark("rec-1.close")
    assert folders.recording_of("rec-1.open") == "rec-1"
    assert not folders.is_mark("../x.close")
    assert folders.closed_name(".rec-1_00001.mp4.part") == "rec-1_00001.mp4"
