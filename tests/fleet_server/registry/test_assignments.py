"""Assignments by a model: whatever is said in whatever order, one holder at a time, at every time of knowing."""

from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.registry import assignments
from fleet_server.registry.assignments import (
    REVISIONS_MAX,
    Act,
    Assignment,
    AssignmentError,
    Correction,
    Handing,
    HeldError,
    NotHeldError,
    With,
)

T: Final = 1_000
ANN: Final = With(officer="4711")
BEN: Final = With(officer="4712")


@dataclass
class Book:
    """All that was said of one device, in memory."""

    said: list[Assignment] = field(default_factory=list)
    now_ms: int = T

    @property
    def held(self) -> list[Assignment]:
        return [each for each in assignments.known(self.said) if not each.withdrawn]

    def out(self, whom: With = ANN, from_ms: int | None = None, to_ms: int | None = None) -> Assignment:
        handing = Handing("cam-7", whom, "ann", from_ms, to_ms)
        name = f"{len(self.said):016x}"
        made = assignments.checked_out(self.held, handing, name=name, path="hq", now_ms=self.now_ms)
        self.said.append(made)
        return made

    def take_back(self, at_ms: int | None = None) -> Assignment:
        made = assignments.checked_in(self.held, at_ms=at_ms, reason="", by="ann", now_ms=self.now_ms)
        self.said.append(made)
        return made

    def pass_on(self, whom: With, at_ms: int | None = None) -> Assignment:
        handing = Handing("cam-7", whom, "ann", at_ms)
        name = f"{len(self.said):016x}"
        both = assignments.handed_over(self.held, handing, name=name, path="hq", now_ms=self.now_ms)
        self.said.extend(both)
        return both[1]

    def correct(self, found: Assignment, **said: Any) -> Assignment:
        correction = Correction(**{"reason": "typed wrong", "by": "ben", **said})
        made = assignments.corrected(found, self.held, correction, now_ms=self.now_ms)
        self.said.append(made)
        return made


moments = st.integers(T - 8, T + 8)
acts = st.one_of(
    st.tuples(st.just("out"), st.sampled_from([ANN, BEN]), st.none() | moments, st.none() | moments),
    st.tuples(st.just("take_back"), st.none() | moments),
    st.tuples(st.just("pass_on"), st.sampled_from([ANN, BEN]), st.none() | moments),
    st.tuples(
        st.just("correct"),
        st.integers(0, 20),
        st.fixed_dictionaries(
            {},
            optional={
                "officer": st.sampled_from(["4711", "4712"]),
                "from_ms": moments,
                "to_ms": moments,
                "lasting": st.booleans(),
                "withdraw": st.booleans(),
            },
        ),
    ),
    st.tuples(st.just("later"), st.integers(0, 3)),
)


def played(script: list[tuple[Any, ...]]) -> Book:
    """A book after a script, of which what is refused says nothing."""
    book = Book()
    for name, *arguments in script:
        before = list(book.said)
        try:
            if name == "later":
                book.now_ms += arguments[0]
            elif name == "correct":
                last = assignments.known(book.said)
                if last:
                    book.correct(last[arguments[0] % len(last)], **arguments[1])
            else:
                getattr(book, name)(*arguments)
        except AssignmentError:
            assert book.said == before
    return book


@settings(max_examples=400, deadline=None)
@given(script=st.lists(acts, max_size=14))
def test_a_device_never_had_two_holders_by_what_was_known_at_any_time(script: list[tuple[Any, ...]]) -> None:
    book = played(script)
    times = {each.said_ms for each in book.said}
    for known_ms in [None, *times]:
        held = [each for each in assignments.known(book.said, known_ms) if not each.withdrawn]
        for at_ms in range(T - 9, T + 40):
            brute = [each for each in held if each.from_ms <= at_ms and (each.to_ms is None or at_ms < each.to_ms)]
            assert len(brute) <= 1
            assert assignments.holding(held, at_ms) == (brute[0] if brute else None)


@settings(max_examples=200, deadline=None)
@given(script=st.lists(acts, max_size=14))
def test_history_is_only_added_to_and_nothing_is_said_of_the_future(script: list[tuple[Any, ...]]) -> None:
    book = played(script)
    for end in range(len(script)):
        earlier = played(script[:end]).said
        assert book.said[: len(earlier)] == earlier
    for each in book.said:
        assert each.from_ms <= each.said_ms
        assert (each.to_ms or 0) <= each.said_ms
        assert each.to_ms is None or each.from_ms < each.to_ms
    for name in {each.assignment for each in book.said}:
        mine = [each.revision for each in book.said if each.assignment == name]
        assert mine == list(range(1, len(mine) + 1))


def test_an_interval_is_half_open() -> None:
    book = Book(now_ms=T + 5)
    book.out(ANN, T, T + 2)
    book.out(BEN, T + 2)
    assert [h.whom if (h := assignments.holding(book.held, at)) else None for at in (T - 1, T, T + 1, T + 2)] == [
        None,
        ANN,
        ANN,
        BEN,
    ]


def test_what_is_out_is_not_given_out_again() -> None:
    book = Book()
    first = book.out()
    with pytest.raises(HeldError) as told:
        book.out(BEN)
    assert told.value.held == first


def test_what_is_with_nobody_is_not_taken_back_nor_handed_over() -> None:
    book = Book()
    with pytest.raises(NotHeldError):
        book.take_back()
    with pytest.raises(NotHeldError):
        book.pass_on(BEN)


def test_a_hand_over_leaves_no_moment_between() -> None:
    book = Book()
    book.out()
    book.now_ms += 10
    begun = book.pass_on(BEN, T + 4)
    ended = book.said[-2]
    assert (ended.to_ms, begun.from_ms, ended.act, begun.act) == (T + 4, T + 4, Act.HANDED_OVER, Act.HANDED_OVER)


def test_a_correction_says_why_and_what_was_believed_before_is_still_told() -> None:
    book = Book()
    first = book.out()
    book.now_ms += 10
    fixed = book.correct(first, officer="4712")
    assert (fixed.revision, fixed.act, fixed.reason, fixed.by) == (2, Act.CORRECTED, "typed wrong", "ben")
    assert assignments.holding(assignments.known(book.said, T + 9), T).whom == ANN  # type: ignore[union-attr]
    assert assignments.holding(assignments.known(book.said), T).whom == BEN  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"reason": ""}, "reason"),
        ({}, "so already"),
        ({"officer": ""}, "an officer, a vehicle or a unit"),
        ({"from_ms": T + 1}, "future"),
        ({"to_ms": T - 1}, "behind its beginning"),
    ],
)
def test_a_correction_that_says_nothing_sound_is_refused(said: dict[str, Any], why: str) -> None:
    book = Book()
    first = book.out()
    with pytest.raises(AssignmentError, match=why):
        book.correct(first, **said)


def test_what_is_withdrawn_never_was_and_is_not_corrected() -> None:
    book = Book()
    gone = book.correct(book.out(), withdraw=True)
    assert book.held == []
    with pytest.raises(AssignmentError, match="withdrawn"):
        book.correct(gone, officer="4712")
    book.out(BEN)


def test_revisions_have_a_bound() -> None:
    book = Book()
    last = book.out()
    for number in range(REVISIONS_MAX - 1):
        last = book.correct(last, officer=f"{number}")
    with pytest.raises(AssignmentError, match="enter another"):
        book.correct(last, officer="x")


def test_every_fault_of_a_file_is_told_with_its_line() -> None:
    text = (
        "device,begin,end,officer\n"
        "cam-7,2026-01-01T08:00:00Z,2026-01-01T16:00:00Z,4711\n"
        "cam-7,2026-01-01T16:00:00Z,,4712\n"
        "cam-8,2026-01-01T08:00:00,,4711\n"  # no offset
        "cam-9,2026-01-01T08:00:00Z,,Anna Meyer\n"  # a name is no badge
    )
    read = assignments.read_csv(text.encode())
    assert [fault.line for fault in read.faults] == [4, 5]
    handing = assignments.handing_of(read.rows[0], "ann")
    assert (handing.whom, handing.to_ms - handing.from_ms) == (ANN, 8 * 3_600_000)  # type: ignore[operator]
