"""Ranges against Python's own sets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.ranges import Range, RangeSet, both, count, from_numbers, minus, normal

NUMBERS = st.sets(st.integers(1, 40))
RANGES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=12)


def numbers(ranges: list[Range] | tuple[Range, ...]) -> set[int]:
    return {n for low, high in ranges for n in range(low, high + 1)}


def is_normal(ranges: tuple[Range, ...]) -> bool:
    return all(low <= high for low, high in ranges) and all(
        before[1] + 1 < after[0] for before, after in pairwise(ranges)
    )


@given(RANGES)
def test_normal_form_holds_the_same_numbers(ranges: list[Range]) -> None:
    assert numbers(normal(ranges)) == numbers(ranges)
    assert is_normal(normal(ranges))


@given(NUMBERS)
def test_from_numbers_holds_just_these(held: set[int]) -> None:
    assert numbers(from_numbers(held)) == held
    assert is_normal(from_numbers(held))


@given(RANGES, RANGES)
def test_minus_and_both_are_those_of_sets(first: list[Range], second: list[Range]) -> None:
    assert numbers(minus(first, second)) == numbers(first) - numbers(second)
    assert numbers(both(first, second)) == numbers(first) & numbers(second)
    assert is_normal(minus(first, second))
    assert is_normal(both(first, second))


@given(RANGES)
def test_count_is_the_size(ranges: list[Range]) -> None:
    assert count(normal(ranges)) == len(numbers(ranges))


@given(st.lists(st.one_of(st.integers(1, 40), st.tuples(st.integers(1, 40), st.integers(0, 10)))))
def test_a_growing_set_is_a_set(steps: list[int | tuple[int, int]]) -> None:
    kept, model = RangeSet(), set[int]()
    for step in steps:
        low, high = (step, step) if isinstance(step, int) else (step[0], step[0] + step[1])
        kept.add(low, high)
        model |= set(range(low, high + 1))
        assert is_normal(kept.ranges())
        assert numbers(kept.ranges()) == model
        assert kept.last == max(model)
    assert bool(kept) is bool(model)
    assert {n for n in range(60) if n in kept} == model
    for up_to in (0, 1, 20, 60):
        assert numbers(kept.holes(up_to)) == set(range(1, up_to + 1)) - model


@given(RANGES)
def test_a_set_begins_with_any_ranges(ranges: list[Range]) -> None:
    assert RangeSet(ranges).ranges() == normal(ranges)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ((), ()),
        (((5, 4),), ()),  # holds nothing
        (((1, 2), (3, 4)), ((1, 4),)),  # they touch
        (((1, 2), (4, 5)), ((1, 2), (4, 5))),
        (((1, 9), (2, 3)), ((1, 9),)),
        (((3, 4), (1, 2)), ((1, 4),)),
    ],
)
def test_normal_form(ranges: tuple[Range, ...], expected: tuple[Range, ...]) -> None:
    assert normal(ranges) == expected


def test_large_ranges_cost_nothing() -> None:
    whole = ((1, 2**53 - 1),)
    assert count(whole) == 2**53 - 1
    assert minus(whole, ((2, 2**53 - 2),)) == ((1, 1), (2**53 - 1, 2**53 - 1))
