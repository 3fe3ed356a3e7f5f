"""Charts are drawn where there are values, broken where there are none, and shaded where a gap is known."""

import math
from collections.abc import Sequence
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet_server.pages.charts import WIDTH, Points, Shade, Span, chart, labels, short, ticks
from tests.fleet_server.fleet import T0

UTC = ZoneInfo("UTC")
MINUTE_MS = 60_000
SPAN = Span(T0, T0 + 60 * MINUTE_MS, UTC)


def points(values: Sequence[float | None], *, step_ms: int = MINUTE_MS) -> Points:
    return Points([T0 + at * MINUTE_MS for at in range(len(values))], values, (), (), step_ms)


def drawn(found: Points, shades: Sequence[Shade] = ()) -> str:
    svg = chart(found, SPAN, shades, title="what it shows")
    assert svg is not None
    return str(svg)


def test_nothing_is_drawn_of_nothing() -> None:
    assert chart(points([]), SPAN, [], title="") is None
    assert chart(points([None, None]), SPAN, [], title="") is None


def test_a_line_breaks_where_readings_are_missing() -> None:
    svg = drawn(points([1.0, 2.0, 3.0, *[None] * 9, 4.0, 5.0]))
    assert svg.count('class="line"') == 2


def test_one_reading_alone_is_a_dot() -> None:
    assert 'class="dot"' in drawn(points([1.0]))


def test_a_gap_is_shaded_with_its_reason_and_within_the_chart() -> None:
    svg = drawn(points([1.0, 2.0]), [Shade(T0 - 10**9, T0 + 10**9, "alarm")])
    (shade,) = [part for part in svg.split("<rect") if "gap-alarm" in part]
    width = float(shade.partition('width="')[2].partition('"')[0])
    assert 0 < width <= WIDTH


def test_a_title_is_text_and_styles_are_classes() -> None:
    svg = str(chart(points([1.0]), SPAN, [], title='<script>"&'))
    assert "&lt;script&gt;" in svg
    assert "<script" not in svg
    assert "style=" not in svg


@settings(deadline=None)  # the machine may do other things
@given(st.lists(st.none() | st.floats(-1e15, 1e15), max_size=20))
@example([0.0, 1.1125369292536007e-308])
def test_whatever_a_device_measures_is_drawn_with_finite_numbers(values: list[float | None]) -> None:
    svg = str(chart(points(values), SPAN, [], title="") or "")
    assert "nan" not in svg
    assert "inf" not in svg


@pytest.mark.parametrize("length_min", [15, 60, 24 * 60, 7 * 24 * 60])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "Australia/Lord_Howe"])
def test_times_are_whole_in_the_sites_zone(length_min: int, zone: str) -> None:
    span = Span(T0, T0 + length_min * MINUTE_MS, ZoneInfo(zone))
    found = ticks(span)
    assert 2 <= len(found) <= 6
    assert all(span.from_ms <= at_ms <= span.to_ms and at_ms % (5 * MINUTE_MS) == 0 for at_ms in found)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (1234, "1234"), (12_340, "12.34k"), (-3.3e9, "-3.3G"), (math.pi, "3.142")],
)
def test_a_number_is_short(value: float, text: str) -> None:
    assert short(value) == text


def test_labels_of_an_axis_tell_its_ticks_apart() -> None:
    assert labels([Decimal("51.4801"), Decimal("51.4802")]) == ["51.4801", "51.4802"]
    assert labels([Decimal(0), Decimal(50), Decimal(100)]) == ["0", "50", "100"]
