"""``/v1/org-nodes``, ``/v1/duty-units`` and ``/v1/fleet``: where equipment belongs, and how it does there."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Annotated, TypeAlias

from fastapi import Body, Path, Response

from fleet_server.api import pages, times
from fleet_server.api import registry_models as models
from fleet_server.api.conditions import IfMatch, IfNoneMatch, etag, to_change, to_put
from fleet_server.api.problems import not_found, responses
from fleet_server.api.refusals import CHANGE, MERGE_PATCH, patched, translated
from fleet_server.api.routes import Routes
from fleet_server.registry import model
from fleet_server.registry.model import SLUG_PATTERN, DutyUnit, OrgNode, PlacedNode, Tally
from fleet_server.registry.store import Registry
from fleet_server.registry.tree import is_below

NodeName: TypeAlias = Annotated[str, Path(pattern=SLUG_PATTERN, examples=["station-7"])]
UnitName: TypeAlias = Annotated[str, Path(pattern=SLUG_PATTERN, examples=["unit-4"])]


def routes(registry: Registry, clock: times.Clock) -> Routes:
    """The routes of the organisation. Every one blocks on the registry, so the framework runs it in a thread."""
    router = Routes(tags=["organisation"])
    _nodes(router, registry, clock)
    _units(router, registry)

    @router.get("/v1/fleet", summary="The fleet by place and class")
    def fleet() -> models.FleetSummary:
        """Counts for every organisation node, with all below it."""
        return summary(registry.nodes(), registry.tallies())

    return router


def _nodes(router: Routes, registry: Registry, clock: times.Clock) -> None:
    path = "/v1/org-nodes/{node}"

    def held(node: str) -> PlacedNode:
        found = next((placed for placed in registry.nodes() if placed.node.node == node), None)
        if found is None:
            raise not_found("node", f"there is no node {node}", expected="a node of /v1/org-nodes")
        return found

    def answer(placed: PlacedNode, response: Response) -> models.OrgNode:
        response.headers["ETag"] = etag(placed.revision)
        return models.OrgNode.of(placed)

    @router.get("/v1/org-nodes", summary="The organisation tree")
    def nodes(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> models.OrgNodePage:
        """Every node, by its path: each behind what it stands below."""
        after = pages.read_cursor(cursor, str, "")
        page, follows = pages.cut((placed for placed in registry.nodes() if placed.path > after), limit)
        return models.OrgNodePage(
            org_nodes=[models.OrgNode.of(placed) for placed in page],
            next=pages.write_cursor(page[-1].path) if follows else None,
        )

    @router.get(path, summary="One organisation node", responses=responses(HTTPStatus.NOT_FOUND))
    def node(node: NodeName, response: Response) -> models.OrgNode:
        """With its ETag, which a change must give."""
        return answer(held(node), response)

    @router.put(path, summary="Make an organisation node, or replace it", responses=responses(*CHANGE))
    def put(
        node: NodeName,
        body: models.OrgNodeIn,
        response: Response,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> models.OrgNode:
        """A node that gets another parent takes along what stands below it, and the devices there."""
        condition = to_put(if_match, if_none_match)
        with translated(node):
            placed = registry.put_node(
                OrgNode(node, **body.model_dump()),
                expected=condition.expected,
                create=condition.create,
                now_ms=clock(),
            )
        return answer(placed, response)

    @router.patch(path, summary="Change an organisation node", responses=responses(*CHANGE))
    def change(
        node: NodeName,
        body: Annotated[models.OrgNodePatch, Body(media_type=MERGE_PATCH)],
        response: Response,
        if_match: IfMatch = None,
    ) -> models.OrgNode:
        """A merge patch."""
        condition = to_change(if_match)
        wanted = patched(OrgNode, held(node).node, body.model_dump(exclude_unset=True))
        with translated(node):
            placed = registry.put_node(wanted, expected=condition.expected, create=False, now_ms=clock())
        return answer(placed, response)

    @router.delete(
        path,
        summary="Take an organisation node away",
        status_code=HTTPStatus.NO_CONTENT,
        responses=responses(*CHANGE),
    )
    def drop(node: NodeName, if_match: IfMatch = None) -> None:
        """Only what nothing stands below and nothing belongs to."""
        condition = to_change(if_match)
        with translated(node):
            registry.drop_node(node, expected=condition.expected)


def _units(router: Routes, registry: Registry) -> None:
    path = "/v1/duty-units/{unit}"

    def held(unit: str) -> model.HeldUnit:
        found = next((each for each in registry.units() if each.unit.unit == unit), None)
        if found is None:
            raise not_found("unit", f"there is no unit {unit}", expected="a unit of /v1/duty-units")
        return found

    def answer(unit: model.HeldUnit, response: Response) -> models.DutyUnit:
        response.headers["ETag"] = etag(unit.revision)
        return models.DutyUnit.of(unit)

    @router.get("/v1/duty-units", summary="Every duty unit")
    def units(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> models.DutyUnitPage:
        """By name."""
        after = pages.read_cursor(cursor, str, "")
        page, follows = pages.cut((each for each in registry.units() if each.unit.unit > after), limit)
        return models.DutyUnitPage(
            duty_units=[models.DutyUnit.of(each) for each in page],
            next=pages.write_cursor(page[-1].unit.unit) if follows else None,
        )

    @router.get(path, summary="One duty unit", responses=responses(HTTPStatus.NOT_FOUND))
    def unit(unit: UnitName, response: Response) -> models.DutyUnit:
        """With its ETag, which a change must give."""
        return answer(held(unit), response)

    @router.put(path, summary="Make a duty unit, or replace it", responses=responses(*CHANGE))
    def put(
        unit: UnitName,
        body: models.DutyUnitIn,
        response: Response,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> models.DutyUnit:
        """`If-None-Match: *` makes it, `If-Match` replaces it."""
        condition = to_put(if_match, if_none_match)
        with translated(unit):
            made = registry.put_unit(
                DutyUnit(unit, **body.model_dump()), expected=condition.expected, create=condition.create
            )
        return answer(made, response)

    @router.patch(path, summary="Change a duty unit", responses=responses(*CHANGE))
    def change(
        unit: UnitName,
        body: Annotated[models.DutyUnitPatch, Body(media_type=MERGE_PATCH)],
        response: Response,
        if_match: IfMatch = None,
    ) -> models.DutyUnit:
        """A merge patch."""
        condition = to_change(if_match)
        wanted = patched(DutyUnit, held(unit).unit, body.model_dump(exclude_unset=True))
        with translated(unit):
            made = registry.put_unit(wanted, expected=condition.expected, create=False)
        return answer(made, response)

    @router.delete(
        path,
        summary="Take a duty unit away",
        status_code=HTTPStatus.NO_CONTENT,
        responses=responses(*CHANGE),
    )
    def drop(unit: UnitName, if_match: IfMatch = None) -> None:
        """Only one that no device belongs to."""
        condition = to_change(if_match)
        with translated(unit):
            registry.drop_unit(unit, expected=condition.expected)


def summary(nodes: Sequence[PlacedNode], tallies: Sequence[Tally]) -> models.FleetSummary:
    """Counts of every node with all below it, of devices without a place, of each class, and of all."""
    places = [
        models.FleetRow(
            org=placed.path,
            node=placed.node.node,
            kind=placed.node.kind,
            name=placed.node.name,
            **_sums(tally for tally in tallies if is_below(tally.path, placed.path)),
        )
        for placed in nodes
    ]
    loose = [tally for tally in tallies if not tally.path]
    if loose:
        places.append(models.FleetRow(org=None, node=None, kind=None, name="without a place", **_sums(iter(loose))))
    names = sorted({tally.device_class for tally in tallies})
    classes = [
        models.FleetClass(device_class=name, **_sums(tally for tally in tallies if tally.device_class == name))
        for name in names
    ]
    return models.FleetSummary(**_sums(iter(tallies)), places=places, classes=classes)


def _sums(tallies: Iterator[Tally]) -> dict[str, int]:
    rows = [(each.devices, each.connected, each.reporting, each.healthy) for each in tallies]
    totals = [sum(column) for column in zip(*rows, strict=True)] or [0, 0, 0, 0]
    return dict(zip(("devices", "connected", "reporting", "healthy"), totals, strict=True))
