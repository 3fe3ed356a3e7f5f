"""The fleet by organisation node: what there is, what of it is heard, and whose records are missing."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.influxql import devices_where, share_over_time, tag_values, totals
from dashboards.latest import latest_sections
from dashboards.layout import Section, Tile, laid_out
from dashboards.panels import (
    ALL_IS_GOOD,
    DATASOURCE,
    NEUTRAL,
    NONE_IS_GOOD,
    ORANGE,
    PLAIN,
    RED,
    About,
    Column,
    Step,
    lines_of,
    link,
    stat_of,
    table_of,
    timeline_of,
)
from dashboards.units import SHARE
from fleet_server.standing import measures

UID: Final = "fieldfleet-fleet"
PRESENCE: Final = measures.PRESENCE.name
NOW: Final = "now-5m"
"""Presence is written every half minute and may come late; a device that was removed is gone after as much."""
FLAPS_MANY: Final = 3
"""Connections an hour beside the one it has: more than a tunnel or a car park explains."""
SILENT: Final = "server silent"
"""Where there should always be a number: neither 0 nor good, but not known."""
NONE_SUCH: Final = "none"

_THE_REST: Final = "${__url_time_range}"
# devices and nodes are named with letters, digits, - and /, which a query string takes as they are
WHOLE_FLEET: Final = link(
    "The whole fleet", f"/d/{UID}?var-org=$__all&var-device_class=$__all&var-device=$__all&{_THE_REST}"
)
TO_DEVICE: Final = link(
    "Only this device",
    f"/d/{UID}?var-org=$__all&var-device_class=$__all&var-device=${{__value.raw}}&{_THE_REST}",
)
TO_ORG: Final = link(
    "Only this node and what is below it",
    f"/d/{UID}?var-org=${{__value.raw}}&var-device_class=$__all&var-device=$__all&{_THE_REST}",
)

_DEVICE: Final = Column(name="device", link=TO_DEVICE, width_px_min=120)
_CLASS: Final = Column(name="device_class", title="class", width_px_min=120)
_ORG: Final = Column(name="org", link=TO_ORG, width_px_min=180)


def fleet() -> grafana.Dashboard:
    """The whole dashboard."""
    about = (_DEVICE, _CLASS, _ORG)
    sections = (_now(), _by_org(), _devices(about), _records(about), *latest_sections(about, (WHOLE_FLEET,)))
    return grafana.Dashboard(
        uid=UID,
        title="The fleet by organisation node",
        description="What there is, what of it is heard, and whose records are missing",
        tags=["fieldfleet"],
        timezone="browser",
        editable=False,
        graph_tooltip=grafana.DashboardCursorSync.CROSSHAIR,
        refresh="1m",
        time=grafana.DashboardDashboardTime(from_val="now-3h", to="now"),
        schema_version=42,
        templating=grafana.DashboardDashboardTemplating(list_val=_variables()),
        panels=laid_out(sections),
    )


def _variables() -> list[grafana.VariableModel]:
    org = r'"org" =~ /^$org(\/.*)?$/'
    return [
        _variable("org", "Organisation node", tag_values(PRESENCE, "org")),
        _variable("device_class", "Device class", tag_values(PRESENCE, "device_class", where=org)),
        _variable(
            "device",
            "Device",
            tag_values(PRESENCE, "device", where=rf'{org} AND "device_class" =~ /^$device_class$/'),
        ),
    ]


def _variable(name: str, label: str, query: str) -> grafana.VariableModel:
    # multi: Grafana escapes values for a regular expression only then, and an organisation's path has slashes
    variable = grafana.VariableModel(
        type_val=grafana.VariableType.QUERY,
        name=name,
        label=label,
        query=query,
        datasource=DATASOURCE,
        multi=True,
        include_all=True,
        all_value=".*",
        current=grafana.VariableOption(selected=True, text=["All"], value=["$__all"]),
        refresh=grafana.VariableRefresh.ON_DASHBOARD_LOAD,
        sort=grafana.VariableSort.NATURAL_ASC,
    )
    # the models' defaults, which are of another kind of variable
    variable.auto = variable.auto_min = variable.auto_count = None
    return variable


def _now() -> Section:
    devices = stat_of(
        _about("Devices", "Devices that the server knows of.", no_value=SILENT),
        totals(PRESENCE, ['count("connected") AS "devices"'], ["connected"]),
        steps=NEUTRAL,
    )
    worst = stat_of(
        _about(
            "Worst node",
            "Share connected at the organisation node where it is lowest: 0 % is a node of which nothing is heard.",
            no_value=SILENT,
        ),
        f'SELECT min("share") AS "share" FROM ({_org_shares()})',
        unit=SHARE,
        steps=ALL_IS_GOOD,
    )
    flaps = stat_of(
        _about(
            "Reconnections",
            "Connections made within the last hour by devices that had one already.",
            no_value=SILENT,
        ),
        totals(PRESENCE, ['sum("flaps") AS "flaps"'], ["flaps"]),
        steps=NEUTRAL,
    )
    return Section(
        "Now",
        (
            Tile(devices, 3, 5),
            Tile(_count_and_share("connected", "Devices with a live connection to the broker."), 5, 5),
            Tile(_count_and_share("reporting", "Devices of which every stream with a cadence keeps it."), 5, 5),
            Tile(_count_and_share("healthy", "Devices whose journal says nothing is wrong."), 5, 5),
            Tile(worst, 3, 5),
            Tile(flaps, 3, 5),
        ),
    )


def _count_and_share(fact: str, description: str) -> grafana.Panel:
    terms = [f'sum("{fact}") AS "{fact}"', f'mean("{fact}") AS "share"']
    return stat_of(
        _about(fact.capitalize(), description, no_value=SILENT),
        totals(PRESENCE, terms, [fact]),
        steps=NEUTRAL,
        columns=[Column(name="share", title="of all", unit=SHARE, steps=ALL_IS_GOOD)],
    )


def _org_shares() -> str:
    return totals(PRESENCE, ['mean("connected") AS "share"'], ["connected"], by="org")


def _by_org() -> Section:
    return Section(
        "By organisation node",
        (Tile(_org_table(), 14, 12), Tile(_org_timeline(), 10, 12), Tile(_shares_over_time(), 24, 8)),
    )


def _org_table() -> grafana.Panel:
    counts = ['count("connected") AS "devices"', 'mean("connected") AS "share"', 'sum("connected") AS "connected"']
    sums = ("reporting", "healthy", "gaps_unexplained", "gaps_lost", "quarantined")
    queries = [
        totals(PRESENCE, counts, ["connected"], by="org"),
        *(totals(PRESENCE, [f'sum("{name}") AS "{name}"'], [name], by="org") for name in sums),
    ]
    columns = (
        _ORG,
        Column(name="share", title="share", unit=SHARE, steps=ALL_IS_GOOD, background=True),
        Column(name="devices"),
        Column(name="connected"),
        Column(name="reporting"),
        Column(name="healthy"),
        Column(name="gaps_unexplained", title="unexplained", steps=NONE_IS_GOOD),
        Column(name="gaps_lost", title="lost", steps=NONE_IS_GOOD),
        Column(name="quarantined", steps=_QUARANTINE),
    )
    about = _about(
        "Organisation nodes",
        "Every node that has devices of its own, the worst first. A site that is out is a red line of 0 %; its "
        "devices are below. A click on a node shows it and what is below it.",
        no_value="-",
    )
    return table_of(about, queries, columns, sort_by="share", descending=False)


def _org_timeline() -> grafana.Panel:
    about = _about(
        "Connected over time",
        "Share of each node's devices that was connected. A red block is a site that was out; a hole is a time at "
        "which the server itself said nothing.",
        time_from=None,
    )
    query = share_over_time(PRESENCE, ["connected"], by="org")
    return timeline_of(about, query, alias="$tag_org", unit=SHARE, steps=ALL_IS_GOOD)


def _shares_over_time() -> grafana.Panel:
    about = _about(
        "All that is chosen, over time",
        "Share of the chosen devices that was connected, reporting, healthy. A hole is a time at which the server "
        "itself said nothing.",
        time_from=None,
    )
    query = share_over_time(PRESENCE, ["connected", "reporting", "healthy"])
    return lines_of(about, query, alias="$col", unit=SHARE, steps=ALL_IS_GOOD)


def _devices(about: tuple[Column, ...]) -> Section:
    shown = ("reporting", "healthy", "flaps", "held", "missing")
    yes_no = "bool_yes_no"
    gone = table_of(
        _about("Not connected", "Devices without a live connection now.", no_value=NONE_SUCH),
        [devices_where(PRESENCE, '"connected" = 0', ("connected", *shown), shown)],
        (
            *about,
            Column(name="reporting", unit=yes_no),
            Column(name="healthy", unit=yes_no, steps=(Step(None, RED), Step(1, PLAIN))),
            Column(name="flaps"),
            Column(name="held"),
            Column(name="missing", steps=(Step(None, PLAIN), Step(1, ORANGE))),
        ),
        sort_by="org",
        descending=False,
    )
    flapping = table_of(
        _about(
            "Flapping",
            f"Devices that made {FLAPS_MANY} or more connections within the last hour beside the one that they have.",
            no_value=NONE_SUCH,
        ),
        [devices_where(PRESENCE, f'"flaps" >= {FLAPS_MANY}', ("flaps", "connected"), ("flaps", "connected"))],
        (
            *about,
            Column(name="flaps", title="reconnections", steps=(Step(None, PLAIN), Step(FLAPS_MANY, ORANGE))),
            Column(name="connected", unit=yes_no),
        ),
        sort_by="reconnections",
        descending=True,
    )
    return Section("Devices", (Tile(gone, 14, 9), Tile(flapping, 10, 9)))


_QUARANTINE: Final = (Step(None, PLAIN), Step(1, ORANGE))


def _records(about: tuple[Column, ...]) -> Section:
    return Section(
        "Records",
        (
            Tile(_sum("Unexplained gaps", "gaps_unexplained", _UNEXPLAINED, NONE_IS_GOOD), 6, 4),
            Tile(_sum("Lost gaps", "gaps_lost", _LOST, NONE_IS_GOOD), 6, 4),
            Tile(_sum("Missing", "missing", "Numbers that are not stored, whatever the reason.", NEUTRAL), 6, 4),
            Tile(_sum("Quarantined", "quarantined", _KEPT_RAW, _QUARANTINE), 6, 4),
            Tile(_gap_table(about), 14, 9),
            Tile(_quarantine_table(about), 10, 9),
        ),
    )


_UNEXPLAINED: Final = "Gaps of the last day for which neither the device nor the server has a reason. It should be 0."
_LOST: Final = (
    "Gaps of the last day of what had been receipted and is not in the store: the server broke its promise. "
    "It must be 0."
)
_KEPT_RAW: Final = "Numbers in quarantine: they came, were not what they said, and are kept raw."


def _sum(title: str, name: str, description: str, steps: tuple[Step, ...]) -> grafana.Panel:
    query = totals(PRESENCE, [f'sum("{name}") AS "{name}"'], [name])
    return stat_of(_about(title, description, no_value=SILENT), query, steps=steps)


def _gap_table(about: tuple[Column, ...]) -> grafana.Panel:
    shown = ("gaps_unexplained", "gaps_lost", "missing", "held")
    return table_of(
        _about("Whose gaps", "Devices with gaps that are unexplained or lost.", no_value=NONE_SUCH),
        [devices_where(PRESENCE, '"gaps_unexplained" > 0 OR "gaps_lost" > 0', shown, shown)],
        (
            *about,
            Column(name="gaps_unexplained", title="unexplained", steps=NONE_IS_GOOD),
            Column(name="gaps_lost", title="lost", steps=NONE_IS_GOOD),
            Column(name="missing"),
            Column(name="held"),
        ),
        sort_by="lost",
        descending=True,
    )


def _quarantine_table(about: tuple[Column, ...]) -> grafana.Panel:
    return table_of(
        _about("Whose quarantine", f"Devices with numbers in quarantine. {_KEPT_RAW}", no_value=NONE_SUCH),
        [devices_where(PRESENCE, '"quarantined" > 0', ("quarantined",), ("quarantined",))],
        (*about, Column(name="quarantined", steps=_QUARANTINE)),
        sort_by="quarantined",
        descending=True,
    )


def _about(title: str, description: str, *, no_value: str | None = None, time_from: str | None = NOW) -> About:
    return About(title=title, description=description, links=(WHOLE_FLEET,), time_from=time_from, no_value=no_value)
