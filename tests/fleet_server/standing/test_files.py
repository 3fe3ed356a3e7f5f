"""Files as numbers: what is still to come is not missing, and what is not known is not told."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fleet_server.evidence import ledger
from fleet_server.evidence.facts import EvidenceFacts, Progress
from fleet_server.evidence.interviews import Interview
from fleet_server.evidence.ledger import Row, Span
from fleet_server.evidence.pieces import CustodyFacts, Totals
from fleet_server.evidence.reconciling import TooMuchError
from fleet_server.projection.labels import Labels
from fleet_server.registry.model import Registration
from fleet_server.standing import evidence, interviews, recordings, uploads
from fleet_server.standing.recordings import Lateness, RecordingsLook
from fleet_server.standing.sample import Sample
from fleet_server.standing.uploads import UploadsLook
from tests.fleet_server.evidence.arrivals import T0
from tests.fleet_server.evidence.test_interviews import HELD, WHOLE, only
from tests.fleet_server.evidence.test_interviews import note as room_note
from tests.fleet_server.evidence.test_ledger import NOW, piece
from tests.fleet_server.evidence.test_ledger import WHOLE as RECORDED
from tests.fleet_server.fleet import T0 as FLEET_T0
from tests.fleet_server.fleet import Fleet

S = 1_000
LABELS = Labels("body_camera", "hq/one")


class AnyLabels:
    def labels(self, device: str, at_ms: int) -> Labels:
        return LABELS


def told(found: Sample) -> dict[str, float | None]:
    return dict(zip(found.measure.names, found.values, strict=True))


def rows(segments: int) -> list[Row]:
    """Of a recording of two segments, of which so many are verified."""
    pieces = [piece(number, last=number == 2) for number in range(1, segments + 1)]
    return list(ledger.rows(RECORDED, pieces, now_ms=NOW))


# recordings


def test_a_recording_counts_as_verified_once_all_of_it_is() -> None:
    part, whole = (told(recordings.sample("cam-7", rows(n), 0, LABELS, NOW)) for n in (1, 2))
    assert part == {"expected": 1.0, "verified": 0.0, "overdue": 0.0, "lateness_s": None}
    # it ended after 62 s, and its last piece was there after ten minutes
    assert whole == {"expected": 1.0, "verified": 1.0, "overdue": 0.0, "lateness_s": pytest.approx(540, abs=3)}


def test_before_anybody_looked_it_is_not_known_what_is_overdue() -> None:
    assert recordings.sample("cam-7", [], None, LABELS, NOW).value("overdue") is None


def test_lateness_is_of_the_whole_fleet() -> None:
    assert recordings.lateness([]) is None
    assert recordings.lateness([7.0]) == Lateness(7.0, 7.0, 7.0)
    found = recordings.lateness([float(n) for n in range(101)])
    assert found == Lateness(50.0, 90.0, 99.0)


class OneRecording:
    """Books of a device that has recorded something; *too_much*: has of which there is more than is read."""

    def __init__(self, device: str, too_much: str) -> None:
        self.device = device
        self.too_much = too_much
        self.asked: list[str] = []

    def rows(self, device: str, span: Span, *, now_ms: int) -> list[Row]:
        self.asked.append(device)
        if device == self.too_much:
            raise TooMuchError(device)
        return rows(2) if device == self.device else []


def test_a_look_asks_of_what_makes_files_and_passes_over_what_is_too_much(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "s.db")
    for device, device_class in {
        "cam-1": "body_camera",
        "cam-2": "body_camera",
        "cam-3": "body_camera",
        "light-1": "traffic_light",
    }.items():
        fleet.registry.register(Registration(device, device_class), expected=None, create=True, now_ms=FLEET_T0)
    books = OneRecording("cam-1", too_much="cam-2")
    overdue: Mapping[str, int] = {"cam-3": 2}
    look = RecordingsLook(fleet.registry, books, AnyLabels(), lambda: overdue, classes={"body_camera"})
    assert look.lateness() is None
    found = {each.device: told(each) for portion in look.look(NOW) for each in portion}
    assert books.asked == ["cam-1", "cam-2", "cam-3"]
    assert {name: (values["expected"], values["overdue"]) for name, values in found.items()} == {
        "cam-1": (1.0, 0.0),
        "cam-3": (0.0, 2.0),
    }
    late = look.lateness()
    assert late is not None
    assert late.p50_s == found["cam-1"]["lateness_s"]


# uploads


def test_what_came_is_what_is_left_less_and_what_is_not_under_way_any_more_is_here() -> None:
    before = uploads.Seen(0, {"a": Progress("a", "cam-1", 100, 60), "b": Progress("b", "cam-2", 50, 20)})
    now = uploads.Seen(1, {"a": Progress("a", "cam-1", 100, 10), "c": Progress("c", "cam-2", 70, 40)})
    assert uploads.came_bytes(before, now) == {"cam-1": 50, "cam-2": 20 + 30}


def test_the_end_is_told_by_the_rate_of_the_last_minute() -> None:
    under_way = [Progress("a", "cam-1", 1_000, 1_000), Progress("b", "cam-1", 500, 500)]
    look = UploadsLook(lambda: under_way, AnyLabels())
    ((first,),) = look.look(0)
    assert told(first) == {"files": 2.0, "left_bytes": 1_500.0, "goodput": None, "finish_s": None}
    under_way = [Progress("a", "cam-1", 1_000, 700), Progress("b", "cam-1", 500, 500)]
    ((second,),) = look.look(30_000)
    assert told(second) == {"files": 2.0, "left_bytes": 1_200.0, "goodput": 10.0, "finish_s": 120.0}
    ((third,),) = look.look(90_000)  # nothing more has come, and the first look is too long ago
    assert told(third) == {"files": 2.0, "left_bytes": 1_200.0, "goodput": 0.0, "finish_s": None}
    under_way = []
    assert list(look.look(120_000)) == [[]]


# interviews


def of_room(*found: Interview) -> dict[str, float | None]:
    return told(interviews.sample("room-1", found, LABELS, NOW))


def test_an_interview_that_is_covered_has_no_gaps() -> None:
    assert of_room(only(HELD, WHOLE)) == {
        "sessions": 1.0, "under_way": 0.0, "covered": 1.0, "gaps": 0.0, "gap_s": 0.0, "gaps_unexplained": 0.0,
    }  # fmt: skip


def test_a_part_that_nobody_explains_is_a_gap() -> None:
    found = of_room(only(HELD, [WHOLE[0], WHOLE[2]]))
    assert found["covered"] == pytest.approx(2 / 3)
    assert (found["gaps"], found["gap_s"], found["gaps_unexplained"]) == (1.0, 30.0, 1.0)


def test_what_is_still_to_come_is_no_gap() -> None:
    sealed = room_note("file.sealed", 62, recording="r-1", number=2)
    found = of_room(only([*HELD, sealed], [WHOLE[0], WHOLE[2]]))
    assert (found["covered"], found["gaps"]) == (1.0, 0.0)


def test_of_one_that_goes_on_only_the_recorders_own_word_counts() -> None:
    found = of_room(only(HELD[:1], []))
    assert (found["under_way"], found["covered"], found["gaps"]) == (1.0, None, 0.0)
    lost = room_note("av.gap", 50, from_ms=T0 + 40 * S, to_ms=T0 + 45 * S, reason="camera 2")
    found = of_room(only([HELD[0], lost], []))
    assert (found["under_way"], found["gaps"], found["gap_s"]) == (1.0, 1.0, 5.0)


def test_a_room_without_interviews_is_told_of_too() -> None:
    found = of_room()
    assert (found["sessions"], found["under_way"], found["covered"]) == (0.0, 0.0, None)


# evidence


def test_before_the_first_look_little_is_known() -> None:
    found = told(evidence.sample(evidence.Seen(NOW, 5, log_good=True)))
    assert {name for name, value in found.items() if value is not None} == {"free_bytes", "log_good"}


def test_all_that_is_known_is_told() -> None:
    custody = CustodyFacts(Totals(9, 900, 1, 2), NOW - 60_000, 1, 3)
    facts = EvidenceFacts(True, 4, 1, 2, 0, 0, 0, 0, 0, 0, {})
    seen = evidence.Seen(NOW, 5, False, custody, facts, Lateness(1.0, 2.0, 3.0), 6, 7.0)
    assert told(evidence.sample(seen)) == {
        "pieces": 9.0, "bytes": 900.0, "free_bytes": 5.0, "space_lasts_s": 7.0, "open_uploads": 4.0,
        "stale_uploads": 1.0, "unreplicated": 2.0, "overdue": 6.0, "lateness_p50_s": 1.0, "lateness_p90_s": 2.0,
        "lateness_p99_s": 3.0, "damaged": 1.0, "scrub_age_s": 60.0, "log_good": 0.0, "deletions_waiting": 3.0,
    }  # fmt: skip
