"""The rules of alerts as Grafana evaluates them, from the table by which the server does; and who is told.

Rule 1: one query a rule, a row for each device, node or the site; the newest value within a window, then a threshold,
with a threshold of its own for clearing.
Rule 2: no dollar sign in these files: Grafana puts the environment's variables in place of names behind one.
Rule 3: Grafana takes a series that is not there any more for over. So that silence ends no alert at once the window
is an hour, but where it is the query that leaves out what a rule does not apply to.
"""

import json
from typing import Any, Final

from dashboards.influxql import quoted
from dashboards.panels import DATASOURCE_UID
from dashboards.provisioning import FOLDERS
from fleet_server.alerting.rules import RULES, Kin, Rule, Way
from fleet_server.standing.measures import Of
from fleet_server.texts import Language, Texts, marked

WINDOW_S: Final = 3_600
CADENCES: Final = 3
"""Of the measure, in a window that is to be short."""
MAIL: Final = "equipment-managers@fieldfleet.invalid"
RECEIVER: Final = "fieldfleet"
EVERY_S: Final = 30
OUTAGE_TEXT: Final = marked("{org}: {count} devices are not connected")

_EXPRESSION: Final = "__expr__"
_HEADER: Final = "# Rendered by `python -m dashboards render`: change fleet_server/alerting/rules.py, not this.\n"
_DEVICES_MIN: Final = 2.5
_DEVICES_LEFT: Final = 1.5
"""An outage begins with three devices, and lasts with two."""
_HALF: Final = 0.5


def rules(runbooks: str = "") -> str:
    """The file of rules; *runbooks*: where their pages are, such as ``https://wiki.example/``."""
    groups = [
        {
            "orgId": 1,
            "name": f"fieldfleet-{of}",
            "folder": FOLDERS[Language.EN],
            "interval": f"{EVERY_S}s",
            "rules": [_rule(rule, runbooks) for rule in RULES if rule.subject is of],
        }
        for of in Of
    ]
    return _file({"groups": [group for group in groups if group["rules"]]})


def contact_points(mail: str = MAIL) -> str:
    """The file of who is told; to an address in ``.invalid`` nothing is ever sent."""
    receiver = {"uid": RECEIVER, "type": "email", "settings": {"addresses": mail, "singleEmail": True}}
    return _file({"contactPoints": [{"orgId": 1, "name": RECEIVER, "receivers": [receiver]}]})


def policies() -> str:
    """The file of how: what one place has is told together, alarms sooner."""
    tree = {
        "orgId": 1,
        "receiver": RECEIVER,
        "group_by": ["org", "severity"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "12h",
        "routes": [
            {
                "receiver": RECEIVER,
                "object_matchers": [["severity", "=", "alarm"]],
                "group_wait": "10s",
                "group_interval": "1m",
                "repeat_interval": "1h",
            }
        ],
    }
    return _file({"policies": [tree]})


def query(rule: Rule) -> str:
    """In InfluxQL: ``value``, of each that *rule* can be broken by."""
    tags = {Of.DEVICE: ("device", "device_class", "org"), Of.NODE: ("org",), Of.SITE: ()}[rule.subject]
    if rule.kin is Kin.OUTAGE:
        return _outage(rule)
    value = f"last({quoted(rule.field)})"
    if rule.minus:
        # a length of time for people: how much is missing
        value = f"last({quoted(rule.minus)}) - {value}"
    columns = f'{value} AS "value"' + (f', last({quoted(rule.only)}) AS "applies"' if rule.only else "")
    group = f" GROUP BY {', '.join(map(quoted, tags))}" if tags else ""
    inner = f"SELECT {columns} FROM {quoted(rule.measurement)} WHERE {_where(rule)}{group}"
    return f'SELECT "value" FROM ({inner}) WHERE "applies" = 1{group}' if rule.only else inner


def threshold(rule: Rule) -> dict[str, Any]:
    """When it fires, and when it clears if that is further off."""
    if rule.kin is Kin.OUTAGE:
        fires, clears = (Way.ABOVE, _DEVICES_MIN), _DEVICES_LEFT
    elif rule.minus:
        fires, clears = (Way.ABOVE, -rule.fires), -rule.clears
    else:
        fires, clears = (rule.way, rule.fires), rule.clears
    way, limit = fires
    kinds = {Way.ABOVE: ("gt", "lt"), Way.BELOW: ("lt", "gt"), Way.OFF: ("outside_range", "within_range")}
    found = {"evaluator": _evaluator(kinds[way][0], limit)}
    if clears != limit:
        found["unloadEvaluator"] = _evaluator(kinds[way][1], clears)
    return found


def _evaluator(kind: str, limit: float) -> dict[str, Any]:
    limit = limit or 0.0  # there is no -0
    return {"type": kind, "params": [-limit, limit] if kind.endswith("_range") else [limit]}


def _outage(rule: Rule) -> str:
    """How many devices of each node are away, where that is half of them."""
    field = quoted(rule.field)
    newest = (
        f'SELECT last({field}) AS "is" FROM {quoted(rule.measurement)} WHERE {_where(rule)} GROUP BY "device", "org"'
    )
    counts = f'SELECT count("is") - sum("is") AS "value", mean("is") AS "share" FROM ({newest}) GROUP BY "org"'
    return f'SELECT "value" FROM ({counts}) WHERE "share" <= {_HALF} GROUP BY "org"'


def _where(rule: Rule) -> str:
    conditions = [f"time > now() - {_window_s(rule)}s"]
    if rule.classes:
        of_class = " OR ".join(f"\"device_class\" = '{name}'" for name in rule.classes)
        conditions.append(f"({of_class})")
    return " AND ".join(conditions)


def _window_s(rule: Rule) -> int:
    if rule.kin is Kin.OUTAGE or rule.only:
        return CADENCES * rule.measures[0].every_s
    return WINDOW_S


def _rule(rule: Rule, runbooks: str) -> dict[str, Any]:
    english, chinese = Texts(Language.EN), Texts(Language.ZH_HANS)
    window = {"from": _window_s(rule), "to": 0}
    return {
        "uid": f"fieldfleet-{rule.name}",
        "title": rule.title,
        "condition": "C",
        "for": f"{rule.fires_s}s",
        "keepFiringFor": f"{rule.clears_s}s",
        # where the query leaves out what is well, nothing is well; elsewhere nothing is nobody's knowledge
        "noDataState": "OK" if rule.kin is Kin.OUTAGE or rule.only else "KeepLast",
        "execErrState": "KeepLast",
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": window,
                "datasourceUid": DATASOURCE_UID,
                "model": {"refId": "A", "query": query(rule), "rawQuery": True, "resultFormat": "time_series"},
            },
            _expressed("B", "reduce", window, expression="A", reducer="last", settings={"mode": "dropNN"}),
            _expressed("C", "threshold", window, expression="B", conditions=[threshold(rule)]),
        ],
        "labels": {"severity": rule.severity.value, "rule": rule.name, "source": "fieldfleet"},
        "annotations": {
            "summary": _words(rule, english),
            "summary_zh_hans": _words(rule, chinese),
            "title_zh_hans": chinese(rule.title),
            "runbook_url": runbooks + rule.runbook,
        },
    }


def _expressed(ref: str, kind: str, window: dict[str, int], **model: object) -> dict[str, Any]:
    source = {"type": _EXPRESSION, "uid": _EXPRESSION}
    return {
        "refId": ref,
        "relativeTimeRange": window,
        "datasourceUid": _EXPRESSION,
        "model": {"refId": ref, "type": kind, "datasource": source, **model},
    }


def _words(rule: Rule, text: Texts) -> str:
    """With Grafana's own templates where values go, which name what they know by a dot."""
    said = {name: f"{{{{ .Labels.{name} }}}}" for name in ("device", "org")}
    key = OUTAGE_TEXT if rule.kin is Kin.OUTAGE else rule.text
    return text(key, **said, value=_value(rule.unit), count=_value("count"))


def _value(unit: str) -> str:
    match unit:
        case "s":
            return "{{ humanizeDuration .Values.B.Value }}"
        case "/":
            return "{{ humanizePercentage .Values.B.Value }}"
        case "B":
            return "{{ humanize1024 .Values.B.Value }}B"
        case "ms":
            return '{{ printf "%.0f" .Values.B.Value }} ms'
        case _:
            return '{{ printf "%.0f" .Values.B.Value }}'


def _file(content: dict[str, Any]) -> str:
    """JSON is YAML."""
    return _HEADER + json.dumps({"apiVersion": 1, **content}, indent=2, ensure_ascii=False) + "\n"
