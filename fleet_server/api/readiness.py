"""``/v1/devices/{device}/readiness``: whether it is fit to be given out, from all that the server knows of it."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from fleet_server.api import assignment_models as models
from fleet_server.api import times
from fleet_server.api.devices import DeviceName
from fleet_server.api.problems import not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.registry import readiness
from fleet_server.registry.model import Device
from fleet_server.registry.readiness import HOUR_MS, Answer, Known, SelfTest, Table
from fleet_server.registry.store import Registry
from fleet_server.standing.readiness import BATTERY, EVENTS_MAX, FREE_SPACE, last_self_test, reading_of
from fleet_server.telemetry.view import TelemetryView


@dataclass(frozen=True, slots=True)
class Judges:
    """What judging stands on. ``certificate_ms``: when the newest good certificate of a device ends, None if the
    server knows of none.
    """

    view: TelemetryView
    registry: Registry
    table: Table
    certificate_ms: Callable[[str], int | None]

    def answers(self, device: Device, *, now_ms: int) -> list[Answer]:
        """Of each rule of its class."""
        return readiness.judge(self._known(device, now_ms), self.table, now_ms=now_ms)

    def _known(self, entry: Device, now_ms: int) -> Known:
        device, view = entry.device, self.view
        latest = view.latest(device)
        presence = view.presence_of(device)
        faults = None if presence is None else (*presence.faults, *(f"nothing from {s}" for s in presence.overdue))
        return Known(
            device_class=entry.registration.device_class,
            battery_pct=reading_of(latest, *BATTERY),
            free_bytes=reading_of(latest, *FREE_SPACE),
            self_test=self._self_test(entry, now_ms),
            agent=entry.reported.agent,
            faults=faults,
            certificate_ms=self.certificate_ms(device),
        )

    def _self_test(self, entry: Device, now_ms: int) -> SelfTest | None:
        asked = self.table.get(entry.registration.device_class)
        if asked is None or asked.self_test_h_max is None:
            return None
        from_ms = now_ms - int(2 * asked.self_test_h_max * HOUR_MS)
        # one of a device's clock that is a little ahead counts, so the range has no end but the bound
        found = self.view.events(entry.device, from_ms=from_ms, to_ms=now_ms + HOUR_MS, rows_max=EVENTS_MAX + 1)
        return None if len(found) > EVENTS_MAX else last_self_test(found)


def registered(registry: Registry, device: str) -> Device:
    """Raises ProblemError: it is not."""
    found = registry.device(device)
    if found is None or found.registered_ms is None:
        raise not_found("device", f"{device} is not registered", expected="a device that is")
    return found


def routes(judges: Judges, clock: times.Clock) -> Routes:
    """The route of readiness. It blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["assignments"])

    @router.get(
        "/v1/devices/{device}/readiness",
        summary="Whether it is fit to be given out",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def ready(device: DeviceName) -> models.Readiness:
        """By the rules of its class: battery, free space, self-test, version, health, certificate."""
        entry = registered(judges.registry, device)
        return models.Readiness.of(device, judges.answers(entry, now_ms=clock()))

    return router
