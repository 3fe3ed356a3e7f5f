"""Panels as values: a thin layer over Grafana's own models, so that each says what it shows, in what unit, and when
it is bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Final, Literal, NamedTuple, TypeAlias

from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, stat, table
from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.units import COUNT

DATASOURCE_UID: Final = "fieldfleet-influx"
DATASOURCE: Final = grafana.DataSourceRef(type_val="influxdb", uid=DATASOURCE_UID)

GREEN: Final = "green"
ORANGE: Final = "orange"
RED: Final = "red"
PLAIN: Final = "text"

Format: TypeAlias = Literal["time_series", "table"]


class Step(NamedTuple):
    """From this value on it has this colour; None is from the lowest on."""

    start: float | None
    color: str


class Word(NamedTuple):
    """What a value, a number or a tag's, is shown as."""

    value: int | str
    text: str


Words: TypeAlias = tuple[Word, ...]


NEUTRAL: Final = (Step(None, PLAIN),)
NONE_IS_GOOD: Final = (Step(None, GREEN), Step(1, RED))
SOME_IS_POOR: Final = (Step(None, GREEN), Step(1, ORANGE))
ALL_IS_GOOD: Final = (Step(None, RED), Step(0.5, ORANGE), Step(0.95, GREEN))
"""Of a share."""
YES_IS_GOOD: Final = (Step(None, RED), Step(1, GREEN))
YES_IS_BAD: Final = (Step(None, PLAIN), Step(1, RED))


COLUMN_PX_MIN: Final = 80
"""Grafana's own is 150, at which half of a table stands outside of its panel."""


class InfluxQuery(Dataquery):
    """InfluxQL as it is written, for the data source that is called InfluxDB."""

    def __init__(self, query: str, result_format: Format, *, alias: str | None = None, ref_id: str = "A") -> None:
        self.query = query
        self.ref_id = ref_id
        self.result_format = result_format
        self.alias = alias

    def to_json(self) -> dict[str, object]:
        """As the data source reads it."""
        named = {} if self.alias is None else {"alias": self.alias}
        return {
            "refId": self.ref_id,
            "datasource": DATASOURCE,
            "query": self.query,
            "rawQuery": True,
            "resultFormat": self.result_format,
            **named,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What is particular to one field of a panel; ``name`` as the query calls it. ``link``: url of a click on it."""

    name: str
    title: str | None = None
    unit: str = COUNT
    decimals: int | None = None
    steps: tuple[Step, ...] = ()
    background: bool = False
    width_px_min: int | None = None
    link: grafana.DashboardLink | None = None
    words: Words = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What every panel says of itself. ``time_from``: its own range instead of the dashboard's, such as ``now-5m``;
    Grafana leaves an absolute range alone.
    """

    title: str
    description: str
    links: tuple[grafana.DashboardLink, ...]
    time_from: str | None = None
    no_value: str | None = None


def link(title: str, url: str) -> grafana.DashboardLink:
    """Of a panel, or of a value in it."""
    return grafana.DashboardLink(title=title, type_val=grafana.DashboardLinkType.LINK, icon="external link", url=url)


def stat_of(
    about: About, *queries: str, unit: str = COUNT, steps: Sequence[Step] = NEUTRAL, columns: Sequence[Column] = ()
) -> grafana.Panel:
    """Large numbers: one for each column of each query's one row."""
    options = stat.Options(
        color_mode=common.BigValueColorMode.VALUE,
        graph_mode=common.BigValueGraphMode.NONE,
        reduce_options=common.ReduceDataOptions(calcs=["lastNotNull"]),
        orientation=common.VizOrientation.VERTICAL,
        text_mode=common.BigValueTextMode.VALUE_AND_NAME if columns else common.BigValueTextMode.VALUE,
    )
    return panel_of(
        "stat",
        about,
        _lettered(queries, "time_series", alias="$col"),
        options=options,
        defaults=field_config(about, unit, steps),
        columns=columns,
    )


def _lettered(queries: Sequence[str], result_format: Format, *, alias: str | None = None) -> list[InfluxQuery]:
    assert len(queries) <= len(ascii_uppercase)
    named = zip(ascii_uppercase, queries, strict=False)
    return [InfluxQuery(query, result_format, alias=alias, ref_id=ref_id) for ref_id, query in named]


def table_of(
    about: About,
    queries: Sequence[str],
    columns: Sequence[Column],
    *,
    sort_by: str,
    descending: bool,
    time: bool = False,
) -> grafana.Panel:
    """A row for each combination of tags; *columns* in their order. *sort_by*: a column's name. *time*: each
    row has a time, as column ``Time``.

    Several queries, of the same tags, become one table.
    """
    (sorted_by,) = (column.title or column.name for column in columns if column.name == sort_by)
    order = {column.name: index for index, column in enumerate(columns)}
    organize = grafana.DataTransformerConfig(
        id_val="organize",
        options={"excludeByName": {} if time else {"Time": True}, "indexByName": order, "renameByName": {}},
    )
    # rows are one where all that they share is, and their times differ: a stream's newest row has its own
    untimed = grafana.DataTransformerConfig(id_val="filterFieldsByName", options={"exclude": {"names": ["Time"]}})
    merge = grafana.DataTransformerConfig(id_val="merge", options={})
    options = table.Options(
        show_header=True,
        cell_height=common.TableCellHeight.SM,
        sort_by=[common.TableSortByFieldState(display_name=sorted_by, desc=descending)],
    )
    options.footer = None  # the models' default is of an older Grafana; 13's schema has none
    cell = common.TableAutoCellOptions()
    custom = common.TableFieldOptions(cell_options=cell, filterable=True, min_width=COLUMN_PX_MIN)
    return panel_of(
        "table",
        about,
        _lettered(queries, "table"),
        options=options,
        defaults=field_config(about, COUNT, NEUTRAL, custom=custom),
        columns=columns,
        transformations=[untimed, merge, organize] if len(queries) > 1 else [organize],
    )


def panel_of(
    kind: str,
    about: About,
    queries: Sequence[InfluxQuery],
    *,
    options: object,
    defaults: grafana.FieldConfig,
    columns: Sequence[Column] = (),
    transformations: list[grafana.DataTransformerConfig] | None = None,
) -> grafana.Panel:
    """A panel of any kind that says of itself what every panel says."""
    return grafana.Panel(
        type_val=kind,
        title=about.title,
        description=about.description,
        datasource=DATASOURCE,
        links=list(about.links),
        targets=list(queries),
        time_from=about.time_from,
        hide_time_override=None if about.time_from is None else True,
        transformations=transformations,
        options=options,
        field_config=grafana.FieldConfigSource(
            defaults=defaults,
            overrides=[_override(column, cells=kind == "table") for column in columns],
        ),
    )


def field_config(
    about: About,
    unit: str,
    steps: Sequence[Step],
    *,
    custom: object = None,
    low: float | None = None,
    high: float | None = None,
    words: Words = (),
) -> grafana.FieldConfig:
    """What holds for every field of a panel. *low*, *high*: the ends of an axis."""
    return grafana.FieldConfig(
        unit=unit,
        min_val=low,
        max_val=high,
        no_value=about.no_value,
        thresholds=_thresholds(steps),
        color=grafana.FieldColor(mode=grafana.FieldColorModeId.THRESHOLDS),
        custom=custom,
        mappings=_mappings(words) if words else None,
    )


_UNKNOWN: Final = grafana.SpecialValueMap(
    options=grafana.DashboardSpecialValueMapOptions(
        match=grafana.SpecialValueMatch.NULL, result=grafana.ValueMappingResult(text="-", color=PLAIN)
    )
)
"""A cell without a value is not red, as the lowest step would have it."""


def _mappings(words: Words) -> list[grafana.ValueMapping]:
    if not words:
        return []
    shown = {str(word.value): grafana.ValueMappingResult(text=word.text, index=at) for at, word in enumerate(words)}
    return [grafana.ValueMap(options=shown)]


def _thresholds(steps: Sequence[Step]) -> grafana.ThresholdsConfig:
    return grafana.ThresholdsConfig(
        mode=grafana.ThresholdsMode.ABSOLUTE,
        steps=[grafana.Threshold(value=step.start, color=step.color) for step in steps],
    )


def _override(column: Column, *, cells: bool) -> grafana.DashboardFieldConfigSourceOverrides:
    properties: list[tuple[str, object]] = [("unit", column.unit)]
    if column.title is not None:
        properties.append(("displayName", column.title))
    if column.decimals is not None:
        properties.append(("decimals", column.decimals))
    mappings = [*([_UNKNOWN] if cells and column.link is None else []), *_mappings(column.words)]
    if mappings:
        properties.append(("mappings", mappings))
    if column.steps:
        properties.append(("thresholds", _thresholds(column.steps)))
    if column.steps and cells:
        properties.append(("custom.cellOptions", _cell(column)))
    if column.width_px_min is not None:
        properties.append(("custom.minWidth", column.width_px_min))
    if column.link is not None:
        properties.append(("links", [{"title": column.link.title, "url": column.link.url}]))
    return grafana.DashboardFieldConfigSourceOverrides(
        matcher=grafana.MatcherConfig(id_val="byName", options=column.name),
        properties=[grafana.DynamicConfigValue(id_val=name, value=value) for name, value in properties],
    )


def _cell(column: Column) -> common.TableCellOptions:
    if column.background:
        return common.TableColoredBackgroundCellOptions(mode=common.TableCellBackgroundDisplayMode.BASIC)
    return common.TableColorTextCellOptions()
