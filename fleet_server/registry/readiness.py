"""Whether a device is fit to be given out: a table of rules for each device class, held against what is known. Pure.

Rule 1: what is not known is no: a battery that nobody has heard of lately is not full.
Rule 2: somebody may give it out all the same, and says why; the book of assignments has the rules that it broke.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, TypeAlias

from msgspec import Meta, Struct

from broker_config.ids import exact
from broker_config.text import shown

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
GIB: Final = 1024**3
VERSION_PATTERN: Final = r"^\d{1,6}(\.\d{1,6}){0,3}$"
_VERSION: Final = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")

Percent = Annotated[float, Meta(ge=0, le=100)]
Size = Annotated[int, Meta(ge=0, le=10**15)]
Version = Annotated[str, Meta(pattern=exact(VERSION_PATTERN))]
Age = Annotated[float, Meta(gt=0, le=8_784)]


class Rule(StrEnum):
    """What is asked of a device."""

    BATTERY = "battery"
    FREE_SPACE = "free_space"
    SELF_TEST = "self_test"
    AGENT = "agent"
    HEALTHY = "healthy"
    CERTIFICATE = "certificate"


class Outcome(StrEnum):
    """How a rule comes out; all but ``ok`` is no."""

    OK = "ok"
    NOT_OK = "not_ok"
    UNKNOWN = "unknown"


class Thresholds(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a class; what is left out is not asked.

    ``agent_min``: the agent's version, at least. ``self_test_h_max``: so long ago a self-test may be, and it must
    have passed. ``readings_h_max``: so old a reading may be. ``certificate_d_min``: so long it must still be good.
    """

    battery_pct_min: Percent | None = None
    free_bytes_min: Size | None = None
    self_test_h_max: Age | None = None
    agent_min: Version | None = None
    healthy: bool = False
    certificate_d_min: Annotated[float, Meta(ge=0, le=825)] | None = None
    readings_h_max: Age = 0.5


_CARRIED: Final = Thresholds(
    battery_pct_min=80, free_bytes_min=16 * GIB, self_test_h_max=24, healthy=True, certificate_d_min=2
)
_FITTED: Final = Thresholds(free_bytes_min=4 * GIB, self_test_h_max=24, healthy=True, certificate_d_min=2)
_PLAIN: Final = Thresholds(healthy=True, certificate_d_min=2)
DEFAULTS: Final[Mapping[str, Thresholds]] = {
    "body_camera": _CARRIED,
    "in_car_terminal": _FITTED,
    "interrogation_room": _PLAIN,
    "traffic_light": _PLAIN,
    "host": _PLAIN,
}


class Reading(NamedTuple):
    """A value, and when it was so."""

    value: float
    at_ms: int


class SelfTest(NamedTuple):
    """The last one of which the journal tells."""

    passed: bool
    at_ms: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a device; None is nothing. ``agent``: empty if it never said. ``faults``: what keeps it from
    being healthy; ``certificate_ms``: when the newest that is good ends.
    """

    device_class: str
    battery_pct: Reading | None = None
    free_bytes: Reading | None = None
    self_test: SelfTest | None = None
    agent: str = ""
    faults: tuple[str, ...] | None = None
    certificate_ms: int | None = None


class Answer(NamedTuple):
    """Of one rule; ``expected`` and ``got`` are for people."""

    rule: Rule
    outcome: Outcome
    expected: str
    got: str


Table: TypeAlias = Mapping[str, Thresholds]


def table_of(configured: Table) -> Table:
    """What is asked of each class: as it is configured, or else the default."""
    return {**DEFAULTS, **configured}


def judge(known: Known, table: Table, *, now_ms: int) -> list[Answer]:
    """Every rule of the device's class, in the order of :class:`Rule`; a class that has none is asked what is asked
    of any board.
    """
    asked = table.get(known.device_class, _PLAIN)
    age_ms = int(asked.readings_h_max * HOUR_MS)
    answers: list[Answer] = []
    if asked.battery_pct_min is not None:
        answers.append(_least(Rule.BATTERY, known.battery_pct, asked.battery_pct_min, "%", age_ms, now_ms))
    if asked.free_bytes_min is not None:
        answers.append(_least(Rule.FREE_SPACE, known.free_bytes, asked.free_bytes_min, "bytes", age_ms, now_ms))
    if asked.self_test_h_max is not None:
        answers.append(_tested(known.self_test, asked.self_test_h_max, now_ms))
    if asked.agent_min is not None:
        answers.append(_agent(known.agent, asked.agent_min))
    if asked.healthy:
        answers.append(_healthy(known.faults))
    if asked.certificate_d_min is not None:
        answers.append(_certificate(known.certificate_ms, asked.certificate_d_min, now_ms))
    return answers


def broken(answers: list[Answer]) -> tuple[str, ...]:
    """The rules that are not ok; empty: it is ready."""
    return tuple(each.rule.value for each in answers if each.outcome is not Outcome.OK)


def _least(rule: Rule, reading: Reading | None, least: float, unit: str, age_ms: int, now_ms: int) -> Answer:
    expected = f"at least {least:.12g} {unit}"
    if reading is None:
        return Answer(rule, Outcome.UNKNOWN, expected, "no reading")
    if now_ms - reading.at_ms > age_ms:
        return Answer(rule, Outcome.UNKNOWN, expected, f"{reading.value:.12g} {unit}, {_ago(reading.at_ms, now_ms)}")
    return Answer(rule, _yes(reading.value >= least), expected, f"{reading.value:.12g} {unit}")


def _tested(test: SelfTest | None, hours: float, now_ms: int) -> Answer:
    expected = f"one passed within {hours:g} h"
    if test is None:
        return Answer(Rule.SELF_TEST, Outcome.UNKNOWN, expected, "none")
    if not test.passed:
        return Answer(
            Rule.SELF_TEST, Outcome.NOT_OK, expected, f"failed: {shown(test.why)}" if test.why else "failed"
        )
    if now_ms - test.at_ms > hours * HOUR_MS:
        return Answer(Rule.SELF_TEST, Outcome.UNKNOWN, expected, f"passed {_ago(test.at_ms, now_ms)}")
    return Answer(Rule.SELF_TEST, Outcome.OK, expected, f"passed {_ago(test.at_ms, now_ms)}")


def _agent(agent: str, least: str) -> Answer:
    expected = f"agent {least} or newer"
    found = _version(agent)
    if found is None:
        return Answer(Rule.AGENT, Outcome.UNKNOWN, expected, shown(agent) or "it never said")
    return Answer(Rule.AGENT, _yes(found >= (_version(least) or found)), expected, shown(agent))


def _healthy(faults: tuple[str, ...] | None) -> Answer:
    if faults is None:
        return Answer(Rule.HEALTHY, Outcome.UNKNOWN, "no faults", "it was never heard of")
    return Answer(
        Rule.HEALTHY, _yes(not faults), "no faults", "; ".join(shown(each) for each in faults[:3]) or "none"
    )


def _certificate(end_ms: int | None, days: float, now_ms: int) -> Answer:
    expected = f"good for {days:g} d at least"
    if end_ms is None:
        return Answer(Rule.CERTIFICATE, Outcome.UNKNOWN, expected, "none that this server knows of")
    left = (end_ms - now_ms) / DAY_MS
    return Answer(Rule.CERTIFICATE, _yes(left >= days), expected, f"{left:.1f} d" if left > 0 else "it has expired")


def _yes(sound: bool) -> Outcome:  # noqa: FBT001 - a predicate's answer
    return Outcome.OK if sound else Outcome.NOT_OK


def _ago(at_ms: int, now_ms: int) -> str:
    return f"{(now_ms - at_ms) / HOUR_MS:.1f} h ago"


def _version(text: str) -> tuple[int, int, int, int] | None:
    """What of a version can be compared: numbers with dots between, at its beginning."""
    found = _VERSION.match(text)
    if found is None:
        return None
    numbers = [int(each) for each in found.group().split(".")]
    first, second, third, fourth = [*numbers, 0, 0, 0][:4]
    return first, second, third, fourth
