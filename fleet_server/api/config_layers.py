"""``/v1/config``: layers of settings, and groups of devices that have some in common."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Path, Response

from broker_config import device_classes
from fleet_server.access import acting
from fleet_server.access.scoped_change import ScopedLayers
from fleet_server.api import pages, refusals, times
from fleet_server.api import twin_models as models
from fleet_server.api.conditions import IfMatch, IfNoneMatch, etag, to_change, to_put
from fleet_server.api.devices import DeviceName
from fleet_server.api.imports import DryRun
from fleet_server.api.organisation import NodeName
from fleet_server.api.problems import Fault, ProblemError, invalid, not_found, responses
from fleet_server.api.refusals import CHANGE
from fleet_server.api.routes import Routes
from fleet_server.change import layers as change_layers
from fleet_server.change.circumstances import CircumstancesOf
from fleet_server.change.composing import Difference
from fleet_server.change.layers import FLEET, Group, LayerDocument, LayerKind, LayerName
from fleet_server.change.store import StaleError, TooManyError
from fleet_server.registry import model
from fleet_server.registry.model import SLUG_PATTERN

DIFFERENCES_TOLD_MAX: Final = 1_000

ClassName: TypeAlias = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,31}$", examples=["body_camera"])]
GroupName: TypeAlias = Annotated[str, Path(pattern=SLUG_PATTERN, examples=["night"])]


@dataclass(frozen=True, slots=True)
class LayerPut:
    """What every PUT of a layer brings."""

    body: models.LayerIn
    response: Response
    if_match: IfMatch = None
    if_none_match: IfNoneMatch = None
    dry_run: DryRun = False


AskedLayer: TypeAlias = Annotated[LayerPut, Depends()]


def routes(layers: ScopedLayers, circumstances: CircumstancesOf, clock: times.Clock) -> Routes:
    """The routes of layers and groups. Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["config"])
    _layers(router, layers, circumstances, clock)
    _groups(router, layers, clock)
    return router


def _layers(router: Routes, layers: ScopedLayers, circumstances: CircumstancesOf, clock: times.Clock) -> None:
    def told(name: LayerName, response: Response) -> models.ConfigLayer:
        with translated(name.name):
            found = models.ConfigLayer.of(name, layers.layer(name))
        response.headers["ETag"] = etag(found.revision)
        return found

    def put(name: LayerName, asked: LayerPut) -> models.LayerChanged:
        condition = to_put(asked.if_match, asked.if_none_match)
        settings = asked.body.settings
        with translated(name.name):
            before = layers.layer(name)
            device_class = circumstances(name.name, clock()).device_class if name.kind is LayerKind.DEVICE else ""
            checked(name, settings, device_class, where="body.settings")
            shown = None
            if not asked.dry_run:
                layers.put_layer(name, settings, expected=condition.expected, by=acting.principal().holder)
            else:
                revision = 0 if before is None else before.revision
                if condition.expected not in {None, revision}:
                    raise StaleError(revision)
                shown = preview(layers.if_layer(name, settings))
        return models.LayerChanged(layer=told(name, asked.response), dry_run=shown)

    @router.get("/v1/config/layers", summary="Every layer but those of single devices")
    def listed(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> models.ConfigLayers:
        """By kind, in the order in which they count, and by name."""
        order = list(LayerKind)
        after = pages.read_cursor(cursor, tuple[int, str], (-1, ""))
        keyed = ((order.index(each.name.kind), each.name.name, each) for each in layers.all_layers())
        found, follows = pages.cut((each for each in keyed if each[:2] > after), limit)
        return models.ConfigLayers(
            layers=[models.ConfigLayer.of(layer.name, layer) for _, _, layer in found],
            next=pages.write_cursor(found[-1][:2]) if follows else None,
        )

    @router.get("/v1/config/layers/fleet", summary="Settings for the whole fleet")
    def fleet(response: Response) -> models.ConfigLayer:
        """Each device gets those that its class knows."""
        return told(FLEET, response)

    @router.put("/v1/config/layers/fleet", summary="Set the whole fleet", responses=responses(*CHANGE))
    def put_fleet(asked: AskedLayer) -> models.LayerChanged:
        """`If-None-Match: *` where nothing was said yet."""
        return put(FLEET, asked)

    @router.get(
        "/v1/config/layers/classes/{device_class}",
        summary="Settings for a device class",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def of_class(device_class: ClassName, response: Response) -> models.ConfigLayer:
        """See the fleet's."""
        return told(_class(device_class), response)

    @router.put(
        "/v1/config/layers/classes/{device_class}", summary="Set a device class", responses=responses(*CHANGE)
    )
    def put_class(device_class: ClassName, asked: AskedLayer) -> models.LayerChanged:
        """See the fleet's."""
        return put(_class(device_class), asked)

    @router.get(
        "/v1/config/layers/nodes/{node}",
        summary="Settings for an organisation node and all below",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def of_node(node: NodeName, response: Response) -> models.ConfigLayer:
        """See the fleet's."""
        return told(LayerName(LayerKind.ORG_NODE, node), response)

    @router.put(
        "/v1/config/layers/nodes/{node}",
        summary="Set an organisation node and all below",
        responses=responses(*CHANGE),
    )
    def put_node(node: NodeName, asked: AskedLayer) -> models.LayerChanged:
        """See the fleet's."""
        name = LayerName(LayerKind.ORG_NODE, node)
        return put(name, asked)

    @router.get(
        "/v1/config/layers/groups/{group}",
        summary="Settings for a group",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def of_group(group: GroupName, response: Response) -> models.ConfigLayer:
        """See the fleet's."""
        return told(LayerName(LayerKind.GROUP, group), response)

    @router.put("/v1/config/layers/groups/{group}", summary="Set a group", responses=responses(*CHANGE))
    def put_group(group: GroupName, asked: AskedLayer) -> models.LayerChanged:
        """See the fleet's."""
        return put(LayerName(LayerKind.GROUP, group), asked)

    @router.get(
        "/v1/config/layers/devices/{device}",
        summary="A device's own settings",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def of_device(device: DeviceName, response: Response) -> models.ConfigLayer:
        """They win over all others."""
        return told(LayerName(LayerKind.DEVICE, device), response)

    @router.put(
        "/v1/config/layers/devices/{device}", summary="Set all of a device's own", responses=responses(*CHANGE)
    )
    def put_device(device: DeviceName, asked: AskedLayer) -> models.LayerChanged:
        """See the fleet's; some of them are changed by a patch of `/v1/twins`."""
        return put(LayerName(LayerKind.DEVICE, device), asked)


def _groups(router: Routes, layers: ScopedLayers, clock: times.Clock) -> None:
    path = "/v1/config/groups/{group}"

    @router.get("/v1/config/groups", summary="Every group")
    def groups(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> models.ConfigGroups:
        """By name."""
        after = pages.read_cursor(cursor, str, "")
        found, follows = pages.cut((each for each in layers.groups() if each.group > after), limit)
        return models.ConfigGroups(
            groups=[models.GroupRow.of(each) for each in found],
            next=pages.write_cursor(found[-1].group) if follows else None,
        )

    @router.get(path, summary="One group", responses=responses(HTTPStatus.NOT_FOUND))
    def one(group: GroupName, response: Response) -> models.ConfigGroup:
        """With its members."""
        with translated(group):
            found = layers.group(group)
        response.headers["ETag"] = etag(found.revision)
        return models.ConfigGroup.of(found)

    @router.put(path, summary="Make a group, or replace it", responses=responses(*CHANGE))
    def put(
        group: GroupName,
        body: models.GroupIn,
        response: Response,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
        *,
        dry_run: DryRun = False,
    ) -> models.GroupChanged:
        """Who is not in it any more loses its settings."""
        condition = to_put(if_match, if_none_match)
        with translated(group):
            strangers = layers.strangers(body.members)
            if strangers:
                raise invalid(
                    [Fault(where="body.members", expected="a device of /v1/devices", got=each) for each in strangers]
                )
            held = None if condition.create else layers.group(group)
            if dry_run:
                _expect(condition.expected, held)
                wanted = Group(group, body.priority, clock(), 0, frozenset(body.members))
                return models.GroupChanged(group=None, dry_run=preview(layers.if_group(wanted)))
            done = layers.put_group(
                group, body.priority, body.members, expected=condition.expected, by=acting.principal().holder
            )
        assert done.after is not None
        response.headers["ETag"] = etag(done.after.revision)
        return models.GroupChanged(group=models.ConfigGroup.of(done.after), dry_run=None)

    @router.delete(path, summary="Take a group away", responses=responses(*CHANGE))
    def drop(group: GroupName, if_match: IfMatch = None, *, dry_run: DryRun = False) -> models.GroupChanged:
        """With its settings; who was in it loses them."""
        condition = to_change(if_match)
        with translated(group):
            found = layers.group(group)
            if dry_run:
                _expect(condition.expected, found)
                empty = found._replace(members=frozenset())
                return models.GroupChanged(
                    group=models.ConfigGroup.of(found), dry_run=preview(layers.if_group(empty))
                )
            layers.drop_group(group, expected=condition.expected, by=acting.principal().holder)
        return models.GroupChanged(group=None, dry_run=None)


def _expect(expected: int | None, group: Group | None) -> None:
    revision = 0 if group is None else group.revision
    if expected not in {None, revision}:
        raise StaleError(revision)


def checked(name: LayerName, document: LayerDocument, device_class: str, *, where: str = "body") -> None:
    """Raises ProblemError: a setting that nobody of those it is for knows, or a value that they do not take."""
    classes = change_layers.classes_of(name, device_class)
    if not set(classes) <= set(device_classes.names()):
        raise invalid([Fault(where=where, expected="a device whose class is known", got=device_class)])
    found = [line.partition(": ") for line in change_layers.faults(document, classes)]
    if found:
        raise invalid([Fault(where=f"{where}.{name}", expected=fault, got="") for name, _, fault in found])


def preview(found: Iterable[Difference]) -> models.Preview:
    """All counted, the first ones told."""
    devices = 0
    told: list[models.DeviceChange] = []
    for each in found:
        devices += 1
        if len(told) < DIFFERENCES_TOLD_MAX:
            told.append(models.DeviceChange.of(each))
    return models.Preview(devices=devices, changes=told)


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """The errors of change as problems; see :func:`fleet_server.api.refusals.translated`."""
    try:
        with refusals.translated(subject):
            yield
    except StaleError as error:
        with refusals.translated(subject):
            raise model.StaleError(error.revision) from error
    except TooManyError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "too-many", "There are too many", str(error)) from error


def _class(device_class: str) -> LayerName:
    if device_class not in device_classes.names():
        expected = f"one of {', '.join(device_classes.names())}"
        raise not_found("class", f"there is no device class {device_class}", expected=expected)
    return LayerName(LayerKind.DEVICE_CLASS, device_class)
