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
from dashboards.words import CLASSES, STREAMS
from fleet_server.texts import Language
from tests.dashboards.asked import Json, dashboards, panels

BOARDS = dashboards()
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


@pytest.mark.parametrize("path", BOARDS)
def test_every_link_leads_to_a_dashboard_of_the_same_language(path: str) -> None:
    uids = {board["uid"] for other, board in BOARDS.items() if _language(other) == _language(path)}
    assert _links(BOARDS[path])
    for link in _links(BOARDS[path]):
        assert link["url"].split("?")[0].removeprefix("/d/") in uids


@pytest.mark.parametrize("path", BOARDS)
def test_a_link_sets_or_keeps_every_variable_of_where_it_leads_to(path: str) -> None:
    here = {variable["name"] for variable in BOARDS[path]["templating"]["list"]}
    for link in _links(BOARDS[path]):
        query = link["url"].split("?")[1].removesuffix("&${__url_time_range}").split("&")
        kept = {
            part.removeprefix("${").removesuffix(":queryparam}") for part in query if part.endswith(":queryparam}")
        }
        named = {part.partition("=")[0].removeprefix("var-") for part in query if part.startswith("var-")}
        assert kept <= here
        assert kept | named >= {variable["name"] for variable in _of(link)["templating"]["list"]}


@pytest.mark.parametrize("path", BOARDS)
def test_a_click_on_a_device_or_a_node_sets_the_variable_of_that_name(path: str) -> None:
    for column, link in (found for panel in panels(BOARDS[path]) for found in _value_links(panel)):
        set_to = dict(parse_qsl(urlsplit(link["url"]).query))
        assert set_to[f"var-{column}"] == "${__value.raw}"
        assert column in {variable["name"] for variable in _of(link)["templating"]["list"]}


def test_from_the_command_centre_every_dashboard_is_a_click_or_a_menu_away() -> None:
    for path, board in BOARDS.items():
        (menu,) = board["links"]  # and no link to pages that nobody said the place of
        found = {other for other, each in BOARDS.items() if set(menu["tags"]) <= set(each["tags"])}
        assert found == {other for other in BOARDS if _language(other) == _language(path)}
    home = BOARDS["dashboards/en/command_centre.json"]
    assert {"fieldfleet-fleet", "fieldfleet-station", "fieldfleet-device", "fieldfleet-evidence"} <= {
        _of(link)["uid"] for link in _links(home)
    }


def _language(path: str) -> str:
    return path.split("/")[1]


def _links(board: Json) -> list[Json]:
    """Those of panels, and of values in them."""
    of_panels = [link for panel in panels(board) for link in panel["links"]]
    return [*of_panels, *(link for panel in panels(board) for _, link in _value_links(panel))]


def _of(link: Json) -> Json:
    uid = link["url"].split("?")[0].removeprefix("/d/")
    return next(board for board in BOARDS.values() if board["uid"] == uid)


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
    shown = [
        {panel["title"] for panel in panels(BOARDS[f"dashboards/en/{name}.json"])} for name in ("fleet", "device")
    ]
    board = device_classes.load(device_classes.BOARD)
    for name in device_classes.names():
        for stream, spec in device_classes.load(name).streams.items():
            if spec.fields and (name == board.name or spec != board.streams.get(stream)):
                assert all(f"{CLASSES[name]}: {STREAMS[stream]}" in titles for titles in shown)


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


@pytest.mark.parametrize("path", BOARDS)
def test_rows_of_several_queries_become_one_whatever_their_times_are(path: str) -> None:
    for panel in panels(BOARDS[path]):
        if panel["type"] == "table" and len(panel["targets"]) > 1:
            first, then, *_ = panel["transformations"]
            assert (first["id"], first["options"]) == ("filterFieldsByName", {"exclude": {"names": ["Time"]}})
            assert then["id"] == "merge"


def test_provisioning_names_the_source_that_every_panel_asks() -> None:
    (source,) = yaml.safe_load(files()["provisioning/datasources/fieldfleet.yaml"])["datasources"]
    asked = {panel["datasource"]["uid"] for board in dashboards().values() for panel in panels(board)}
    assert asked == {source["uid"]}
    assert source["jsonData"]["version"] == "InfluxQL"


def test_each_language_has_a_folder_of_its_own() -> None:
    providers = yaml.safe_load(files()["provisioning/dashboards/fieldfleet.yaml"])["providers"]
    assert len({provider["folderUid"] for provider in providers}) == len(providers) == len(Language)
    assert {provider["folder"] for provider in providers} == {"Field fleet", "外勤设备"}


def test_a_site_may_have_one_language_and_its_own_time_zone() -> None:
    told = files([Language.ZH_HANS], "Asia/Shanghai")
    boards = [json.loads(text) for path, text in told.items() if path.endswith(".json")]
    assert len(boards) == len(BOARDS) / len(Language)
    assert {board["timezone"] for board in boards} == {"Asia/Shanghai"}
    assert {board["timezone"] for board in BOARDS.values()} == {"browser"}


def test_a_site_that_says_where_its_pages_are_has_links_to_them() -> None:
    told = files([Language.EN], pages="https://fleet.example")
    boards = [json.loads(text) for path, text in told.items() if path.endswith(".json")]
    links = [link["url"] for board in boards for link in _links(board)]
    assert {url for url in links if not url.startswith("/d/")} == {
        "https://fleet.example/alerts",
        "https://fleet.example/coverage",
        "https://fleet.example/devices/${device}",
    }
    assert all(link["url"].startswith("/d/") for board in BOARDS.values() for link in _links(board))


def test_no_secret_is_in_the_rendered_files() -> None:
    (source,) = yaml.safe_load(files()["provisioning/datasources/fieldfleet.yaml"])["datasources"]
    assert source["secureJsonData"] == {"password": "$__file{/run/secrets/influxdb-grafana-password}"}


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert files() == files()
    assert all(json.loads(text) for path, text in files().items() if path.endswith(".json"))
