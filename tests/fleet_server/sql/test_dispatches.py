"""Dispatches in either database: imported whole or not at all, explained once, and that is in the one log."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.dispatches import SqlDispatches
from fleet_server.evidence.dispatches import DISPATCH, After, Dispatch, DispatchFilter, Why
from fleet_server.evidence.ledger import Span
from fleet_server.evidence.pieces import PieceFilter, RefusedError, UnknownPieceError
from tests.fleet_server.evidence.arrivals import DAY_MS, T0
from tests.fleet_server.evidence.rig import Custody

ALL: Final = DispatchFilter(Span(T0 - DAY_MS, T0 + DAY_MS))
CALL: Final = Dispatch("call-1", "hq/station-7", "4711", "", "unit-4", "traffic", T0, T0 + 600_000)
NEXT: Final = replace(CALL, dispatch="call-2", path="hq/station-8", holder="", device="cam-8", end_ms=None)


@pytest.fixture
def custody(engine: Engine, tmp_path: Path) -> Custody:
    database.migrate(engine)
    return Custody(engine, tmp_path)


@pytest.fixture
def calls(custody: Custody) -> SqlDispatches:
    return custody.dispatches


def names(calls: SqlDispatches, **wanted: Any) -> list[str]:
    return [each.dispatch for each in calls.dispatches(replace(ALL, **wanted), after=None, rows_max=100)]


def told(calls: SqlDispatches) -> list[Dispatch]:
    return list(calls.dispatches(ALL, after=None, rows_max=100))


def test_what_was_imported_is_found_and_imported_again_is_as_it_was(calls: SqlDispatches) -> None:
    assert calls.put([CALL, NEXT], dry_run=True).created == ("call-1", "call-2")
    assert names(calls) == []
    assert calls.put([CALL, NEXT], dry_run=False).created == ("call-1", "call-2")
    ended = replace(NEXT, end_ms=T0 + 5)
    assert calls.put([CALL, ended], dry_run=False) == ((), ("call-2",), 1)
    assert [calls.dispatch(name) for name in ("call-1", "call-2", "call-3")] == [CALL, ended, None]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["call-1", "call-2"]),
        ({"span": Span(T0 + 1, T0 + 2)}, []),
        ({"path": "hq/station-7"}, ["call-1"]),
        ({"holder": "4711"}, ["call-1"]),
        ({"device": "cam-8"}, ["call-2"]),
        ({"explained": True}, []),
        ({"explained": False}, ["call-1", "call-2"]),
        ({"within": ("hq/station-8",)}, ["call-2"]),
        ({"within": ()}, []),
    ],
)
def test_a_filter_finds_what_it_means(calls: SqlDispatches, wanted: dict[str, Any], found: list[str]) -> None:
    calls.put([CALL, NEXT], dry_run=False)
    assert names(calls, **wanted) == found


def test_pages_go_on_behind_the_last(calls: SqlDispatches) -> None:
    calls.put([CALL, NEXT], dry_run=False)
    assert calls.dispatches(ALL, after=After(T0, "call-1"), rows_max=1) == [NEXT]


def test_an_explanation_is_given_once_and_what_is_explained_is_not_changed(
    calls: SqlDispatches, custody: Custody
) -> None:
    calls.put([CALL, NEXT], dry_run=False)
    found = calls.explain("call-1", Why.BATTERY_EMPTY, "at 3 o'clock", by="ann", now_ms=T0 + 9)
    assert found.explanation == calls.dispatch("call-1").explanation  # type: ignore[union-attr]
    (entry,) = custody.events(DISPATCH + "call-1")
    assert (entry.action, entry.actor, entry.data["why"]) == ("dispatch.explained", "ann", "battery_empty")
    assert "o'clock" not in str(entry)
    with pytest.raises(RefusedError, match="once"):
        calls.explain("call-1", Why.FORGOTTEN, "", by="ben", now_ms=T0 + 10)
    moved = replace(CALL, begin_ms=T0 + 1)
    with pytest.raises(RefusedError, match="call-1"):
        calls.put([replace(NEXT, end_ms=T0), moved], dry_run=False)
    assert calls.dispatch("call-2") == NEXT
    assert calls.put([CALL], dry_run=False).unchanged == 1
    assert len(custody.events(DISPATCH + "call-1")) == 1
    with pytest.raises(UnknownPieceError):
        calls.explain("call-9", Why.FORGOTTEN, "", by="ben", now_ms=T0)


def test_what_was_written_of_a_call_is_erased_and_its_reason_stays(calls: SqlDispatches, custody: Custody) -> None:
    calls.put([CALL, NEXT], dry_run=False)
    calls.explain("call-1", Why.PRIVACY, "at her mother's", by="ann", now_ms=T0)
    calls.explain("call-2", Why.PRIVACY, "at his", by="ann", now_ms=T0)
    assert calls.erase_notes("call-1", by="ben", now_ms=T0 + 1) == 1
    assert calls.erase_notes("call-1", by="ben", now_ms=T0 + 2) == 0
    assert [(found.explanation.why, found.explanation.note) for found in told(calls)] == [  # type: ignore[union-attr]
        (Why.PRIVACY, ""),
        (Why.PRIVACY, "at his"),
    ]
    assert custody.told(DISPATCH + "call-1") == ["explained", "notes_erased"], "the chain is whole without the words"
    (kept,) = custody.log.history(DISPATCH + "call-1", from_number=0, rows_max=1)
    assert kept.note is None
    with pytest.raises(UnknownPieceError):
        calls.erase_notes("call-9", by="ben", now_ms=T0)


def test_of_many_who_explain_at_once_one_does(calls: SqlDispatches, custody: Custody) -> None:
    calls.put([CALL], dry_run=False)

    def explain(who: int) -> bool:
        try:
            calls.explain("call-1", Why.FORGOTTEN, "", by=f"p{who}", now_ms=T0)
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(explain, range(6))) == 1
    assert len(custody.events(DISPATCH + "call-1")) == 1


def test_pieces_are_found_by_their_officer(custody: Custody) -> None:
    mine = custody.entered(holder="4711")
    custody.entered(holder="4712")
    assert [each.piece for each in custody.pieces.pieces(PieceFilter(holder="4711"), rows_max=9)] == [mine]
