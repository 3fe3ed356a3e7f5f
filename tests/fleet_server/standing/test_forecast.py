"""How long something lasts is told from how it went lately, and not told where that says nothing."""

import pytest

from fleet_server.standing.forecast import (
    GAP_MS_MAX,
    LASTS_S_MAX,
    READINGS_MAX,
    SPACING_MS_MAX,
    SPAN_MS_MIN,
    Readings,
)

MINUTE_MS = 60_000


def filled(values: list[float], *, every_ms: int = MINUTE_MS, rise_max: float = 2.0) -> Readings:
    readings = Readings(rise_max)
    for number, value in enumerate(values):
        readings.add(number * every_ms, value)
    return readings


def test_a_steady_fall_ends_where_the_line_does() -> None:
    assert filled([80 - 0.5 * n for n in range(11)]).lasts_s() == pytest.approx(75 / 0.5 * 60)


def test_it_may_end_before_nothing_is_left() -> None:
    assert filled([80 - 0.5 * n for n in range(11)]).lasts_s(empty=15) == pytest.approx(60 / 0.5 * 60)


def test_a_wrong_reading_or_two_change_little() -> None:
    values = [80 - 0.5 * n for n in range(21)]
    values[5], values[14] = 3.0, 72.0
    assert filled(values, rise_max=100).lasts_s() == pytest.approx(70 / 0.5 * 60, rel=0.05)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [80, 79],
    ],
)
def test_nothing_is_told_of_what_is_not_known(values: list[float]) -> None:
    assert filled(values).lasts_s() is None


@pytest.mark.parametrize(
    "values",
    [
        [80.0] * 20,
        [50 + 0.5 * n for n in range(20)],  # it is being filled
    ],
)
def test_what_does_not_fall_lasts(values: list[float]) -> None:
    """And is told to: an alert about it would stay open if nobody knew."""
    assert filled(values).lasts_s() == LASTS_S_MAX


def test_over_too_short_a_time_nothing_is_told() -> None:
    every_ms = SPAN_MS_MIN // 10
    assert filled([80 - n for n in range(10)], every_ms=every_ms).lasts_s() is None
    assert filled([80 - n for n in range(11)], every_ms=every_ms).lasts_s() is not None


def test_a_refill_begins_anew() -> None:
    emptying = [80 - 0.5 * n for n in range(11)]
    assert filled([*emptying, 100.0]).lasts_s() is None
    assert filled([*emptying, *(100 - n for n in range(11))]).lasts_s() == pytest.approx(90 * 60)


def test_what_was_before_a_long_silence_says_nothing() -> None:
    readings = filled([80 - 0.5 * n for n in range(11)])
    readings.add(10 * MINUTE_MS + GAP_MS_MAX + 1, 70)
    assert readings.lasts_s() is None


def test_what_hardly_falls_lasts_as_long_as_can_be_said() -> None:
    assert filled([80 - 1e-6 * n for n in range(11)]).lasts_s() == LASTS_S_MAX


def test_what_is_empty_lasts_no_longer() -> None:
    assert filled([10 - n for n in range(12)]).lasts_s() == 0


def test_older_and_too_near_readings_are_not_taken() -> None:
    readings = Readings(2)
    assert readings.add(MINUTE_MS, 80)
    assert not readings.add(MINUTE_MS, 80)
    assert not readings.add(MINUTE_MS + 1, 80)
    assert not readings.add(0, 80)


def test_of_a_whole_day_no_more_than_two_hours_are_kept_and_these_tell() -> None:
    readings = Readings(2)
    taken = 0
    for n in range(24 * 60):  # twelve hours slowly, then twice as fast
        taken += readings.add(n * MINUTE_MS, 100 - 0.02 * n - max(0, n - 720) * 0.02)
    # at the end one each five minutes: what came in twelve hours has long gone
    assert taken < READINGS_MAX * 3 + 24 * 60 * MINUTE_MS // SPACING_MS_MAX
    assert readings.lasts_s() == pytest.approx((100 - 0.02 * 1439 - 719 * 0.02) / 0.04 * 60, rel=0.02)
