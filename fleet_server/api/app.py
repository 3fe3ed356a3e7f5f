"""The API's application: routers, the token before them, and problems for all that goes wrong."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_config.text import shown
from fleet_server.access import acting
from fleet_server.access.auditor import Auditor
from fleet_server.access.device_audit import Finding
from fleet_server.access.enroller import Enroller
from fleet_server.access.enrolment_store import Enrolments
from fleet_server.access.kept_answers import KeptAnswers
from fleet_server.access.people_store import People
from fleet_server.access.person_store import Persons
from fleet_server.access.revocation import Revoker
from fleet_server.access.roles import Permission
from fleet_server.access.scoped_alerts import ScopedAlerts
from fleet_server.access.scoped_assignments import ScopedAssignments
from fleet_server.access.scoped_change import ScopedCircumstances, ScopedLayers, ScopedTwins
from fleet_server.access.scoped_commands import ScopedCommands
from fleet_server.access.scoped_dispatches import ScopedDispatches
from fleet_server.access.scoped_evidence import ScopedDeletions, ScopedItems, ScopedKeeping, ScopedPieces
from fleet_server.access.scoped_registry import ScopedRegistry
from fleet_server.access.scoped_view import ScopedFeed, ScopedView
from fleet_server.access.states import State
from fleet_server.access.timestamps import Timestamps
from fleet_server.access.visits import Visits
from fleet_server.alerting.view import AlertsView
from fleet_server.api import (
    alerts,
    assignments,
    audit,
    changes,
    claims,
    commands,
    config_layers,
    device_audit,
    devices,
    dispatches,
    evidence,
    evidence_deletions,
    exports,
    imports,
    interviews,
    items,
    ledger,
    officers,
    operations,
    organisation,
    people,
    problems,
    quarantine,
    readiness,
    registrations,
    revocations,
    rollouts,
    scrubs,
    sign_in,
    sign_out,
    sinks,
    telemetry,
    tiles,
    times,
    tokens,
    twins,
    webhooks,
)
from fleet_server.api.assignments import Assigning
from fleet_server.api.bodies import Bodies
from fleet_server.api.commands import Commanding
from fleet_server.api.evidence import Evidence
from fleet_server.api.guard import Known, guard
from fleet_server.api.problems import Fault
from fleet_server.api.recording import Recording
from fleet_server.api.routes import Routes
from fleet_server.change.facts import CommandFacts, TwinFacts
from fleet_server.change.rolling import Rolling
from fleet_server.evidence.exporting import Exporter
from fleet_server.evidence.facts import EvidenceFacts
from fleet_server.evidence.pieces import CustodyFacts
from fleet_server.evidence.reconciling import Books
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.store import Feed, Subscriptions
from fleet_server.projection.view import SinkView
from fleet_server.registry.store import Registry
from fleet_server.telemetry.view import TelemetryView

OPENAPI_PATH: Final = "/v1/openapi.json"
QUERY_NAMES_MAX: Final = 32

DESCRIPTION: Final = """\
The fleet admin API of fieldfleet, version 1. It listens on loopback. Every request, but for `/v1/health` and this
document, carries `Authorization: Bearer TOKEN`, with the token that `init` wrote or one of `/v1/tokens`, or the
cookie of a session that began at `/v1/sign-in`; with the cookie, what changes something also carries
`X-Fieldfleet: 1`. Both are good for what was granted, at organisation nodes and below them; what is elsewhere is not
there for them (404, or left out of a list).

**Times.** In: RFC 3339 with an offset, or ms since the epoch. Out: ms since the epoch in fields that end in `_ms`,
and the same in RFC 3339 (UTC) in fields that end in `_at`; a device's clock may say a time that has no date, which is
null in `_at`.

**Changes.** What operators say has an ETag. A change gives it in `If-Match`, a creation says `If-None-Match: *`. A
request that changes something may carry an `Idempotency-Key`: sent again with it within a day, it is done once, and
the answer is the first one's.

**Pages.** Lists take `limit` and `cursor`; `next` of an answer is the cursor of the next page, null on the last.

**The audit log** has an entry for everything that is asked to be changed, and one for its outcome; `X-Request-Id` of
the answer finds them in `/v1/audit`. What cannot be recorded is not done.

**Errors** are problem documents (RFC 9457), `application/problem+json`. A query parameter that is unknown, or given
twice, is an error.
"""


def system_clock() -> int:
    """Ms since the epoch, now."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Enrolling:
    """What makes claims and certificates, and takes them back."""

    enroller: Enroller
    store: Enrolments
    revoker: Revoker
    audited: Callable[[], list[Finding]]


@dataclass(frozen=True, slots=True)
class Ports:
    """What the API stands on. ``wake``: subscriptions changed; ``enrolling``: None if the server signs no devices;
    ``signing_in``: None if people have tokens only; ``uploads``: how they are, None if none are taken; ``evidence``:
    None if the server keeps none; ``timestamps``: of checkpoints; ``change``: None if the server changes no devices;
    ``rolling``: rollouts, None as well; ``commanding``: None if it orders none about; ``alerts``: None if it tells
    of none; ``visits``: of people who show a token to a page, None where nobody does.
    """

    view: TelemetryView
    registry: Registry
    kept: KeptAnswers
    feed: Feed
    subscriptions: Subscriptions
    bell: Bell
    wake: Callable[[], None]
    sinks: SinkView
    people: People
    auditor: Auditor
    persons: Persons
    assigning: Assigning
    enrolling: Enrolling | None = None
    signing_in: sign_in.SigningIn | None = None
    uploads: Callable[[], EvidenceFacts | None] = lambda: None
    evidence: Evidence | None = None
    timestamps: Timestamps | None = None
    change: twins.Change | None = None
    twin_facts: Callable[[], TwinFacts | None] = lambda: None
    command_facts: Callable[[], CommandFacts | None] = lambda: None
    rolling: Rolling | None = None
    commanding: Commanding | None = None
    alerts: AlertsView | None = None
    visits: Visits | None = None


def create_app(ports: Ports, *, clock: times.Clock = system_clock) -> FastAPI:
    """The API over *ports*, each of which is scoped to who asks before a route gets it."""
    app = FastAPI(
        title="fieldfleet",
        version=version("fieldfleet"),
        description=DESCRIPTION,
        openapi_url=OPENAPI_PATH,
        # Their pages load scripts from elsewhere, which a service network does not have.
        docs_url=None,
        redoc_url=None,
        responses=problems.responses(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
        redirect_slashes=False,
    )
    app.state.query_names = {}
    problems.install(app)
    registry = ScopedRegistry(ports.registry, acting.scope)
    view = ScopedView(ports.view, registry, acting.scope)
    # the last added is the first asked: a body is bounded, and a repeat answered, before anything is recorded
    app.add_middleware(Recording, auditor=ports.auditor)
    app.add_middleware(Bodies, kept=ports.kept, clock=clock)
    cookies = None if ports.signing_in is None else ports.signing_in.cookies
    app.add_middleware(
        Known, people=ports.people, persons=ports.persons, cookies=cookies, visits=ports.visits, clock=clock
    )
    app.add_middleware(_Headers)
    guarded = [Depends(guard(registry)), Depends(_refuse_unknown_query)]
    refused = problems.responses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    checked = [Depends(_refuse_unknown_query)]
    operations.open_routes(view, ports.auditor).add_to(app, dependencies=checked)
    sign_in.routes(ports.signing_in, clock).add_to(app, dependencies=checked)
    sign_in.callback_routes(ports.signing_in, ports.auditor, clock).add_to(app)
    sign_out.routes(ports.signing_in).add_to(app, dependencies=checked)
    sign_out.callback_routes(ports.signing_in).add_to(app)
    for router in (
        devices.routes(view, registry, clock),
        registrations.routes(registry, clock),
        organisation.routes(registry, clock),
        imports.routes(registry, clock),
        telemetry.routes(view, registry, clock),
        quarantine.routes(view),
        operations.routes(
            view,
            registry,
            ports.sinks,
            ports.auditor,
            ports.uploads,
            _custody_facts(ports.evidence),
            ports.twin_facts,
            ports.command_facts,
        ),
        audit.routes(ports.auditor),
        tiles.routes(ports.auditor, ports.timestamps),
        changes.routes(ScopedFeed(ports.feed, acting.scope), ports.bell),
        webhooks.routes(ports.subscriptions, clock, ports.wake),
        sinks.routes(ports.sinks, clock),
        tokens.routes(ports.people, clock),
        *_assigning(ports, registry, view, clock),
        *_commanding(ports.commanding, registry, clock),
        *_enrolling(ports.enrolling, ports.auditor, clock),
        *_evidence(ports, registry, view, clock),
        people.routes(ports.persons, clock),
        *_change(ports.change, registry, clock),
        *(() if ports.rolling is None else (rollouts.routes(ports.rolling),)),
        *(() if ports.alerts is None else (alerts.routes(ScopedAlerts(ports.alerts, acting.scope)),)),
    ):
        router.add_to(app, dependencies=guarded, responses=refused)
    _describe(app)
    return app


def _assigning(ports: Ports, registry: ScopedRegistry, view: ScopedView, clock: times.Clock) -> tuple[Routes, ...]:
    said = ScopedAssignments(ports.assigning.book, registry, acting.scope)
    judges = readiness.Judges(view, registry, ports.assigning.table, _certificate_ms(ports.enrolling))
    return (
        readiness.routes(judges, clock),
        assignments.routes(said, registry),
        assignments.acts(said, registry, judges, clock),
        officers.routes(said, view, clock),
    )


def _certificate_ms(enrolling: Enrolling | None) -> Callable[[str], int | None]:
    """When the newest good certificate of a device ends; None if the server knows of none."""

    def end_ms(device: str) -> int | None:
        found = () if enrolling is None else enrolling.store.certificates(device)
        return max((each.not_after_ms for each in found if each.state is State.ACTIVE), default=None)

    return end_ms


def _commanding(commanding: Commanding | None, registry: ScopedRegistry, clock: times.Clock) -> tuple[Routes, ...]:
    if commanding is None:
        return ()
    store = ScopedCommands(commanding.store, acting.scope)
    return commands.routes(commanding, store, registry, clock), commands.catalog_routes()


def _enrolling(enrolling: Enrolling | None, auditor: Auditor, clock: times.Clock) -> tuple[Routes, ...]:
    if enrolling is None:
        return ()
    return (
        claims.routes(enrolling.enroller, enrolling.store, clock),
        revocations.routes(enrolling.revoker, auditor),
        device_audit.routes(enrolling.audited),
    )


def _evidence(ports: Ports, registry: ScopedRegistry, view: ScopedView, clock: times.Clock) -> tuple[Routes, ...]:
    kept, auditor = ports.evidence, ports.auditor
    if kept is None:
        return ()
    pieces = ScopedPieces(kept.pieces, acting.scope)
    keeping = ScopedKeeping(kept.keeping, pieces)
    deletions = ScopedDeletions(kept.deletions, pieces, acting.scope)
    # whose a recording is that they see, whoever gave the device out
    books = Books(view, pieces, ports.assigning.book)
    calls = ScopedDispatches(kept.dispatches, acting.scope)
    return (
        evidence.routes(pieces, keeping, kept.retention, kept.content, registry, clock),
        evidence_deletions.deletion_routes(pieces, deletions, delay_ms=kept.delay_ms, clock=clock),
        evidence_deletions.retention_routes(kept.retention, clock),
        items.routes(ScopedItems(kept.items, acting.scope), registry, clock),
        scrubs.routes(kept.custodian),
        ledger.routes(books, registry, clock),
        dispatches.routes(calls, books, registry, clock),
        interviews.routes(books, registry, auditor, clock),
        exports.routes(Exporter(pieces, keeping, kept.content, auditor, kept.sources), registry, clock),
    )


def _change(change: twins.Change | None, registry: ScopedRegistry, clock: times.Clock) -> tuple[Routes, ...]:
    if change is None:
        return ()
    layers = ScopedLayers(change.layers, change.composer, registry, acting.scope)
    around = ScopedCircumstances(change.circumstances, lambda: acting.principal().scope(Permission.ASSIGNMENTS_READ))
    return (
        twins.routes(ScopedTwins(change.twins, registry), layers, around, clock),
        config_layers.routes(layers, around, clock),
    )


def _custody_facts(kept: Evidence | None) -> Callable[[], CustodyFacts | None]:
    return lambda: None if kept is None else kept.custodian.facts


def _refuse_unknown_query(request: Request) -> None:
    """A misspelt parameter would otherwise be an answer to another question."""
    known = _query_names(request)
    names = [name for name, _ in request.query_params.multi_items()][:QUERY_NAMES_MAX]
    faults = [
        Fault(
            where=f"query.{shown(name)}",
            expected="once" if name in known else f"one of {', '.join(sorted(known)) or 'no parameters'}",
            got=f"{names.count(name)} times" if name in known else shown(name),
        )
        for name in dict.fromkeys(names)
        if name not in known or names.count(name) > 1
    ]
    if faults:
        raise problems.invalid(faults)


def _query_names(request: Request) -> Collection[str]:
    """As the route's own part of the document says: the whole takes a second to make, and is seldom asked for."""
    known: dict[tuple[str, str], Collection[str]] = request.app.state.query_names
    route, method = request.scope["route"], request.method.lower()
    key = (route.path_format, method)
    if key not in known:
        (operations,) = get_openapi(title="", version="", routes=[route])["paths"].values()
        parameters = operations[method].get("parameters", ())
        known[key] = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
    return known[key]


def _describe(app: FastAPI) -> None:
    """Let every problem in the OpenAPI document refer to one schema."""

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            template = "#/components/schemas/{model}"
            problem = problems.Problem.model_json_schema(ref_template=template, mode="serialization")
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to extend it


class _Headers:
    """What every answer says to browsers and caches."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, send_with_headers)
