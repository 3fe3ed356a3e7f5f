"""The book of assignments in either database: it answers as brute force does, and nobody gets between."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select, text

from broker_config.ids import DeviceId
from broker_config.manifest import Moment
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.assignment_tables import assignment as table
from fleet_server.adapters.sql.assignments import SqlAssignments
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.evidence.pieces import HolderBy, PieceFilter
from fleet_server.registry import assignments as rules
from fleet_server.registry.assignment_store import After, AssignmentFilter
from fleet_server.registry.assignments import (
    Act,
    Assignment,
    AssignmentError,
    Correction,
    Handing,
    HeldError,
    NotHeldError,
    With,
)
from fleet_server.registry.model import DutyUnit, Registration, StaleError, UnknownError
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.evidence.arrivals import T0
from tests.fleet_server.evidence.rig import Custody

T: Final = 1_000
ANN: Final = With(officer="4711")
BEN: Final = With("4712", "car-117", "early", "unit-4")


@pytest.fixture
def book(registry: SqlRegistry, engine: Engine) -> SqlAssignments:
    """Two cameras at a station, a third that was only heard of."""
    registry.put_unit(DutyUnit("unit-4", "Fourth", "station-7"), expected=None, create=True)
    for name in ("cam-7", "cam-8"):
        said = Registration(name, "body_camera", node="station-7")
        registry.register(said, expected=None, create=True, now_ms=0)
    return SqlAssignments(engine)


def out(book: SqlAssignments, device: str = "cam-7", whom: With = ANN, *, now_ms: int = T, **said: Any) -> Assignment:
    return book.check_out(Handing(device, whom, "ann", **said), now_ms=now_ms)


def told(book: SqlAssignments, known_ms: int | None = None, **wanted: Any) -> Sequence[Assignment]:
    return book.assignments(AssignmentFilter(**wanted), known_ms=known_ms, rows_max=1_000)


def test_what_was_said_is_told_as_it_was_said(book: SqlAssignments) -> None:
    made = out(book, whom=BEN, unready=("battery",), reason="the last one")
    assert (made.path, made.revision, made.act, made.unready) == ("hq/station-7", 1, Act.CHECKED_OUT, ("battery",))
    assert book.assignment(made.assignment) == made
    ended = book.check_in("cam-7", at_ms=None, reason="", by="ben", now_ms=T + 5)
    assert book.history(made.assignment) == [made, ended]
    assert [book.holder_at("cam-7", at) for at in (T - 1, T, T + 4, T + 5)] == [None, ended, ended, None]
    assert book.holder_at("cam-7", T + 5, known_ms=T + 4) == made  # it was not known yet that it would end


def test_what_is_not_there_is_told_apart(book: SqlAssignments) -> None:
    with pytest.raises(UnknownError, match="device"):
        out(book, "cam-9")
    with pytest.raises(UnknownError, match="unit"):
        out(book, whom=With(unit="unit-9"))
    with pytest.raises(UnknownError, match="assignment"):
        book.correct("0" * 16, Correction("x", "ann"), expected=None, now_ms=T)
    with pytest.raises(NotHeldError):
        book.check_in("cam-7", at_ms=None, reason="", by="ann", now_ms=T)
    assert (book.assignment("0" * 16), book.history("0" * 16)) == (None, [])


def test_a_dry_run_says_why_not_and_enters_nothing(book: SqlAssignments) -> None:
    handing = Handing("cam-7", ANN, "ann")
    assert book.check_out(handing, now_ms=T, dry_run=True).whom == ANN
    assert told(book) == []
    out(book)
    with pytest.raises(HeldError):
        book.check_out(handing, now_ms=T, dry_run=True)


def test_who_saw_an_older_revision_corrects_nothing(book: SqlAssignments) -> None:
    made = out(book)
    correction = Correction("typed wrong", "ben", officer="4712")
    fixed = book.correct(made.assignment, correction, expected=1, now_ms=T + 1)
    assert fixed.revision == 2
    with pytest.raises(StaleError) as stale:
        book.correct(made.assignment, Correction("no", "cid", officer="4713"), expected=1, now_ms=T + 2)
    assert stale.value.revision == 2
    assert told(book, officer="4711") == []
    assert told(book, officer="4711", known_ms=T) == [made]


def test_what_is_withdrawn_is_in_no_list_and_in_its_history(book: SqlAssignments) -> None:
    made = out(book)
    book.correct(made.assignment, Correction("never was", "ben", withdraw=True), expected=None, now_ms=T + 1)
    assert told(book) == []
    assert [each.act for each in book.history(made.assignment)] == [Act.CHECKED_OUT, Act.WITHDRAWN]
    out(book, whom=BEN, now_ms=T + 2)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["cam-7", "cam-8"]),
        ({"device": "cam-8"}, ["cam-8"]),
        ({"officer": "4711"}, ["cam-7"]),
        ({"vehicle": "car-117"}, ["cam-8"]),
        ({"shift": "early", "unit": "unit-4"}, ["cam-8"]),
        ({"lasting": True}, ["cam-8"]),
        ({"lasting": False}, ["cam-7"]),
        ({"from_ms": T + 4, "to_ms": T + 9}, ["cam-8"]),  # cam-7 ended at that moment
        ({"from_ms": T - 9, "to_ms": T + 1}, ["cam-7"]),
        ({"path": "hq"}, ["cam-7", "cam-8"]),
        ({"within": ("hq/station-8",)}, []),
        ({"within": ()}, []),
    ],
)
def test_a_filter_finds_what_it_means(book: SqlAssignments, wanted: dict[str, Any], found: list[str]) -> None:
    out(book)
    book.check_in("cam-7", at_ms=T + 4, reason="", by="ann", now_ms=T + 9)
    out(book, "cam-8", BEN, now_ms=T + 1)
    assert [each.device for each in told(book, **wanted)] == found


def test_pages_go_on_behind_the_last(book: SqlAssignments) -> None:
    first = out(book)
    second = out(book, "cam-8", now_ms=T + 1)
    after = After(first.from_ms, first.assignment)
    assert book.assignments(AssignmentFilter(), after=after, rows_max=9) == [second]


def test_an_import_is_whole_or_not_at_all_and_again_it_is_as_it_was(book: SqlAssignments) -> None:
    rows = [
        Handing("cam-7", BEN, "ann", T + 4, None),
        Handing("cam-7", ANN, "ann", T, T + 4),
        Handing("cam-8", ANN, "ann", T, T + 2),
    ]
    assert len(book.enter(rows, now_ms=T + 9, dry_run=True).created) == 3
    assert told(book) == []
    assert book.enter(rows, now_ms=T + 9, dry_run=False).created == ("cam-7", "cam-7", "cam-8")
    assert book.enter(rows, now_ms=T + 9, dry_run=False) == ((), (), 3)
    over = Handing("cam-8", BEN, "ann", T + 1, T + 3)
    before = told(book)
    with pytest.raises(HeldError):
        book.enter([Handing("cam-8", ANN, "ann", T + 4, T + 5), over], now_ms=T + 9, dry_run=False)
    with pytest.raises(HeldError):
        book.enter([Handing("cam-8", ANN, "ann", T - 9, None)], now_ms=T + 9, dry_run=False)
    assert told(book) == before
    assert {each.act for each in before} == {Act.IMPORTED}


def test_a_clock_that_was_set_back_does_not_go_before_what_was_said(book: SqlAssignments) -> None:
    out(book, now_ms=T + 100)
    with pytest.raises(AssignmentError, match="behind its beginning"):
        book.check_in("cam-7", at_ms=None, reason="", by="ann", now_ms=T)
    fixed = book.correct(told(book)[0].assignment, Correction("x", "ann", from_ms=T), expected=None, now_ms=T)
    assert fixed.said_ms == T + 100


def test_of_many_who_give_a_device_out_at_once_one_does(book: SqlAssignments) -> None:
    def give(number: int) -> bool:
        try:
            out(book, whom=With(officer=f"{number}"))
        except HeldError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(give, range(12))) == 1


def test_the_database_itself_has_one_holder_that_lasts(book: SqlAssignments, engine: Engine) -> None:
    made = out(book)
    with database.reading(engine) as connection:
        row = dict(connection.execute(select(table)).mappings().one())
    with pytest.raises(StoreError), database.writing(engine) as connection:
        connection.execute(insert(table).values({**row, "assignment": "f" * 16}))
    assert told(book) == [made]


@pytest.fixture
def custody(book: SqlAssignments, engine: Engine, tmp_path: Path) -> Custody:
    """Cameras of which the book says who had them: 4711 from T0 to T0 + 9, then 4712."""
    rows = [
        Handing("cam-7", ANN, "ann", T0, T0 + 9),
        Handing("cam-7", BEN, "ann", T0 + 9, None),
        Handing("cam-8", With(vehicle="car-117"), "ann", T0, None),
    ]
    book.enter(rows, now_ms=T0 + 100, dry_run=False)
    return Custody(engine, tmp_path)


def entered(custody: Custody, begin_ms: int, holder: str = "", device: str = "cam-7") -> str:
    begin = Moment(begin_ms, unc_ms=40, src="ntp", boot="5c1d7a90be2f4436", mono=1_000)
    return custody.entered(holder=holder, device=DeviceId(device), begin=begin)


def test_a_piece_without_an_officer_gets_the_one_who_had_the_device_when_it_began(custody: Custody) -> None:
    mine, his = entered(custody, T0 + 8), entered(custody, T0 + 9)
    before, car = entered(custody, T0 - 1), entered(custody, T0, device="cam-8")
    said = entered(custody, T0 + 9, holder="4711")
    found = {
        each.piece: (each.holder, each.assigned, each.holder_by)
        for each in custody.pieces.pieces(PieceFilter(), rows_max=9)
    }
    assert found == {
        mine: ("", "4711", HolderBy.ASSIGNMENT),
        his: ("", "4712", HolderBy.ASSIGNMENT),
        before: ("", "", None),
        car: ("", "", None),
        said: ("4711", "4712", HolderBy.MANIFEST),
    }

    def of(officer: str) -> set[str]:
        return {each.piece for each in custody.pieces.pieces(PieceFilter(holder=officer), rows_max=9)}

    assert (of("4711"), of("4712"), of("car-117")) == ({mine, said}, {his}, set())


def test_a_correction_moves_pieces_and_what_was_withdrawn_has_none(custody: Custody, book: SqlAssignments) -> None:
    mine = entered(custody, T0 + 8)
    (first,) = told(book, officer="4711")
    book.correct(first.assignment, Correction("x", "ben", officer="4713"), expected=None, now_ms=T0 + 200)
    assert custody.pieces.piece(mine).assigned == "4713"  # type: ignore[union-attr]
    book.correct(first.assignment, Correction("x", "ben", withdraw=True), expected=None, now_ms=T0 + 200)
    assert custody.pieces.piece(mine).assigned == ""  # type: ignore[union-attr]


def test_no_officer_is_ever_in_the_log(custody: Custody) -> None:
    mine = entered(custody, T0 + 8)
    assert "4711" not in str(custody.events(mine))


acts = st.one_of(
    st.tuples(
        st.just("out"), st.sampled_from([ANN, BEN]), st.none() | st.integers(0, 12), st.none() | st.integers(0, 12)
    ),
    st.tuples(st.just("in"), st.none() | st.integers(0, 12)),
    st.tuples(st.just("over"), st.sampled_from([ANN, BEN]), st.none() | st.integers(0, 12)),
    st.tuples(
        st.just("correct"),
        st.integers(0, 9),
        st.fixed_dictionaries({}, optional={"from_ms": st.integers(0, 12), "to_ms": st.integers(0, 12)}),
        st.booleans(),
    ),
    st.tuples(st.just("clock"), st.integers(-3, 4)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(acts, max_size=12))
def test_whatever_was_said_the_book_answers_as_brute_force_does(
    book: SqlAssignments, engine: Engine, script: list[tuple[Any, ...]]
) -> None:
    with database.writing(engine) as connection:
        connection.execute(text("DELETE FROM assignment"))
    clock = 6
    for name, *said in script:
        try:
            match name:
                case "clock":
                    clock += said[0]
                case "out":
                    out(book, whom=said[0], from_ms=said[1], to_ms=said[2], now_ms=clock)
                case "in":
                    book.check_in("cam-7", at_ms=said[0], reason="", by="ann", now_ms=clock)
                case "over":
                    book.hand_over(Handing("cam-7", said[0], "ann", said[1]), now_ms=clock)
                case "correct":
                    names = sorted({each.assignment for each in told(book)})
                    if names:
                        correction = Correction("x", "ben", withdraw=said[2], **said[1])
                        book.correct(names[said[0] % len(names)], correction, expected=None, now_ms=clock)
        except AssignmentError:
            pass
    with database.reading(engine) as connection:
        names = list(connection.execute(select(table.c.assignment).distinct()).scalars())
    said_ = [each for name in names for each in book.history(name)]
    for known_ms in [None, *{each.said_ms for each in said_}]:
        held = [each for each in rules.known(said_, known_ms) if not each.withdrawn]
        for at_ms in range(14):
            brute = [each for each in held if each.from_ms <= at_ms and (each.to_ms is None or at_ms < each.to_ms)]
            assert len(brute) <= 1
            assert book.holder_at("cam-7", at_ms, known_ms=known_ms) == (brute[0] if brute else None)
        assert {each.assignment for each in told(book, known_ms)} == {each.assignment for each in held}
