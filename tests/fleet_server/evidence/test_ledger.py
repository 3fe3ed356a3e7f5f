"""The ledger holds the journal against the index, and never says more than both prove."""

from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.device_classes import FileKind
from broker_config.ranges import Ranges
from fleet_server.evidence import journal, ledger
from fleet_server.evidence.journal import Note
from fleet_server.evidence.ledger import OVERDUE_MS, Row, Standing, Totals
from fleet_server.evidence.pieces import Damage, HolderBy, Piece, State
from fleet_server.registry import assignments
from fleet_server.registry.assignments import Assignment, Handing, With
from fleet_server.telemetry.store import EventFact, StreamKey
from tests.fleet_server.evidence.arrivals import DAY_MS, T0

NOW: Final = T0 + 3_600_000
LATER: Final = T0 + 3 * DAY_MS
S: Final = 1_000
RECORDING: Final[dict[str, Any]] = {"recording": "r-1", "file_class": "recordings"}


def note(kind: str, at_s: float = 0, **data: Any) -> Note:
    at_ms = T0 + int(at_s * S)
    key = StreamKey("cam-7", "journal", "9f0c2b1a77d3e458")
    fact = EventFact(key, 1, 0, at_ms, "5c1d7a90be2f4436", at_ms - T0, kind, msgspec.json.encode(data).decode())
    return journal.read([fact])[0]


def piece(number: int, *, last: bool = False, recording: str = "r-1", **fields: Any) -> Piece:
    begin_ms = T0 + 30 * S * (number - 1)
    values: dict[str, Any] = dict.fromkeys(Piece.__slots__, "")
    values |= dict.fromkeys(("log", "entry", "journal_first", "journal_last", "begin_unc_ms", "end_unc_ms"), 0)
    values |= {
        "piece": f"{number:032x}",
        "device": "cam-7",
        "file_class": "recordings",
        "kind": FileKind.RECORDING,
        "size": 100,
        "recording": recording,
        "segment": number,
        "last": last,
        "begin_ms": begin_ms,
        "end_ms": begin_ms + 30 * S,
        "offered_ms": T0,
        "received_ms": T0 + 600 * S + number,
        "state": State.KEPT,
        "damage": Damage.NONE,
        "envelope": b"",
        "path": "hq/station-7",
        "classes": (),
        "holds": (),
    }
    return Piece(**{**values, **fields})


def only(notes: list[Note], pieces: list[Piece], now_ms: int = NOW) -> Row:
    (row,) = ledger.rows(notes, pieces, now_ms=now_ms)
    return row


WHOLE: Final = [
    note("recording.opened", 5, trigger="button", **RECORDING),
    note("file.sealed", 31, upload="a", number=1, **RECORDING),
    note("file.sealed", 61, upload="b", number=2, **RECORDING),
    note("recording.closed", 62, segments=2, reason="button", **RECORDING),
]


@pytest.mark.parametrize(
    ("notes", "pieces", "now_ms", "standing", "missing"),
    [
        (WHOLE[:1], [], NOW, Standing.OPEN, ()),
        (WHOLE[:1], [], LATER, Standing.OVERDUE, ()),  # the device died: the journal alone knows of it
        (WHOLE[:2], [], NOW, Standing.OPEN, ((1, 1),)),
        (WHOLE, [], NOW, Standing.UPLOADING, ((1, 2),)),
        (WHOLE, [piece(2, last=True)], NOW, Standing.UPLOADING, ((1, 1),)),
        (WHOLE, [piece(1)], LATER, Standing.OVERDUE, ((2, 2),)),
        (WHOLE, [piece(1), piece(2, last=True)], LATER, Standing.VERIFIED, ()),
        (WHOLE, [piece(1), piece(2, damage=Damage.ALTERED)], NOW, Standing.DAMAGED, ()),
        (WHOLE, [piece(1, state=State.DELETED), piece(2)], NOW, Standing.VERIFIED, ()),
        ([], [piece(1), piece(2, last=True)], NOW, Standing.VERIFIED, ()),  # the journal was lost; the last one says
        ([], [piece(1), piece(2)], NOW, Standing.OPEN, ()),  # nobody says that there is no third
        ([], [piece(1), piece(3, last=True)], NOW, Standing.UPLOADING, ((2, 2),)),
    ],
)
def test_how_a_recording_stands(
    notes: list[Note], pieces: list[Piece], now_ms: int, standing: Standing, missing: Ranges
) -> None:
    row = only(notes, pieces, now_ms)
    assert (row.standing, row.missing) == (standing, missing)


def test_a_segment_that_the_device_says_never_came_makes_it_incomplete_and_not_late() -> None:
    skipped = note("recording.skipped", 40, first=2, last=3, **RECORDING)
    closed = note("recording.closed", 120, segments=4, reason="full", **RECORDING)
    row = only([*WHOLE[:2], skipped, closed], [piece(1), piece(4, last=True)], LATER)
    assert (row.standing, row.skipped, row.missing) == (Standing.INCOMPLETE, ((2, 3),), ())
    assert row.late_ms(LATER) == 0


def test_lateness_is_counted_from_when_it_was_due_to_its_last_piece_or_until_now() -> None:
    due_ms = T0 + 62 * S + OVERDUE_MS
    late = only(WHOLE, [piece(1), piece(2, received_ms=due_ms + 5)], LATER)
    assert (late.done_ms, late.due_ms, late.late_ms(LATER)) == (due_ms + 5, due_ms, 5)
    assert only(WHOLE, [], due_ms + 7).late_ms(due_ms + 7) == 7
    assert only(WHOLE, [], due_ms).standing is Standing.UPLOADING


def test_a_start_that_no_recording_answers_is_a_row() -> None:
    notes = [
        note("assign", -60, holder="4711"),
        note("rec.start", 0, trigger="button"),
        *WHOLE,
        note("rec.stop", 62, reason="button"),
        note("rec.start", 1_000, trigger="siren"),
        note("rec.stop", 1_060, reason="button"),
    ]
    answered, lost = ledger.rows(notes, [piece(1), piece(2)], now_ms=LATER)
    assert (answered.recording, answered.standing, answered.holder) == ("r-1", Standing.VERIFIED, "4711")
    assert (lost.recording, lost.trigger, lost.standing) == ("", "siren", Standing.OVERDUE)
    assert (lost.end_ms, lost.holder) == (T0 + 1_060 * S, "4711")


def test_one_recording_answers_one_start_and_no_other() -> None:
    notes = [note("rec.start", 0), note("rec.start", 10), *WHOLE]
    assert len(ledger.rows(notes, [], now_ms=NOW)) == 2


def test_an_interview_within_a_long_recording_is_no_row_of_its_own() -> None:
    began = note("recording.opened", 0, **RECORDING)
    during = note("session.start", 4_000, reference="i-1")
    assert [row.recording for row in ledger.rows([began, during], [], now_ms=NOW)] == ["r-1"]
    assert only([during], []).trigger == "session.start"


def test_a_file_that_stands_alone_is_expected_once_it_is_sealed() -> None:
    sealed = note("file.sealed", 0, upload=f"{1:032x}", file_class="snapshots", recording="", number=0)
    assert (only([sealed], [], LATER).standing, only([sealed], [], LATER).missing) == (Standing.OVERDUE, ((1, 1),))
    come = piece(1, recording="", segment=0, file_class="snapshots")
    assert only([sealed], [come], LATER).standing is Standing.VERIFIED


@pytest.mark.parametrize(
    "data",
    [
        {"recording": 7, "file_class": "recordings"},
        {"recording": "r-1", "file_class": "recordings", "segments": -1},
        {"recording": "r-1", "file_class": "recordings", "segments": 1e300},
        {"recording": "r-1", "file_class": "recordings", "segments": True},
        {"recording": "r-1", "segments": 2.5},
    ],
)
def test_what_a_device_says_amiss_closes_nothing(data: dict[str, Any]) -> None:
    assert all(not row.closed for row in ledger.rows([note("recording.closed", 0, **data)], [], now_ms=NOW))


def test_totals_of_days_add_up() -> None:
    notes = [*WHOLE, note("rec.start", 90_000)]
    found = ledger.rows(notes, [piece(1), piece(2)], now_ms=LATER)
    first, second = ledger.days(found, now_ms=LATER).items()
    day = T0 - T0 % DAY_MS
    assert first == (day, Totals(expected=1, closed=1, verified=1, size=200))
    assert second[0] == day + DAY_MS
    assert (second[1].overdue, second[1].begun_only) == (1, 1)
    assert (first[1] + second[1]).expected == 2


@given(
    st.sets(st.integers(1, 8)), st.sets(st.integers(1, 8)), st.integers(0, 8) | st.none(), st.sets(st.integers(1, 8))
)
def test_each_segment_up_to_the_last_known_is_verified_skipped_or_missing(
    come: set[int], sealed: set[int], closed: int | None, skipped: set[int]
) -> None:
    notes = [note("recording.opened", **RECORDING)]
    notes += [note("file.sealed", upload=str(number), number=number, **RECORDING) for number in sealed]
    notes += [note("recording.skipped", first=number, last=number, **RECORDING) for number in skipped]
    if closed is not None:
        notes.append(note("recording.closed", 300, segments=closed, **RECORDING))
    row = only(notes, [piece(number) for number in come])
    told = [set(_numbers(ranges)) for ranges in (row.verified, row.skipped, row.missing)]
    assert set().union(*told) == set(range(1, row.segments + 1)) | come | skipped
    assert not told[2] & (told[0] | told[1])
    if row.standing in ledger.DONE:
        assert closed is not None
        assert set(range(1, closed + 1)) <= come | skipped


def _numbers(ranges: Ranges) -> list[int]:
    return [number for low, high in ranges for number in range(low, high + 1)]


def handed(officer: str, from_s: float, to_s: float | None) -> Assignment:
    end_ms = None if to_s is None else T0 + int(to_s * S)
    handing = Handing("cam-7", With(officer=officer), "ann", T0 + int(from_s * S), end_ms)
    return assignments.checked_out([], handing, name="0" * 16, path="hq", now_ms=LATER)


@pytest.mark.parametrize(
    ("notes", "manifest", "held", "holder", "by"),
    [
        ([], "4711", [handed("4712", -60, None)], "4711", HolderBy.MANIFEST),  # what is signed goes before
        ([note("assign", -60, holder="4711")], "", [handed("4712", -60, None)], "4711", HolderBy.JOURNAL),
        ([], "", [handed("4712", -60, None)], "4712", HolderBy.ASSIGNMENT),
        ([], "", [handed("4712", -60, 0), handed("4711", 0, None)], "4711", HolderBy.ASSIGNMENT),  # half open
        ([], "", [handed("4712", -60, -30)], "", None),  # never whoever had it last
        ([], "", [], "", None),
    ],
)
def test_whose_a_recording_is_the_first_who_knows_says(
    notes: list[Note], manifest: str, held: list[Assignment], holder: str, by: HolderBy | None
) -> None:
    (row,) = ledger.rows(notes, [piece(1, holder=manifest)], now_ms=NOW, held=held)
    assert (row.holder, row.holder_by) == (holder, by)
