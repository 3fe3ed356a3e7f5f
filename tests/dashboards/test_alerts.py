"""Grafana's rules, each asked of a real InfluxDB in which it is broken, and of one in which all is well."""

from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import yaml

from dashboards import alerts
from dashboards.alerts import threshold
from dashboards.rendered import Telling, files
from fleet_server.alerting.rules import RULE, RULES, Kin, Rule, Way
from fleet_server.standing.measures import Of
from fleet_server.texts import Language
from tests.dashboards.lint import MEASURED
from tests.servers import SeriesServer, influxd

ORG: Final = "hq/station-01"
AWAY: Final = "hq/station-02"
BROKEN, WELL = "broken", "well"


RULES_FILE: Final = yaml.safe_load(alerts.rules())
RENDERED: Final[dict[str, Any]] = {
    rule["labels"]["rule"]: rule for group in RULES_FILE["groups"] for rule in group["rules"]
}


def wrong(rule: Rule) -> float:
    """A value at which it fires."""
    return rule.fires + (-1 if rule.way is Way.BELOW else 1) * (0.25 if abs(rule.fires) < 2 else 1)


def lines(rule: Rule, value: float, *, away: int) -> Iterator[str]:
    """Points of what *rule* looks at, of a device of its name; of an outage's, of *away* of four devices."""
    values = {rule.field: value}
    values |= dict.fromkeys(filter(None, [rule.minus]), 0.0) | dict.fromkeys(filter(None, [rule.only]), 1.0)
    fields = ",".join(f"{name}={float(number)}" for name, number in values.items())
    if rule.kin is Kin.OUTAGE:
        for at in range(4):
            yield f"{rule.measurement},device=d-{at},device_class=host,org={AWAY} connected={float(at >= away)}"
    elif rule.subject is Of.DEVICE:
        kind = rule.classes[0] if rule.classes else "body_camera"
        yield f"{rule.measurement},device={rule.name},device_class={kind},org={ORG} {fields}"
    else:
        yield f"{rule.measurement} {fields}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with influxd(tmp_path_factory.mktemp("influxd")) as running:
        for name in (BROKEN, WELL):
            httpx.post(f"{running.url}/query", params={"q": f"CREATE DATABASE {name}"}).raise_for_status()
        for rule in RULES:
            for name, value, away in ((BROKEN, wrong(rule), 3), (WELL, rule.clears, 1)):
                content = "\n".join(lines(rule, value, away=away))
                httpx.post(f"{running.url}/write", params={"db": name}, content=content).raise_for_status()
        yield running


def evaluated(server: SeriesServer, rule: Rule, database: str) -> dict[tuple[tuple[str, str], ...], bool]:
    """Labels of each series that the query finds, and whether the threshold is crossed, as Grafana would say."""
    (asked,) = (each for each in RENDERED[rule.name]["data"] if each["refId"] == "A")
    answer = httpx.get(f"{server.url}/query", params={"db": database, "q": asked["model"]["query"]})
    (result,) = answer.raise_for_status().json()["results"]
    assert "error" not in result, result
    condition = RENDERED[rule.name]["data"][-1]["model"]["conditions"][0]["evaluator"]
    found = {}
    for series in result.get("series", ()):
        tags = series.get("tags", {})
        mine = AWAY if rule.kin is Kin.OUTAGE else rule.name
        if tags and tags.get("device", tags["org"]) != mine:
            continue  # another rule's
        values = [row[series["columns"].index("value")] for row in series["values"]]
        newest = [value for value in values if value is not None][-1]
        found[tuple(sorted(tags.items()))] = crossed(condition, newest)
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
    for path, text in files((Language.EN,)).items():
        assert not path.startswith("provisioning/alerting/") or "$" not in text


def test_what_one_place_has_is_told_together_and_nobody_is_mailed_who_was_not_named() -> None:
    (tree,) = yaml.safe_load(alerts.policies())["policies"]
    assert tree["group_by"][0] == "org"
    (point,) = yaml.safe_load(alerts.contact_points())["contactPoints"]
    assert tree["receiver"] == point["name"]
    assert point["receivers"][0]["settings"]["addresses"].endswith(".invalid")
    named = files((Language.EN,), told=Telling("https://wiki.example/", "desk@police.example"))
    (point,) = yaml.safe_load(named["provisioning/alerting/contact-points.yaml"])["contactPoints"]
    assert point["receivers"][0]["settings"]["addresses"] == "desk@police.example"
    assert "https://wiki.example/docs/runbooks/site-outage.md" in named["provisioning/alerting/rules.yaml"]
