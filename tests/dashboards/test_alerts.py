"""Grafana's rules, each asked of a real InfluxDB in which it is broken, and of one in which all is well."""

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import yaml

from dashboards.alerts import threshold
from dashboards.rendered import Telling, files
from fleet_server.alerting.rules import RULE, RULES, Kin, Rule, Way
from fleet_server.standing.measures import Of
from tests.dashboards.lint import MEASURED
from tests.servers import SeriesServer, influxd

ORG: Final = "hq/station-01"
BROKEN, WELL = "broken", "well"
ALERTING: Final = "provisioning/alerting/"


def provisioned(name: str, told: Telling = Telling()) -> Any:  # noqa: B008 - frozen
    return yaml.safe_load(files(told=told)[f"{ALERTING}{name}.yaml"])


RULES_FILE: Final = provisioned("rules")
RENDERED: Final[dict[str, Any]] = {
    rule["labels"]["rule"]: rule for group in RULES_FILE["groups"] for rule in group["rules"]
}


def wrong(rule: Rule) -> float:
    """A value at which it fires."""
    return rule.fires + (-1 if rule.way is Way.BELOW else 1) * (0.25 if abs(rule.fires) < 2 else 1)


def lines(rule: Rule, value: float, *, away: int) -> Iterator[str]:
    """Points of what *rule* looks at; of an outage's, of *away* of four devices."""
    values = {
        rule.field: value,
        **({rule.minus: 0.0} if rule.minus else {}),
        **({rule.only: 1.0} if rule.only else {}),
    }
    fields = ",".join(f"{name}={float(number)}" for name, number in values.items())
    if rule.kin is Kin.OUTAGE:
        for at in range(4):
            yield f"{rule.measurement},device=d-{at},device_class=host,org={ORG} connected={float(at >= away)}"
    elif rule.subject is Of.DEVICE:
        kind = rule.classes[0] if rule.classes else "body_camera"
        yield f"{rule.measurement},device=a-1,device_class={kind},org={ORG} {fields}"
    else:
        yield f"{rule.measurement} {fields}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with influxd(tmp_path_factory.mktemp("influxd")) as running:
        with httpx.Client(base_url=running.url, timeout=30) as client:
            for rule in RULES:
                for name, value, away in ((BROKEN, wrong(rule), 3), (WELL, rule.clears, 1)):
                    database = f"{name}-{rule.name}"
                    client.post("/query", params={"q": f'CREATE DATABASE "{database}"'}).raise_for_status()
                    content = "\n".join(lines(rule, value, away=away))
                    client.post("/write", params={"db": database}, content=content).raise_for_status()
        yield running


def evaluated(server: SeriesServer, rule: Rule, database: str) -> dict[tuple[tuple[str, str], ...], bool]:
    """Labels of each series that the query finds, and whether the threshold is crossed, as Grafana would say."""
    (asked,) = (each for each in RENDERED[rule.name]["data"] if each["refId"] == "A")
    answer = httpx.get(f"{server.url}/query", params={"db": f"{database}-{rule.name}", "q": asked["model"]["query"]})
    (result,) = answer.raise_for_status().json()["results"]
    assert "error" not in result, result
    condition = RENDERED[rule.name]["data"][-1]["model"]["conditions"][0]["evaluator"]
    found = {}
    for series in result.get("series", ()):
        values = [row[series["columns"].index("value")] for row in series["values"]]
        newest = [value for value in values if value is not None][-1]
        found[tuple(sorted(series.get("tags", {}).items()))] = crossed(condition, newest)
    return found


def crossed(evaluator: dict[str, Any], value: float) -> bool:
    limits = evaluator["params"]
    match evaluator["type"]:
        case "gt":
            return bool(value > limits[0])
        case "lt":
            return bool(value < limits[0])
        case "outside_range":
            return bool(value < limits[0] or value > limits[1])
        case "within_range":
            return bool(limits[0] < value < limits[1])
        case other:
            raise AssertionError(other)


@pytest.mark.server("influxd")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_fires_where_it_is_broken_and_not_where_all_is_well(server: SeriesServer, rule: Rule) -> None:
    broken, well = evaluated(server, rule, BROKEN), evaluated(server, rule, WELL)
    assert list(broken.values()) == [True]
    assert not any(well.values())
    ((labels, _),) = broken.items()
    assert {name for name, value in labels if value} == {
        Of.DEVICE: {"device", "device_class", "org"},
        Of.NODE: {"org"},
        Of.SITE: set(),
    }[rule.subject]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_it_clears_further_off_than_it_fires_as_the_servers_own_does(rule: Rule) -> None:
    condition = threshold(rule)
    assert crossed(condition["evaluator"], wrong(rule) if not rule.minus else -wrong(rule)) or rule.kin is Kin.OUTAGE
    if "unloadEvaluator" in condition and rule.kin is not Kin.OUTAGE:
        sign = -1 if rule.minus else 1
        beyond = {Way.ABOVE: rule.clears - 0.01, Way.BELOW: rule.clears + 0.01, Way.OFF: rule.clears - 0.01}[rule.way]
        assert crossed(condition["unloadEvaluator"], sign * beyond)
        assert not crossed(condition["unloadEvaluator"], sign * (rule.fires + rule.clears) / 2)
    else:
        assert rule.fires == rule.clears


def test_every_rule_of_the_table_is_there_with_its_time_severity_words_and_runbook() -> None:
    assert set(RENDERED) == set(RULE)
    for name, rendered in RENDERED.items():
        rule = RULE[name]
        assert len(rendered["uid"]) <= 40  # Grafana's bound
        assert (rendered["for"], rendered["keepFiringFor"]) == (f"{rule.fires_s}s", f"{rule.clears_s}s")
        assert rendered["labels"]["severity"] == rule.severity
        told = rendered["annotations"]
        assert told["summary"] != told["summary_zh_hans"]
        assert told["runbook_url"] == f"docs/runbooks/{name}.md"
        if rule.subject is Of.DEVICE:
            assert "{{ .Labels.device }}" in told["summary"]
            assert "{{ .Labels.org }}" in told["summary_zh_hans"]


def test_no_query_names_what_no_table_declares() -> None:
    for name, rendered in RENDERED.items():
        rule = RULE[name]
        assert rule.field in MEASURED[rule.measurement]
        assert f'FROM "{rule.measurement}"' in rendered["data"][0]["model"]["query"]


def test_nothing_in_the_files_is_taken_for_a_variable_of_the_environment() -> None:
    for path, text in files().items():
        assert not path.startswith(ALERTING) or "$" not in text


def test_what_one_place_has_is_told_together_and_nobody_is_mailed_who_was_not_named() -> None:
    (tree,) = provisioned("policies")["policies"]
    assert tree["group_by"][0] == "org"
    (point,) = provisioned("contact-points")["contactPoints"]
    assert tree["receiver"] == point["name"]
    assert point["receivers"][0]["settings"]["addresses"].endswith(".invalid")
    named = Telling("https://wiki.example/", "desk@police.example")
    (point,) = provisioned("contact-points", named)["contactPoints"]
    assert point["receivers"][0]["settings"]["addresses"] == "desk@police.example"
    assert "https://wiki.example/docs/runbooks/site-outage.md" in json.dumps(provisioned("rules", named))
