"""Whether each device is fit for the next shift, as numbers, and what that stands on. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from broker_config.telemetry import Clock
from fleet_server.change.twins import Drift
from fleet_server.projection.labels import Labels
from fleet_server.registry.assignments import Assignment
from fleet_server.registry.readiness import Answer, Outcome, Reading, Rule, SelfTest, broken
from fleet_server.standing.measures import READINESS
from fleet_server.standing.sample import Sample, sampled
from fleet_server.telemetry.store import EventFact, Latest

BATTERY: Final = ("power", "battery_pct")
FREE_SPACE: Final = ("storage", "free_bytes")
"""Stream and field, as every class names them."""
SELF_TEST: Final = "self.test"
DONE, FAILED = "command.done", "command.failed"
EVENTS_MAX: Final = 20_000
"""Of a journal, looked through for a self-test; in more than that none is found."""

_DATA: Final = msgspec.json.Decoder(dict[str, float | bool | str | None])


@dataclass(frozen=True, slots=True)
class Fitness:
    """What is known of a device; None: nothing. ``answers``: of the rules of its class. ``held``: who has it.

    ``battery_lasts_s``, ``space_lasts_s``: see :mod:`fleet_server.standing.forecast`. ``certificate_ms``: its end.
    """

    device: str
    answers: Sequence[Answer]
    held: Assignment | None = None
    drift: Drift | None = None
    battery_lasts_s: float | None = None
    space_lasts_s: float | None = None
    certificate_ms: int | None = None
    clock: Clock | None = None


def sample(fitness: Fitness, labels: Labels, at_ms: int, *, shift_ms: int) -> Sample:
    """Of one device; *shift_ms*: how long whoever is given one has it."""
    outcomes = {answer.rule: answer.outcome for answer in fitness.answers}
    held, end_ms = fitness.held, fitness.certificate_ms
    return sampled(
        READINESS,
        at_ms,
        {
            "ready": not broken(list(fitness.answers)),
            "battery_ok": _known(outcomes.get(Rule.BATTERY)),
            "space_ok": _known(outcomes.get(Rule.FREE_SPACE)),
            "agent_ok": _known(outcomes.get(Rule.AGENT)),
            "self_test_ok": _known(outcomes.get(Rule.SELF_TEST)),
            "given_out": held is not None,
            "in_effect": _in_effect(fitness.drift),
            "battery_lasts_s": fitness.battery_lasts_s,
            "space_lasts_s": fitness.space_lasts_s,
            "shift_left_s": None if held is None else max(0, held.from_ms + shift_ms - at_ms) / 1000,
            "certificate_s": None if end_ms is None else (end_ms - at_ms) / 1000,
            "clock_off_ms": _off_ms(fitness.clock),
            "clock_unc_ms": None if fitness.clock is None else fitness.clock.unc_ms,
        },
        device=fitness.device,
        device_class=labels.device_class,
        org=labels.org,
    )


def _known(outcome: Outcome | None) -> float | None:
    """None: it is not asked of the class, or the answer is not known."""
    return None if outcome in (None, Outcome.UNKNOWN) else float(outcome is Outcome.OK)


def _in_effect(drift: Drift | None) -> float | None:
    return None if drift in (None, Drift.NEVER_REPORTED) else float(drift is Drift.IN_SYNC)


def _off_ms(clock: Clock | None) -> float | None:
    """Of the times that it gives: with the server's clock as their source what the board's is off is in them."""
    if clock is None:
        return None
    return 0 if clock.src == "server" else -clock.off_ms


def last_self_test(facts: Iterable[EventFact]) -> SelfTest | None:
    """Of a journal, oldest first. One that was done says whether it ``passed``; without that word it did not."""
    last: SelfTest | None = None
    for fact in facts:
        if fact.kind not in {DONE, FAILED}:
            continue
        data = _DATA.decode(fact.data_json)
        if data.get("name") == SELF_TEST:
            passed = fact.kind == DONE and data.get("passed") is True
            last = SelfTest(passed, fact.at_ms, str(data.get("faults") or data.get("reason") or ""))
    return last


def reading_of(latest: Iterable[Latest], stream: str, field: str) -> Reading | None:
    """The newest of a device's field."""
    for row in latest:
        value = row.values.get(field) if row.stream == stream else None
        if value is not None:
            return Reading(value, row.at_ms)
    return None
