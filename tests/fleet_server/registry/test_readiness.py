"""What is asked of a device before it is given out; what is not known is no."""

from dataclasses import replace
from typing import Any, Final

import pytest

from broker_config import device_classes
from fleet_server.registry import readiness
from fleet_server.registry.readiness import DAY_MS, GIB, HOUR_MS, Known, Outcome, Reading, Rule, SelfTest, Thresholds

NOW: Final = 1_767_254_400_000
OK, NOT_OK, UNKNOWN = Outcome.OK, Outcome.NOT_OK, Outcome.UNKNOWN
TABLE: Final = readiness.table_of({"host": Thresholds(agent_min="0.10")})
READY: Final = Known(
    "body_camera",
    battery_pct=Reading(80, NOW),
    free_bytes=Reading(16 * GIB, NOW),
    self_test=SelfTest(True, NOW - 24 * HOUR_MS),
    agent="0.1.0",
    faults=(),
    certificate_ms=NOW + 2 * DAY_MS,
)


def outcomes(known: Known) -> dict[Rule, Outcome]:
    return {each.rule: each.outcome for each in readiness.judge(known, TABLE, now_ms=NOW)}


def test_at_its_thresholds_a_camera_is_ready() -> None:
    answers = readiness.judge(READY, TABLE, now_ms=NOW)
    assert {each.outcome for each in answers} == {OK}
    assert readiness.broken(answers) == ()


@pytest.mark.parametrize(
    ("said", "rule", "outcome"),
    [
        ({"battery_pct": Reading(79.9, NOW)}, Rule.BATTERY, NOT_OK),
        ({"battery_pct": Reading(100, NOW - HOUR_MS)}, Rule.BATTERY, UNKNOWN),  # half an hour is what may be
        ({"battery_pct": None}, Rule.BATTERY, UNKNOWN),
        ({"battery_pct": Reading(float("nan"), NOW)}, Rule.BATTERY, NOT_OK),
        ({"free_bytes": Reading(16 * GIB - 1, NOW)}, Rule.FREE_SPACE, NOT_OK),
        ({"self_test": SelfTest(True, NOW - 24 * HOUR_MS - 1)}, Rule.SELF_TEST, UNKNOWN),
        ({"self_test": SelfTest(False, NOW, "no driver")}, Rule.SELF_TEST, NOT_OK),
        ({"self_test": None}, Rule.SELF_TEST, UNKNOWN),
        ({"faults": ("spool.full",)}, Rule.HEALTHY, NOT_OK),
        ({"faults": None}, Rule.HEALTHY, UNKNOWN),
        ({"certificate_ms": NOW + 2 * DAY_MS - 1}, Rule.CERTIFICATE, NOT_OK),
        ({"certificate_ms": NOW - 1}, Rule.CERTIFICATE, NOT_OK),
        ({"certificate_ms": None}, Rule.CERTIFICATE, UNKNOWN),
    ],
)
def test_each_rule_by_itself(said: dict[str, Any], rule: Rule, outcome: Outcome) -> None:
    found = outcomes(replace(READY, **said))
    assert found.pop(rule) is outcome
    assert set(found.values()) == {OK}
    answers = readiness.judge(replace(READY, **said), TABLE, now_ms=NOW)
    assert readiness.broken(answers) == (rule.value,)


@pytest.mark.parametrize(
    ("agent", "outcome"),
    [
        ("0.10", OK),
        ("0.10.1", OK),
        ("0.11-rc1", OK),
        ("1", OK),
        ("0.9.9", NOT_OK),  # as numbers, not as text
        ("", UNKNOWN),
        ("latest", UNKNOWN),
    ],
)
def test_versions_are_compared_as_numbers(agent: str, outcome: Outcome) -> None:
    assert outcomes(Known("host", agent=agent)) == {Rule.AGENT: outcome}


def test_every_class_has_its_table_and_an_unknown_one_is_asked_something() -> None:
    assert set(readiness.DEFAULTS) == set(device_classes.names())
    assert set(outcomes(Known("")).values()) == {UNKNOWN}
