"""What is of a node or the site: coverage, alerts, rollouts."""

from dataclasses import dataclass

import pytest

from fleet_server.alerting.view import Alert
from fleet_server.change.rollout_plan import Plan
from fleet_server.change.rollout_state import Head, Phase, State
from fleet_server.change.rollout_store import Listed
from fleet_server.outbound.happenings import Severity
from fleet_server.registry.assignments import Act, Assignment, With
from fleet_server.standing import alerts, coverage, rollouts
from fleet_server.standing.measures import PRESENCE, READINESS
from fleet_server.standing.sample import Sample, sampled

AT = 1_767_254_400_000


def values(found: Sample) -> dict[str, float | None]:
    return dict(zip(found.measure.names, found.values, strict=True))


@dataclass(frozen=True)
class Camera:
    """As it was measured; *officer*: who has it."""

    device: str
    org: str = "hq"
    connected: float = 1
    reporting: float = 1
    healthy: float = 1
    ready: float = 1
    officer: str = ""
    at: str = "hq"
    device_class: str = "body_camera"

    def measured(self) -> list[Sample]:
        known = {"connected": self.connected, "reporting": self.reporting, "healthy": self.healthy}
        rest: dict[str, float | None] = dict.fromkeys(PRESENCE.names, 0.0)
        fit: dict[str, float | None] = dict.fromkeys(READINESS.names)
        of = {"device": self.device, "device_class": self.device_class, "org": self.org}
        return [
            sampled(PRESENCE, AT, {**rest, **known}, **of),
            sampled(READINESS, AT, {**fit, "ready": self.ready}, **of),
        ]

    def held(self) -> list[Assignment]:
        if not self.officer:
            return []
        whom = With(officer=self.officer)
        return [
            Assignment("a" * 16, 1, self.device, self.at, whom, AT, None, False, Act.CHECKED_OUT, "", (), "op", AT)
        ]


def covered(*cameras: Camera) -> dict[str, tuple[float | None, ...]]:
    measured = [each for camera in cameras for each in camera.measured()]
    held = [each for camera in cameras for each in camera.held()]
    return {each.org: each.values for each in coverage.samples(measured, held, AT)}


@pytest.mark.parametrize(
    ("camera", "works"),
    [
        (Camera("cam-1", officer="P1"), True),
        (Camera("cam-1", officer="P1", healthy=0), False),
        (Camera("cam-1", officer="P1", reporting=0), False),
        # out of reach it may record all the same
        (Camera("cam-1", officer="P1", connected=0, reporting=0), True),
        # a car's terminal is no body camera
        (Camera("car-1", officer="P1", device_class="in_car_terminal"), False),
    ],
)
def test_an_officer_is_covered_by_a_camera_that_works(camera: Camera, works: bool) -> None:
    officers, found, *_ = covered(camera)["hq"]
    assert (officers, found) == (1.0, float(works))


def test_one_of_two_cameras_that_works_is_enough() -> None:
    assert covered(Camera("cam-1", officer="P1", healthy=0), Camera("cam-2", officer="P1"))["hq"][:2] == (1.0, 1.0)


def test_spare_is_what_is_ready_and_with_nobody() -> None:
    found = covered(
        Camera("cam-1", officer="P1", at="hq/one"),
        Camera("cam-2"),
        Camera("cam-3", ready=0),
        Camera("cam-4", org="hq/two"),
    )
    assert found == {"hq": (0.0, 0.0, 3.0, 1.0), "hq/one": (1.0, 1.0, 0.0, 0.0), "hq/two": (0.0, 0.0, 1.0, 1.0)}


def alert(org: str, severity: Severity) -> Alert:
    return Alert("rule", severity, AT, org, "", "", "text", {})


def test_alerts_are_counted_at_the_node_they_belong_to_and_at_the_site_always() -> None:
    found = [alert("hq", Severity.ALARM), alert("hq", Severity.ALARM), alert("hq/one", Severity.WARNING)]
    assert {each.org: each.values for each in alerts.samples(found, AT)} == {
        "": (0.0, 0.0),
        "hq": (2.0, 0.0),
        "hq/one": (0.0, 1.0),
    }


def listed(phase: Phase, counts: dict[State, int]) -> Listed:
    return Listed("r", Head(phase, "op", AT), Plan("p", "fleet", {}), 1, counts)


def test_devices_of_all_open_rollouts_are_counted_by_how_far_they_are() -> None:
    found = rollouts.sample(
        [
            listed(Phase.RUNNING, {State.QUEUED: 5, State.APPLYING: 1, State.SUCCEEDED: 2}),
            listed(Phase.PAUSED, {State.OFFERED: 1, State.FAILED: 3, State.TIMED_OUT: 1, State.SUPERSEDED: 9}),
        ],
        AT,
    )
    assert values(found) == {
        "under_way": 1.0, "paused": 1.0, "waiting": 5.0, "changing": 2.0, "done": 2.0, "failed": 4.0,
    }  # fmt: skip


def test_every_state_of_a_device_is_counted_once_or_was_taken_back() -> None:
    kinds = (rollouts.WAITING, rollouts.CHANGING, rollouts.DONE, rollouts.FAILED)
    assert sum(len(kind) for kind in kinds) == len(frozenset().union(*kinds))
    assert set(State) - frozenset().union(*kinds) == {State.CANCELED, State.ROLLED_BACK, State.SUPERSEDED}
