"""Puts the pages beside the API, over the same ports, scoped to who asks in the same way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, FastAPI

from fleet_server.access import acting
from fleet_server.access.roles import Permission, Scope
from fleet_server.access.scoped_alerts import ScopedAlerts
from fleet_server.access.scoped_assignments import ScopedAssignments
from fleet_server.access.scoped_change import ScopedTwins
from fleet_server.access.scoped_evidence import ScopedKeeping, ScopedPieces
from fleet_server.access.scoped_registry import ScopedRegistry
from fleet_server.access.scoped_view import ScopedFeed, ScopedView
from fleet_server.alerting.view import Alert
from fleet_server.api.app import Ports, system_clock
from fleet_server.api.guard import guard
from fleet_server.api.times import Clock
from fleet_server.evidence.facts import Progress
from fleet_server.pages import alerts, coverage, device, entrance, evidence, fleet, rollouts, shell
from fleet_server.standing.sample import Standing

UTC: ZoneInfo = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Beside:
    """What pages show beside what the API stands on. ``zone``: the site's. ``standing``: None where nobody knows.
    ``under_way``: files on their way.
    """

    zone: ZoneInfo = UTC
    standing: Standing | None = None
    under_way: Callable[[], Sequence[Progress]] = tuple


def add_pages(app: FastAPI, ports: Ports, beside: Beside, *, clock: Clock = system_clock) -> None:
    """Add the pages to the API's application *app*, which stands on *ports*."""
    drawn = shell.made(beside.zone, clock)
    app.state.shell = drawn
    registry = ScopedRegistry(ports.registry, acting.scope)
    for router in guarded_routers(drawn, registry, ports, beside):
        app.include_router(router, dependencies=[Depends(guard(registry))], include_in_schema=False)
    app.include_router(open_router(drawn, ports), include_in_schema=False)


def guarded_routers(drawn: shell.Shell, registry: ScopedRegistry, ports: Ports, beside: Beside) -> list[APIRouter]:
    """What who acts may see, by the rules of each."""
    view = ScopedView(ports.view, registry, acting.scope)
    open_ = list[Alert] if ports.alerts is None else ScopedAlerts(ports.alerts, acting.scope).alerts
    routers = [
        fleet.routes(drawn, registry, view, ScopedFeed(ports.feed, acting.scope), open_),
        alerts.routes(drawn, registry, open_),
        device.routes(drawn, _of_device(ports, registry, view, open_)),
        coverage.routes(drawn, registry, beside.standing, acting.scope),
    ]
    if ports.evidence is not None:
        pieces = ScopedPieces(ports.evidence.pieces, acting.scope)
        keeping = ScopedKeeping(ports.evidence.keeping, pieces)
        routers.append(evidence.routes(drawn, registry, pieces, keeping, beside.under_way))
    if ports.rolling is not None:
        routers.append(rollouts.routes(drawn, ports.rolling.store))
    return routers


def open_router(drawn: shell.Shell, ports: Ports) -> APIRouter:
    """What needs nobody who is signed in."""
    return entrance.routes(drawn, ports.signing_in, ports.visits, ports.auditor)


def _of_device(ports: Ports, registry: ScopedRegistry, view: ScopedView, open_: alerts.Open) -> device.Kept:
    """What else is told of one asks for more than to see it."""
    held = ScopedAssignments(ports.assigning.book, registry, _scope_of(Permission.ASSIGNMENTS_READ))
    return device.Kept(
        registry,
        view,
        held,
        None if ports.change is None else ScopedTwins(ports.change.twins, registry),
        None if ports.enrolling is None else ports.enrolling.store.certificates,
        open_,
    )


def _scope_of(permission: Permission) -> Callable[[], Scope]:
    return lambda: acting.principal().scope(permission)
