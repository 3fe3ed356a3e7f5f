"""A chart of one field over time, as SVG: a line, between the least and most of each bucket; gaps are shaded.

Every colour is a class of the style sheet: pages are light or dark, and their policy takes no style in a page.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import leather
from leather import theme
from leather.scales import Linear, Scale
from leather.shapes import Shape
from markupsafe import Markup

WIDTH: Final = 440
HEIGHT: Final = 132
TICKS_MAX: Final = 5
DIGITS_MAX: Final = 9
BREAK_BUCKETS: Final = 2.5
"""Between two points so many of their usual distances apart there is no line."""
_STEPS_MIN: Final = (5, 10, 15, 30, 60, 120, 180, 360, 720, 1_440, 2_880)
_MINUTE_MS: Final = 60_000

theme.background_color = "none"
theme.margin = 0.02
theme.tick_color = theme.zero_color = "currentColor"
theme.label_color = "currentColor"
theme.tick_font_family = "inherit"
theme.tick_font_size = 11
theme.tick_font_char_height = 11
theme.tick_font_char_width = 6.5


class Shade(NamedTuple):
    """A gap; ``reason``: a class of the style sheet."""

    from_ms: int
    to_ms: int
    reason: str


class Points(NamedTuple):
    """Shape (n,) each, oldest first; ``lows`` and ``highs`` are empty if nothing was downsampled. ``step_ms``: the
    usual distance of two points, 0 if there is none.
    """

    times_ms: Sequence[int]
    values: Sequence[float | None]
    lows: Sequence[float | None]
    highs: Sequence[float | None]
    step_ms: int


class Span(NamedTuple):
    """What is shown, and in which zone."""

    from_ms: int
    to_ms: int
    zone: ZoneInfo


def chart(points: Points, span: Span, shades: Sequence[Shade], *, title: str, yes_no: bool = False) -> Markup | None:
    """An ``svg`` element; None: there is nothing to draw. *title*: what a screen reader says of it."""
    known = [value for value in points.values if value is not None]
    if not known:
        return None
    drawn = leather.Chart()
    drawn.set_x_scale(_Times(span.from_ms, span.to_ms))
    drawn.add_x_axis(ticks=ticks(span), tick_formatter=lambda at_ms, _index, _count: _clock(int(at_ms), span))
    if yes_no:
        drawn.add_y_scale(0, 1)
        drawn.add_y_axis(ticks=[0, 1])
        low = Decimal(0)
    else:
        low, high = _bounds(points, known)
        scale = Linear(low, high)
        drawn.set_y_scale(scale)
        shown = _few(scale.ticks())
        names = labels(shown)
        drawn.add_y_axis(ticks=shown, tick_formatter=lambda _value, index, _count: names[index])
    # the library wants a series; the shape has the points
    drawn.add_series(leather.Series([(span.from_ms, low)]), _Trace(points, shades))
    root = ET.Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "class": "chart", "role": "img"},
    )
    ET.SubElement(root, "title").text = title
    root.append(drawn.to_svg_group(WIDTH, HEIGHT))
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - the library escapes what it writes


def ticks(span: Span) -> list[int]:
    """Whole hours or minutes of the zone, at most TICKS_MAX."""
    length_min = (span.to_ms - span.from_ms) / _MINUTE_MS
    step_min = next((step for step in _STEPS_MIN if length_min / step <= TICKS_MAX), _STEPS_MIN[-1])
    begin = datetime.fromtimestamp(span.from_ms / 1000, span.zone)
    found = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    out: list[int] = []
    while (at_ms := int(found.timestamp() * 1000)) <= span.to_ms:
        if at_ms >= span.from_ms:
            out.append(at_ms)
        found += timedelta(minutes=step_min)  # wall time, so that midnight stays midnight when clocks change
    return out[-TICKS_MAX:]


def short(value: float | Decimal, digits: int = 4) -> str:
    """A number as a label."""
    number = float(value)
    for least, size, letter in ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(number) >= least:
            return f"{number / size:.{digits}g}{letter}"
    return f"{number:.{digits}g}"


DIFFERENCE_MIN: Final = 1e-12
"""What differs by less is drawn as a level line: no instrument means it, and a scale of it has no end."""


def labels(values: Sequence[Decimal]) -> list[str]:
    """Of an axis: with as many digits as tell its ticks apart."""
    found = [short(value, 3) for value in values]
    for digits in range(4, DIGITS_MAX + 1):
        if len(set(found)) == len(values):
            break
        found = [short(value, digits) for value in values]
    return found


def _bounds(points: Points, known: Sequence[float]) -> tuple[Decimal, Decimal]:
    low = min((value for value in points.lows if value is not None), default=min(known))
    high = max((value for value in points.highs if value is not None), default=max(known))
    if high - low < DIFFERENCE_MIN:
        room = max(1.0, 0.01 * abs(low))
        low, high = low - room, high + room
    return Decimal(repr(float(low))), Decimal(repr(float(high)))


def _few(found: Sequence[Decimal]) -> list[Decimal]:
    """At most four of the library's ticks, ends included: a chart is low."""
    return list(found[:: max(1, -(-(len(found) - 1) // 3))])


def _clock(at_ms: int, span: Span) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, span.zone)
    return f"{at:%m-%d}" if (at.hour, at.minute) == (0, 0) else f"{at:%H:%M}"


class _Times(Scale):  # type: ignore[misc] # the library has no types
    """Ms, without the rounding to even numbers that other scales have."""

    def __init__(self, from_ms: int, to_ms: int) -> None:
        self._from_ms, self._to_ms = from_ms, to_ms

    def contains(self, at_ms: int) -> bool:
        return self._from_ms <= at_ms <= self._to_ms

    def project(self, at_ms: int, low: float, high: float) -> float:
        share = (at_ms - self._from_ms) / (self._to_ms - self._from_ms)
        return float(low) + (float(high) - float(low)) * min(1.0, max(0.0, share))


class _Trace(Shape):  # type: ignore[misc] # the library has no types
    """Gaps, the band and the line as one shape: several would get a legend."""

    def __init__(self, points: Points, shades: Sequence[Shade]) -> None:
        self._points = points
        self._shades = shades

    def validate_series(self, series: Any) -> None:  # noqa: ANN401 - the library has no types
        """Anything goes."""

    def to_svg(self, width: Any, height: Any, x_scale: Any, y_scale: Any, *_: Any) -> ET.Element:  # noqa: ANN401
        """See the library."""
        group = ET.Element("g", {"class": "trace"})

        # the library counts in decimals, which a thousand points would wait for
        zero, one = (float(y_scale.project(each, height, 0)) for each in (0, 1))

        def x(at_ms: int) -> float:
            return float(x_scale.project(at_ms, 0, width))

        def y(value: float) -> float:
            return zero + (one - zero) * value

        for shade in self._shades:
            left, right = x(shade.from_ms), x(shade.to_ms)
            place = {
                "x": f"{left:.1f}",
                "y": "0",
                "width": f"{max(1.0, right - left):.1f}",
                "height": f"{height:.1f}",
            }
            ET.SubElement(group, "rect", {**place, "class": f"gap gap-{shade.reason}"})
        for run in _runs(self._points):
            self._draw(group, run, x, y)
        return group

    def _draw(self, group: ET.Element, run: Sequence[int], x: Any, y: Any) -> None:  # noqa: ANN401
        points = self._points
        lows, highs = points.lows, points.highs
        if lows and highs:
            over = [(at, highs[at]) for at in run]
            under = [(at, lows[at]) for at in reversed(run)]
            corners = [
                f"{x(points.times_ms[at]):.1f},{y(value):.1f}" for at, value in over + under if value is not None
            ]
            ET.SubElement(group, "polygon", {"points": " ".join(corners), "class": "band"})
        places = [(x(points.times_ms[at]), y(value)) for at in run if (value := points.values[at]) is not None]
        if len(places) == 1:
            (cx, cy), *_ = places
            ET.SubElement(group, "circle", {"cx": f"{cx:.1f}", "cy": f"{cy:.1f}", "r": "1.5", "class": "dot"})
        else:
            ET.SubElement(
                group, "polyline", {"points": " ".join(f"{a:.1f},{b:.1f}" for a, b in places), "class": "line"}
            )


def _runs(points: Points) -> list[list[int]]:
    """Places of points that a line joins."""
    known = [at for at, value in enumerate(points.values) if value is not None]
    runs: list[list[int]] = [known[:1]]
    for before, at in pairwise(known):
        apart = points.times_ms[at] - points.times_ms[before]
        if points.step_ms and apart > BREAK_BUCKETS * points.step_ms:
            runs.append([])
        runs[-1].append(at)
    return runs
