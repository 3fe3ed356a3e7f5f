"""``/v1/commands``: what devices are told to do, and what became of it."""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Path, Query

from broker_config import device_classes, signing
from broker_config.device_classes import SafetyClass, UnknownClassError
from broker_config.ids import DEVICE_ID_PATTERN, ContractError
from broker_config.signing import Roots
from broker_config.text import shown
from fleet_server.access import acting, countersigning
from fleet_server.access.scoped_commands import ScopedCommands
from fleet_server.access.signing import RefusedError, Signer, SignerError
from fleet_server.api import command_models as models
from fleet_server.api import pages, times
from fleet_server.api.evidence import path_of
from fleet_server.api.imports import DryRun
from fleet_server.api.problems import Fault, ProblemError, bad_request, invalid, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.change import commands as rules
from fleet_server.change import selector
from fleet_server.change.command_service import sign
from fleet_server.change.command_store import (
    After,
    CommandError,
    CommandFilter,
    CommandStore,
    Meant,
    NotWaitingError,
    Signed,
    StaleOrderError,
    UnknownCommandError,
)
from fleet_server.change.commands import APPROVED_TARGETS_MAX, TARGETS_MAX, Command, State
from fleet_server.change.selector import BadSelectorError, Selector
from fleet_server.registry.model import Device, DeviceFilter
from fleet_server.registry.store import Registry

COMMAND_ID_BYTES: Final = 8
NAMES_MAX: Final = 100
DEVICES_A_LOOK: Final = 1_000
NO_LIMIT_MS: Final = signing.LIFETIME_MS_MAX
CHANGE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

CommandId: TypeAlias = Annotated[str, Path(pattern=models.COMMAND_PATTERN, examples=["0f" * 8])]
Fitting: TypeAlias = Callable[[Selector, Collection[str]], Collection[str]]
"""Selector, devices -> those of them that it means."""
_SAFETY: Final = tuple(SafetyClass)


@dataclass(frozen=True, slots=True)
class Commanding:
    """What the routes of commands stand on. ``wake``: there is something to send; ``roots``: whom devices obey, None
    if there is nobody; ``signer``: None if the server has none; ``fitting``: of a selector. ``lifetime_ms_max``: the
    signer's own bound.
    """

    store: CommandStore
    wake: Callable[[], None]
    roots: Callable[[], Roots | None]
    signer: Signer | None
    fitting: Fitting
    lifetime_ms_max: int = NO_LIMIT_MS


def routes(commanding: Commanding, store: ScopedCommands, registry: Registry, clock: times.Clock) -> Routes:
    """Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["commands"])

    def told(command: str) -> models.Command:
        return models.Command.of(_known(store, command), store.counts([command])[command])

    @router.post("/v1/commands", summary="Tell devices to do something", responses=responses(HTTPStatus.CONFLICT))
    def send(body: models.CommandIn, *, dry_run: DryRun = False) -> models.SentCommand:
        """A command has a target for each device that is meant, and each has a state of its own. What needs more than
        one signature waits for a second person.
        """
        roots = _roots(commanding)
        found = _meant(body, registry, commanding.fitting)
        able, unable = _able(body, found)
        command = _asked(body, able, roots, by=acting.principal().holder, now_ms=clock(), commanding=commanding)
        if command.needs > 1 and len(able) > APPROVED_TARGETS_MAX:
            raise bad_request("body", expected=f"at most {APPROVED_TARGETS_MAX} devices", got=f"{len(able)}")
        meant = [Meant(each.device, each.path) for each in able]
        if not dry_run:
            store.create(command, meant)
            commanding.wake()
        counts = [rules.Count(rules.first_state(command.needs), "", len(able))]
        return models.SentCommand(
            dry_run=dry_run,
            command=models.Command.of(command, counts),
            devices=len(able),
            names=[each.device for each in able[:NAMES_MAX]],
            unsuitable=[each.device for each in unable[:NAMES_MAX]],
        )

    @router.get("/v1/commands", summary="What devices were told to do")
    def listed(
        name: Annotated[str | None, Query(pattern=models.NAME_PATTERN)] = None,
        device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN)] = None,
        open_: Annotated[bool | None, Query(alias="open", description="true: something is waited for.")] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.Commands:
        """The newest first."""
        after = pages.read_cursor(cursor, After, After(-1, ""))
        wanted = CommandFilter(name=name, device=device, open=open_)
        found = store.commands(wanted, after=None if after.created_ms < 0 else after, rows_max=limit + 1)
        page, follows = pages.cut(found, limit)
        counts = store.counts([each.command for each in page])
        return models.Commands(
            commands=[models.Command.of(each, counts[each.command]) for each in page],
            next=pages.write_cursor(After(page[-1].created_ms, page[-1].command)) if follows else None,
        )

    @router.get("/v1/commands/{command}", summary="One command", responses=responses(HTTPStatus.NOT_FOUND))
    def one(command: CommandId) -> models.Command:
        """With how many devices are in which state."""
        return told(command)

    @router.get(
        "/v1/commands/{command}/targets",
        summary="What became of it on each device",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def targets(
        command: CommandId,
        state: Annotated[State | None, Query(description="Only those.")] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.CommandTargets:
        """By device."""
        _known(store, command)
        after = pages.read_cursor(cursor, str, "")
        page, follows = pages.cut(store.targets(command, state=state, after=after, rows_max=limit + 1), limit)
        return models.CommandTargets(
            targets=[models.CommandTarget.of(each) for each in page],
            next=pages.write_cursor(page[-1].device) if follows else None,
        )

    @router.post("/v1/commands/{command}/cancel", summary="Take a command back", responses=responses(*CHANGE))
    def cancel(command: CommandId) -> models.Cancelled:
        """Of what no device has heard yet; what was said is said."""
        with _refusals():
            number = store.cancel(command, now_ms=clock())
        return models.Cancelled(cancelled=number, command=told(command))

    @router.post(
        "/v1/commands/{command}/orders", summary="Orders for a second person to sign", responses=responses(*CHANGE)
    )
    def orders(command: CommandId) -> models.Orders:
        """Signed by the server, for each device that waits. They are good as long as no other command is said to the
        device; those of an earlier request are worth nothing.
        """
        found, now_ms = _known(store, command), clock()
        waiting = store.targets(command, state=State.AWAITING_APPROVAL, rows_max=APPROVED_TARGETS_MAX)
        with _refusals():
            signed = [sign(_signer(commanding), found, each.device, now_ms=now_ms) for each in waiting]
            if not signed:
                raise NotWaitingError(f"{command} waits for nobody's signature")
            store.prepared(signed)
        return models.Orders(
            orders=[models.OrderText(device=each.device, order=each.order.decode("ascii")) for each in signed]
        )

    @router.post("/v1/commands/{command}/approve", summary="Approve a command", responses=responses(*CHANGE))
    def approve(command: CommandId, body: models.ApproveIn) -> models.Command:
        """By another person than who asked for it, with the orders of all its devices, countersigned."""
        found, by, now_ms = _known(store, command), acting.principal().holder, clock()
        if not rules.may_approve(found, by):
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "same-person",
                "It needs another person",
                f"{by} asked for it",
                expected="somebody else's approval",
            )
        signed = _countersigned(found, body, _roots(commanding), now_ms)
        with _refusals():
            store.approve(command, signed, by=by, now_ms=now_ms)
        commanding.wake()
        return told(command)

    return router


def catalog_routes() -> Routes:
    """What there is to be told."""
    router = Routes(tags=["commands"])

    @router.get(
        "/v1/device-classes/{device_class}/commands",
        summary="What devices of a class can be told to do",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def catalog(
        device_class: Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,31}$", examples=["body_camera"])],
    ) -> models.Catalog:
        """Those of every board among them."""
        try:
            return models.Catalog.of(device_class)
        except UnknownClassError as error:
            known = ", ".join(device_classes.names())
            raise not_found("device class", str(error), expected=f"one of {known}") from error

    return router


# What is asked for --------------------------------------------------------------------------------------------------


def _meant(body: models.CommandIn, registry: Registry, fitting: Fitting) -> list[Device]:
    others = (body.node, body.unit, body.device_class, body.where)
    if bool(body.devices) == any(each is not None for each in others):
        raise bad_request(
            "body", expected="devices, or any of node, unit, device_class and where", got="both or none"
        )
    if body.devices:
        return _named(body.devices, registry)
    path = None if body.node is None else path_of(registry, body.node, "body.node")
    wanted = DeviceFilter(device_class=body.device_class, path=path, unit=body.unit)
    out: list[Device] = []
    after = ""
    while found := registry.devices(wanted, after=after, rows_max=DEVICES_A_LOOK):
        after = found[-1].device
        out += found if body.where is None else _selected(body.where, found, fitting)
        if len(out) > TARGETS_MAX:
            raise bad_request("body", expected=f"at most {TARGETS_MAX} devices", got=f"more than {TARGETS_MAX}")
    if not out:
        raise bad_request("body", expected="at least one device", got="a choice that no device answers to")
    return out


def _named(names: Sequence[str], registry: Registry) -> list[Device]:
    out: list[Device] = []
    faults: list[Fault] = []
    for name in dict.fromkeys(names):
        found = registry.device(name)
        if found is None:
            faults.append(Fault(where="body.devices", expected="ids of /v1/devices", got=shown(name)))
        else:
            out.append(found)
    if faults:
        raise invalid(faults[:NAMES_MAX])
    return out


def _selected(text: str, found: Sequence[Device], fitting: Fitting) -> list[Device]:
    try:
        parsed = selector.parse(text)
    except BadSelectorError as error:
        raise bad_request("body.where", expected=f"{error.expected} at {error.position}", got=error.got) from error
    fits = fitting(parsed, [each.device for each in found])
    return [each for each in found if each.device in fits]


def _able(body: models.CommandIn, found: Sequence[Device]) -> tuple[list[Device], list[Device]]:
    """Those whose class has the command, and those whose has not. Raises ProblemError: none has, or parameters."""
    able: list[Device] = []
    unable: list[Device] = []
    for each in found:
        spec = _spec(each)
        (able if spec is not None and body.name in spec.commands else unable).append(each)
    if not able or (unable and body.devices):
        names = ", ".join(each.device for each in unable[:NAMES_MAX])
        raise bad_request("body.name", expected=f"a command of the class of {names}", got=body.name)
    faults: dict[str, None] = {}
    for name in {each.registration.device_class for each in able}:
        faults |= dict.fromkeys(device_classes.load(name).parameter_faults(body.name, body.parameters))
    if faults:
        raise invalid([Fault(where="body.parameters", expected=fault, got=body.name) for fault in faults])
    return able, unable


def _spec(device: Device) -> device_classes.DeviceClass | None:
    try:
        return device_classes.load(device.registration.device_class)
    except UnknownClassError:
        return None


def _asked(
    body: models.CommandIn, able: Sequence[Device], roots: Roots, *, by: str, now_ms: int, commanding: Commanding
) -> Command:
    names = {each.registration.device_class for each in able}
    specs = [device_classes.load(name).commands[body.name] for name in names]
    safety = max((spec.safety_class for spec in specs), key=_SAFETY.index)
    classes_s = [spec.expires_s for spec in specs]
    lifetime_ms = rules.lifetime_ms(body.expires_s, classes_s, most_ms=commanding.lifetime_ms_max)
    needs = roots.thresholds.of(safety)
    name = secrets.token_hex(COMMAND_ID_BYTES)
    return Command(name, body.name, body.parameters, safety, needs, by, now_ms, now_ms + lifetime_ms)


# The second person --------------------------------------------------------------------------------------------------


def _countersigned(command: Command, body: models.ApproveIn, roots: Roots, now_ms: int) -> list[Signed]:
    out: list[Signed] = []
    faults: list[Fault] = []
    for at, each in enumerate(body.orders):
        where = f"body.orders.{at}"
        try:
            envelope = signing.decode_envelope(each.order.encode())
            order = countersigning.read(envelope, roots, now_ms=now_ms)
        except (ContractError, RefusedError) as error:
            faults.append(Fault(where=where, expected="an order as /orders gave it", got=shown(error)))
            continue
        told = order.command
        asked = (each.device, command.command, command.name, dict(command.parameters))
        if told is None or (order.claims.target, told.id, told.name, told.parameters) != asked:
            faults.append(
                Fault(where=where, expected=f"the order of {command.command} for {each.device}", got="another")
            )
        elif len(order.keyids) < command.needs:
            expected = f"{command.needs} signatures that count"
            faults.append(Fault(where=where, expected=expected, got=f"{len(order.keyids)}"))
        else:
            out.append(Signed(command.command, each.device, order.claims.counter, signing.encode(envelope)))
    if faults:
        raise invalid(faults)
    return out


def _roots(commanding: Commanding) -> Roots:
    found = commanding.roots()
    if found is None or commanding.signer is None:
        raise _no_signer()
    return found


def _signer(commanding: Commanding) -> Signer:
    if commanding.signer is None:
        raise _no_signer()
    return commanding.signer


def _no_signer() -> ProblemError:
    return ProblemError(
        HTTPStatus.CONFLICT,
        "no-signer",
        "Nobody signs here",
        "this server has no signer, or devices obey nobody",
        expected="[signer] and [enrolment] signers_file in fleet-server.toml",
    )


def _known(store: ScopedCommands, command: str) -> Command:
    found = store.command(command)
    if found is None:
        raise not_found("command", f"there is no {command}", expected="an id of /v1/commands")
    return found


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except UnknownCommandError as error:
        raise not_found("command", f"there is no {error}", expected="an id of /v1/commands") from error
    except StaleOrderError as error:
        expected = "the orders anew, countersigned"
        raise ProblemError(
            HTTPStatus.CONFLICT, "stale-order", "The order was overtaken", str(error), expected=expected
        ) from error
    except CommandError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "not-waiting", "It does not wait for that", str(error)) from error
    except SignerError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, "signer-unavailable", "Not signed", shown(error)
        ) from error
