"""Whether a device is fit for the next shift, as numbers: what is not asked or not known has none."""

from pathlib import Path

import pytest

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, StreamState, encode
from broker_config.telemetry import Batch, Clock, Event
from fleet_server.change.twins import Drift
from fleet_server.projection.labels import Labels
from fleet_server.registry import readiness as rules
from fleet_server.registry.assignments import Handing, With
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from fleet_server.registry.readiness import Answer, Outcome, Rule
from fleet_server.standing.fitness import FitnessLook
from fleet_server.standing.forecast import LASTS_S_MAX, SPAN_MS_MIN
from fleet_server.standing.measures import READINESS
from fleet_server.standing.readiness import Fitness, sample
from fleet_server.standing.sample import Sample
from tests.fleet_server.fleet import BOOT, HOUR_MS, LIFE, NOW, T0, Arrival, Fleet, journal, record

CAMERA = DeviceId("cam-1")
DAY_MS = 24 * HOUR_MS


def values(found: Sample) -> dict[str, float | None]:
    return dict(zip(READINESS.names, found.values, strict=True))


def fitness(*answers: tuple[Rule, Outcome], drift: Drift | None = None, clock: Clock | None = None) -> Fitness:
    return Fitness("cam-1", [Answer(rule, outcome, "", "") for rule, outcome in answers], drift=drift, clock=clock)


def of(found: Fitness) -> dict[str, float | None]:
    return values(sample(found, Labels("body_camera", "hq"), NOW, shift_ms=HOUR_MS))


def test_what_is_not_known_is_not_ready_and_has_no_number_of_its_own() -> None:
    found = of(fitness((Rule.BATTERY, Outcome.OK), (Rule.FREE_SPACE, Outcome.NOT_OK), (Rule.AGENT, Outcome.UNKNOWN)))
    assert [found[name] for name in ("ready", "battery_ok", "space_ok", "agent_ok", "self_test_ok")] == [
        0.0, 1.0, 0.0, None, None,
    ]  # fmt: skip
    assert of(fitness((Rule.BATTERY, Outcome.OK)))["ready"] == 1.0
    assert of(fitness((Rule.BATTERY, Outcome.UNKNOWN)))["ready"] == 0.0


@pytest.mark.parametrize(
    ("drift", "in_effect"),
    [(None, None), (Drift.NEVER_REPORTED, None), (Drift.IN_SYNC, 1.0), (Drift.PENDING, 0.0), (Drift.DRIFTED, 0.0)],
)
def test_in_effect_is_what_it_reports(drift: Drift | None, in_effect: float | None) -> None:
    assert of(fitness(drift=drift))["in_effect"] == in_effect


@pytest.mark.parametrize(
    ("clock", "off_ms", "unc_ms"),
    [
        (None, None, None),
        (Clock("ntp", 250, 20), -250.0, 20.0),  # the server's is ahead: this one is behind
        (Clock("server", 86_400_000, 20), 0.0, 20.0),  # it is in the times already
    ],
)
def test_a_clock_is_off_as_far_as_its_times_are(
    clock: Clock | None, off_ms: float | None, unc_ms: float | None
) -> None:
    found = of(fitness(clock=clock))
    assert (found["clock_off_ms"], found["clock_unc_ms"]) == (off_ms, unc_ms)


def fleet(path: Path) -> Fleet:
    """A camera that is registered at the centre, connected, and has passed its self-test."""
    made = Fleet(path)
    made.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=T0)
    said = Registration(CAMERA, "body_camera", node="hq")
    made.registry.register(said, expected=None, create=True, now_ms=T0)
    streams = tuple(StreamState(name, LIFE, 1, 1, every_ms=60_000) for name in ("power", "storage"))
    born = Birth(1, "0" * 16, BOOT, 1, 30, "0.1.0", "body_camera", "body_camera", 0, 5_000, streams)
    tested = Event("command.done", {"name": "self.test", "passed": True})
    status = Arrival(topics.up(CAMERA, topics.Up.STATUS), encode(born))
    made.arrive(status, record(CAMERA, journal(1, t0=T0, events=[tested])))
    return made


def reading(stream: str, seq: int, at_ms: int, **row: float) -> Arrival:
    clock = Clock("gnss", -30, 5)
    rows: list[list[float | None]] = [list(row.values())]
    return record(CAMERA, Batch(1, stream, LIFE, seq, BOOT, at_ms, at_ms - T0 + 1, clock, tuple(row), [0], rows))


def power(seq: int, at_ms: int, battery_pct: float, *, charging: float = 0.0) -> Arrival:
    return reading("power", seq, at_ms, battery_pct=battery_pct, battery_temp_c=20.0, charging=charging)


def storage(seq: int, at_ms: int, free_bytes: float) -> Arrival:
    return reading("storage", seq, at_ms, free_bytes=free_bytes)


def look_of(made: Fleet) -> FitnessLook:
    return FitnessLook(
        made.registry,
        made.view,
        made.registry,
        made.assignments,
        made.twins,
        lambda: {CAMERA: NOW + 30 * DAY_MS},
        table=rules.DEFAULTS,
        shift_ms=12 * HOUR_MS,
    )


def test_a_look_tells_all_of_a_camera_that_is_well(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    look = look_of(made)
    step_ms = SPAN_MS_MIN // 5
    for seq in range(1, 7):
        at_ms = made.now_ms = NOW + (seq - 1) * step_ms
        made.arrive(power(seq, at_ms, 100 - seq), storage(seq, at_ms, 100e9 - 1e9 * seq), at_ms=at_ms)
        ((found,),) = look.look(at_ms)
    assert (found.device, found.device_class, found.org) == (CAMERA, "body_camera", "hq")
    told = values(found)
    assert [told[name] for name in ("ready", "battery_ok", "space_ok", "self_test_ok", "given_out")] == [
        1.0, 1.0, 1.0, 1.0, 0.0,
    ]  # fmt: skip
    assert told["battery_lasts_s"] == pytest.approx(94 * step_ms / 1000)
    assert told["space_lasts_s"] == pytest.approx(94 * step_ms / 1000)
    assert told["certificate_s"] == (NOW + 30 * DAY_MS - found.at_ms) / 1000
    assert (told["clock_off_ms"], told["clock_unc_ms"]) == (30.0, 5.0)
    assert (told["shift_left_s"], told["in_effect"], told["agent_ok"]) == (None, None, None)


def test_while_it_is_charged_its_battery_lasts(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    look = look_of(made)
    for seq in range(1, 8):
        at_ms = made.now_ms = NOW + (seq - 1) * SPAN_MS_MIN // 5
        made.arrive(power(seq, at_ms, 100 - seq, charging=float(seq == 7)), at_ms=at_ms)
        ((found,),) = look.look(at_ms)
    assert found.value("battery_lasts_s") == LASTS_S_MAX


def test_who_was_given_it_has_it_for_the_rest_of_the_shift(tmp_path: Path) -> None:
    made = fleet(tmp_path / "s.db")
    made.assignments.check_out(Handing(CAMERA, With(officer="P1"), "op", from_ms=NOW - HOUR_MS), now_ms=NOW)
    ((found,),) = look_of(made).look(NOW)
    assert (found.value("given_out"), found.value("shift_left_s")) == (1.0, 11 * 3_600.0)
    ((late,),) = look_of(made).look(NOW + 20 * HOUR_MS)
    assert late.value("shift_left_s") == 0.0
