"""States as alerts for people, and as happenings that are told. Pure."""

from collections.abc import Mapping
from typing import Final

from fleet_server.alerting.machine import Key, Look, State
from fleet_server.alerting.rules import Kin, Rule
from fleet_server.alerting.view import Alert, place_of
from fleet_server.outbound.happenings import ALERT_WORDS, Data, Kind, News, names
from fleet_server.standing.measures import Of
from fleet_server.texts import Language, Texts

TEXTS: Final = tuple(map(Texts, Language))


def alert_of(rule: Rule, key: Key, state: State) -> Alert:
    """What is shown of it."""
    device = key.subject if rule.subject is Of.DEVICE else ""
    values: dict[str, str | float] = {"value": state.value, "org": state.org or "-"}
    if device:
        values["device"] = device
    if rule.kin is Kin.OUTAGE:
        values |= {"count": f"{state.value:g}", "devices": f"{state.devices}"}
    return Alert(
        rule.name,
        rule.severity,
        state.since_ms,
        state.org,
        device,
        state.device_class,
        rule.text,
        values,
        state.grouped,
        rule.unit,
        rule.runbook,
    )


def shown(rules: Mapping[str, Rule], look: Look) -> list[Alert]:
    """Those that are open and not told by another."""
    found = (
        alert_of(rules[key.rule], key, state)
        for key, state in look.states.items()
        if state.open and key not in look.folded
    )
    return sorted(found, key=place_of)


def news_of(rules: Mapping[str, Rule], look: Look, now_ms: int) -> list[News]:
    """What is to be told of *look*."""
    opened = ((Kind.ALERT_OPENED, key, look.states[key]) for key in look.opened)
    cleared = ((Kind.ALERT_CLEARED, key, state) for key, state in look.cleared)
    return [_news(rules[key.rule], kind, key, state, now_ms) for kind, key, state in (*opened, *cleared)]


def _news(rule: Rule, kind: Kind, key: Key, state: State, now_ms: int) -> News:
    alert = alert_of(rule, key, state)
    data: dict[str, str | int | bool | tuple[str, ...]] = {
        "alert": rule.name,
        "severity": rule.severity.value,
        "since_ms": state.since_ms,
        "value": f"{state.value:g}",
        "unit": rule.unit,
        "runbook": rule.runbook,
        **{ALERT_WORDS[text.language]: alert.words(text) for text in TEXTS},
    }
    if rule.kin is Kin.OUTAGE:
        data |= {"count": int(state.value), "devices": state.devices, "names": names(list(state.grouped))}
    found: Data = data
    return News(now_ms, kind, alert.device, alert.device_class, alert.org, found)
