"""Panels over time and on the map."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.models import common, geomap, statetimeline, timeseries
from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.panels import (
    NEUTRAL,
    PLAIN,
    About,
    Column,
    InfluxQuery,
    Step,
    Words,
    field_config,
    panel_of,
)
from dashboards.units import COUNT

COLUMN: Final = "$col"
"""Alias of a series: the column of the query; ``$tag_org``: what the tag says."""


def timeline_of(
    about: About,
    query: str,
    *,
    alias: str = COLUMN,
    unit: str,
    steps: Sequence[Step],
    words: Words = (),
    high: float = 1,
    columns: Sequence[Column] = (),
) -> grafana.Panel:
    """A band for each series, coloured by *steps*: an outage is a block that can be seen from across the room."""
    options = statetimeline.Options(
        show_value=common.VisibilityMode.NEVER,
        row_height=0.9,
        merge_values=True,
        legend=common.VizLegendOptions(
            display_mode=common.LegendDisplayMode.LIST, placement=common.LegendPlacement.BOTTOM, show_legend=False
        ),
        tooltip=common.VizTooltipOptions(mode=common.TooltipDisplayMode.SINGLE, sort=common.SortOrder.NONE),
    )
    custom = statetimeline.FieldConfig(fill_opacity=80, line_width=0)
    return _over_time(
        "state-timeline",
        about,
        InfluxQuery(query, "time_series", alias=alias),
        options=options,
        defaults=field_config(about, unit, steps, custom=custom, low=0, high=high, words=words),
        interval_min=BAND_INTERVAL_MIN,
        columns=columns,
    )


def lines_of(
    about: About,
    query: str,
    *,
    alias: str = COLUMN,
    unit: str,
    steps: Sequence[Step] = NEUTRAL,
    columns: Sequence[Column] = (),
    low: float | None = None,
    high: float | None = None,
) -> grafana.Panel:
    """A line for each series; nothing is drawn where nothing is known. *low*, *high*: the ends of its axis."""
    options = timeseries.Options(
        legend=common.VizLegendOptions(
            display_mode=common.LegendDisplayMode.LIST, placement=common.LegendPlacement.BOTTOM, show_legend=True
        ),
        tooltip=common.VizTooltipOptions(mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.ASCENDING),
    )
    custom = common.GraphFieldConfig(
        line_width=1, fill_opacity=0, show_points=common.VisibilityMode.NEVER, span_nulls=False
    )
    defaults = field_config(about, unit, steps, custom=custom, low=low, high=high)
    defaults.color = grafana.FieldColor(mode=grafana.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
    return _over_time(
        "timeseries",
        about,
        InfluxQuery(query, "time_series", alias=alias),
        options=options,
        defaults=defaults,
        interval_min=LINE_INTERVAL_MIN,
        columns=columns,
    )


BAND_INTERVAL_MIN: Final = "1m"
"""Two points of presence at least: a shorter interval would show holes that are none."""
LINE_INTERVAL_MIN: Final = "5m"
"""Points of all devices merged into one series cost three times as much at 1m."""
POINTS_MAX: Final = 240


def _over_time(
    kind: str,
    about: About,
    query: InfluxQuery,
    *,
    options: object,
    defaults: grafana.FieldConfig,
    interval_min: str,
    columns: Sequence[Column],
) -> grafana.Panel:
    panel = panel_of(kind, about, [query], options=options, defaults=defaults, columns=columns)
    panel.interval = interval_min
    panel.max_data_points = POINTS_MAX
    return panel


def map_of(about: About, query: str, columns: Sequence[Column], *, by: str, steps: Sequence[Step]) -> grafana.Panel:
    """A mark at ``lat`` and ``lon`` of each row, coloured by its column *by*. *columns*: what a click on it shows.

    The ground is Grafana's default, which a site without the internet sets to tiles of its own.
    """
    marks = common.MapLayerOptions(
        type_val="markers",
        name=about.title,
        location=common.FrameGeometrySource(
            mode=common.FrameGeometrySourceMode.COORDS, latitude="lat", longitude="lon"
        ),
        config={
            "showLegend": False,
            "style": {
                "color": {"field": by, "fixed": PLAIN},
                "opacity": 0.8,
                "size": {"fixed": 6, "min": 2, "max": 15},
                "symbol": {"fixed": "img/icons/marker/circle.svg", "mode": "fixed"},
            },
        },
        tooltip=True,
    )
    options = geomap.Options(
        view=geomap.MapViewConfig(id_val="fit", all_layers=True, padding=20, max_zoom=16),
        controls=geomap.ControlsOptions(
            show_zoom=True, mouse_wheel_zoom=True, show_attribution=True, show_scale=True
        ),
        basemap=common.MapLayerOptions(type_val="default", name="Basemap"),
        layers=[marks],
        tooltip=geomap.TooltipOptions(mode=geomap.TooltipMode.DETAILS),
    )
    return panel_of(
        "geomap",
        about,
        [InfluxQuery(query, "table")],
        options=options,
        defaults=field_config(about, COUNT, steps),
        columns=columns,
    )
