"""A call is answered by its officer's or its device's recording about that time, and by no other."""

from dataclasses import replace
from typing import Any, Final

import pytest

from fleet_server.evidence import dispatches, ledger
from fleet_server.evidence.dispatches import (
    AFTER_MS,
    BEFORE_MS,
    DURATION_MS_MAX,
    GRACE_MS,
    Dispatch,
    Explanation,
    Outcome,
    Rate,
    Why,
)
from fleet_server.evidence.ledger import Row
from tests.fleet_server.evidence.arrivals import DAY_MS, T0
from tests.fleet_server.evidence.test_ledger import piece

END: Final = T0 + 600_000
CALL: Final = Dispatch("call-1", "hq", "4711", "", "", "traffic", T0, END)
LATER: Final = T0 + 9 * DAY_MS
HEADER: Final = "dispatch;node;begin;end;holder;device\n"


def row(begin_ms: int, end_ms: int | None, **fields: Any) -> Row:
    (made,) = ledger.rows([], [piece(1, last=True, holder="4711")], now_ms=LATER)
    return replace(made, begin_ms=begin_ms, end_ms=end_ms, **fields)


@pytest.mark.parametrize(
    ("begin_ms", "end_ms", "answers"),
    [
        (T0, END, True),
        (T0 - DAY_MS, T0 - BEFORE_MS, True),
        (T0 - DAY_MS, T0 - BEFORE_MS - 1, False),
        (END + AFTER_MS - 1, END + DAY_MS, True),
        (END + AFTER_MS, END + DAY_MS, False),
        (T0 - 3_600_000, None, True),  # it lasts still
    ],
)
def test_a_recording_answers_within_the_tolerances(begin_ms: int, end_ms: int | None, answers: bool) -> None:
    found = dispatches.judge(CALL, [("cam-7", row(begin_ms, end_ms))], now_ms=LATER)
    assert (found.outcome is Outcome.RECORDED) == answers


@pytest.mark.parametrize(
    ("call", "device", "fields", "answers"),
    [
        ({"holder": "4712"}, "cam-7", {}, False),
        ({"holder": "", "device": "cam-7"}, "cam-7", {"holder": ""}, True),
        ({"device": "cam-8"}, "cam-7", {}, False),  # the same officer's, of another device than was said
        ({"device": "cam-7"}, "cam-7", {"holder": "4712"}, True),
        ({"holder": "", "device": "cam-8"}, "cam-7", {"holder": ""}, False),  # nobody is no officer
        ({}, "cam-7", {"recording": ""}, False),  # a start alone
    ],
)
def test_whose_recording_answers(call: dict[str, Any], device: str, fields: dict[str, Any], answers: bool) -> None:
    found = dispatches.judge(replace(CALL, **call), [(device, row(T0, END, **fields))], now_ms=LATER)
    assert (found.outcome is Outcome.RECORDED) == answers


@pytest.mark.parametrize(
    ("end_ms", "now_ms", "outcome"),
    [
        (END, END + GRACE_MS - 1, Outcome.PENDING),
        (END, END + GRACE_MS, Outcome.UNEXPLAINED),
        (None, T0 + DURATION_MS_MAX + GRACE_MS - 1, Outcome.PENDING),
        (None, T0 + DURATION_MS_MAX + GRACE_MS, Outcome.UNEXPLAINED),  # one that is never ended is not for ever open
    ],
)
def test_a_call_is_unexplained_once_its_grace_is_over(end_ms: int | None, now_ms: int, outcome: Outcome) -> None:
    assert dispatches.judge(replace(CALL, end_ms=end_ms), [], now_ms=now_ms).outcome is outcome


def test_a_recording_that_comes_later_answers_and_the_explanation_stays() -> None:
    explained = replace(CALL, explanation=Explanation(Why.FORGOTTEN, "", "ann", LATER))
    assert dispatches.judge(explained, [], now_ms=LATER).outcome is Outcome.EXPLAINED
    found = dispatches.judge(explained, [("cam-7", row(T0, END))], now_ms=LATER)
    assert (found.outcome, found.dispatch.explanation) == (Outcome.RECORDED, explained.explanation)


def test_rates_count_each_call_once_by_node_and_day() -> None:
    calls = [CALL, replace(CALL, dispatch="call-2", path="hq/station-7"), replace(CALL, begin_ms=T0 + DAY_MS)]
    judged = [dispatches.judge(each, [("cam-7", row(T0, END))], now_ms=LATER) for each in calls]
    day = T0 - T0 % DAY_MS
    assert dispatches.rates(judged) == {
        ("hq", day): Rate(dispatches=1, recorded=1),
        ("hq", day + DAY_MS): Rate(dispatches=1, unexplained=1),
        ("hq/station-7", day): Rate(dispatches=1, recorded=1),
    }


def test_a_spreadsheets_csv_is_read() -> None:
    data = "\ufeff" + HEADER + "call-1;hq;2026-01-01T09:00:00+01:00;;4711;\n"
    read = dispatches.read_csv(data.encode())
    assert read.faults == []
    (line,) = read.rows
    assert dispatches.of_line(line, "hq") == replace(CALL, kind="", end_ms=None)


@pytest.mark.parametrize(
    "line",
    [
        "call-1;hq;2026-01-01T09:00:00;;4711;",
        "call-1;hq;yesterday;;4711;",
        "call-1;hq;2026-01-01T09:00:00Z;;;",
        "call-1;hq;2026-01-01T09:00:00Z;2026-01-02T09:00:01Z;4711;",
        "Call 1;hq;2026-01-01T09:00:00Z;;4711;",
        "call-1;;2026-01-01T09:00:00Z;;4711;",
        "call-1;hq;2026-01-01T09:00:00Z;;4711;../cam",
        "call-1;hq;2026-01-01T09:00:00Z;;4711",
    ],
)
def test_a_row_that_is_none_is_a_fault_with_its_line(line: str) -> None:
    read = dispatches.read_csv(f"{HEADER}{line}\n".encode())
    assert [each.line for each in read.faults] == [2]
