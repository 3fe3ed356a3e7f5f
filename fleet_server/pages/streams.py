"""A device's streams as charts: which fields, of what time, and where gaps are."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from broker_config import device_classes
from broker_config.device_classes import Field, StreamSpec, UnknownClassError
from broker_config.telemetry import JOURNAL
from fleet_server.pages.charts import Points, Shade, Span, chart, short
from fleet_server.pages.shell import NOTHING
from fleet_server.pages.words import REASONS
from fleet_server.telemetry.store import Series
from fleet_server.telemetry.view import DeviceSummary, Gap, TelemetryView
from fleet_server.texts import Texts

POINTS: Final = 200
CHARTS_MAX: Final = 40
"""Of one device; beyond them readings are only named."""
YES_NO: Final = "/"
_UNITS: Final = {"Cel": "°C", "count": "", "/": "", "1": "", "lat": "°", "lon": "°", "beat/min": "1/min"}
"""SenML's names that people do not write so."""


class Drawn(NamedTuple):
    """A field over the time that is shown; ``chart`` None: nothing came of it."""

    name: str
    about: str
    latest: str
    chart: Markup | None


class Group(NamedTuple):
    """A stream, and its fields."""

    stream: str
    fields: list[Drawn]


def drawn(view: TelemetryView, summary: DeviceSummary, gaps: Sequence[Gap], span: Span, text: Texts) -> list[Group]:
    """Each stream of which there are readings, by name."""
    known = _specs(summary.device_class)
    names = sorted({each.stream for each in summary.streams} - {JOURNAL})
    left, groups = CHARTS_MAX, []
    for stream in names:
        found = view.series(summary.device, stream, from_ms=span.from_ms, to_ms=span.to_ms, points=POINTS)
        spec = known.get(stream)
        shades = [shade for gap in gaps if gap.stream == stream for shade in _shade(gap, span)]
        fields = list(found.columns)[:left] if found.columns else []
        left -= len(fields)
        groups.append(Group(stream, [_drawn(name, found, spec, shades, span, text) for name in fields]))
    return groups


def _drawn(
    name: str, found: Series, spec: StreamSpec | None, shades: Sequence[Shade], span: Span, text: Texts
) -> Drawn:
    field = None if spec is None else spec.fields.get(name)
    values = found.columns[name]
    known = [value for value in values if value is not None]
    unit = _unit(field)
    latest = f"{short(known[-1])} {unit}".strip() if known else NOTHING
    about = text(field.description) if field is not None and field.description else ""
    step_ms = max(found.bucket_ms, int(1000 * spec.every_s) if spec is not None else 0)
    points = Points(found.times_ms, values, found.lows.get(name, ()), found.highs.get(name, ()), step_ms)
    extremes = (
        text(
            "{name}: least {low}, most {high}, last {last}",
            name=name,
            low=short(min(known)),
            high=short(max(known)),
            last=latest,
        )
        if known
        else name
    )
    yes_no = field is not None and field.unit == YES_NO and (field.min, field.max) == (0, 1)
    return Drawn(name, about, latest, chart(points, span, shades, title=extremes, yes_no=yes_no))


def _shade(gap: Gap, span: Span) -> Iterable[Shade]:
    """Of one that has times."""
    if gap.from_ms is None:
        return ()
    to_ms = gap.to_ms if gap.to_ms is not None else span.to_ms
    return (Shade(gap.from_ms, to_ms, REASONS[gap.reason].mark),) if to_ms > span.from_ms else ()


def _specs(device_class: str) -> dict[str, StreamSpec]:
    try:
        return device_classes.load(device_class).streams
    except UnknownClassError:
        return {}


def _unit(field: Field | None) -> str:
    return "" if field is None else _UNITS.get(field.unit, field.unit)
