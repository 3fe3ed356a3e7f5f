import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from broker_config import device_classes
from dashboards import units
from dashboards.latest import plausible
from dashboards.panels import PLAIN, RED
from dashboards.rendered import files
from tests.dashboards.asked import Json, dashboards, panels

GRAFANA = Path(__file__).parents[2] / "dashboards" / "grafana"


def test_what_grafana_is_given_is_what_the_code_says(golden: Callable[[Path, str], None]) -> None:
    for path, text in files().items():
        golden(GRAFANA / path, text)


def test_grafana_is_given_nothing_else() -> None:
    there = {str(path.relative_to(GRAFANA)) for path in GRAFANA.rglob("*") if path.is_file()}
    assert there == set(files())


def test_each_dashboard_is_found_by_an_id_of_its_own() -> None:
    uids = [dashboard["uid"] for dashboard in dashboards().values()]
    assert len(set(uids)) == len(uids)
    assert all(len(uid) <= 40 for uid in uids)  # Grafana's bound


def test_every_link_leads_to_a_dashboard_that_is_there() -> None:
    uids = {dashboard["uid"] for dashboard in dashboards().values()}
    for dashboard in dashboards().values():
        of_panels = [link for panel in panels(dashboard) for link in panel["links"]]
        of_values = [link for panel in panels(dashboard) for column, link in _value_links(panel)]
        assert of_values
        for link in (*of_panels, *of_values):
            assert link["url"].split("?")[0].removeprefix("/d/") in uids


def test_a_click_on_a_device_or_a_node_sets_the_variable_of_that_name() -> None:
    for dashboard in dashboards().values():
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        for column, link in (found for panel in panels(dashboard) for found in _value_links(panel)):
            set_to = dict(parse_qsl(urlsplit(link["url"]).query))
            assert set_to.keys() >= {f"var-{name}" for name in variables}
            assert set_to[f"var-{column}"] == "${__value.raw}"


def _value_links(panel: Json) -> list[tuple[str, Json]]:
    """Column and link, of each column that has one."""
    return [
        (field["matcher"]["options"], link)
        for field in panel["fieldConfig"]["overrides"]
        for set_to in field["properties"]
        if set_to["id"] == "links"
        for link in set_to["value"]
    ]


def test_every_stream_with_fields_has_a_table_in_each_class_that_has_it_as_its_own() -> None:
    (dashboard,) = dashboards().values()
    shown = {(panel["title"]) for panel in panels(dashboard)}
    board = device_classes.load(device_classes.BOARD)
    for name in device_classes.names():
        for stream, spec in device_classes.load(name).streams.items():
            if spec.fields and (name == board.name or spec != board.streams.get(stream)):
                assert f"{name}: {stream}" in shown


def test_every_measuring_unit_of_a_class_can_be_shown() -> None:
    for name in device_classes.names():
        for spec in device_classes.load(name).streams.values():
            for field in spec.fields.values():
                assert units.grafana_unit(field.unit)


def test_a_unit_that_nobody_told_is_refused() -> None:
    with pytest.raises(units.UnknownUnitError, match="got 'furlong'"):
        units.grafana_unit("furlong")


@pytest.mark.parametrize(
    ("value", "color"),
    [(-0.1, RED), (0, PLAIN), (50, PLAIN), (100, PLAIN), (100.1, RED)],  # both ends are plausible
)
def test_a_reading_is_red_outside_its_range(value: float, color: str) -> None:
    percent = device_classes.Field(unit="%", min=0, max=100)
    shown = [step.color for step in plausible(percent) if step.start is None or value >= step.start]
    assert shown[-1] == color


def test_provisioning_names_the_source_that_every_panel_asks() -> None:
    (source,) = yaml.safe_load(files()["provisioning/datasources/fieldfleet.yaml"])["datasources"]
    asked = {panel["datasource"]["uid"] for board in dashboards().values() for panel in panels(board)}
    assert asked == {source["uid"]}
    assert source["jsonData"]["version"] == "InfluxQL"


def test_no_secret_is_in_the_rendered_files() -> None:
    (source,) = yaml.safe_load(files()["provisioning/datasources/fieldfleet.yaml"])["datasources"]
    assert source["secureJsonData"] == {"password": "$__file{/run/secrets/influxdb-grafana-password}"}


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert files() == files()
    assert all(json.loads(text) for path, text in files().items() if path.endswith(".json"))
