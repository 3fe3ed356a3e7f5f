"""``/``, ``/nodes/NODE`` and ``/devices``: the fleet by unit, and lists of devices."""

from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from fleet_server.access.scoped_view import ScopedFeed
from fleet_server.api import pages
from fleet_server.api.problems import not_found
from fleet_server.outbound import happenings
from fleet_server.outbound.happenings import Severity
from fleet_server.outbound.store import Filter
from fleet_server.pages import tree, words
from fleet_server.pages.alerts import Open
from fleet_server.pages.shell import PageRoute, Shell
from fleet_server.registry.model import SLUG_PATTERN, Device, DeviceFilter
from fleet_server.registry.store import Registry
from fleet_server.telemetry.view import DevicePresence, TelemetryView
from fleet_server.texts import marked

DEVICES_A_PAGE: Final = 50
HAPPENINGS: Final = 12
"""The newest that are worth a warning at least."""
LEVELS: Final = 2
"""Of the tree on the first page; a node's own page goes on."""
REFRESH_S: Final = 5


class Seen(NamedTuple):
    """A device, and its three facts as they are now; None: it was never heard of."""

    entry: Device
    presence: DevicePresence | None
    word: words.Word


def routes(shell: Shell, registry: Registry, view: TelemetryView, feed: ScopedFeed, alerts: Open) -> APIRouter:
    """Pages of the fleet. Every one blocks on its ports, so the framework runs it in a thread."""
    router = APIRouter(route_class=PageRoute)

    def listed(wanted: DeviceFilter, cursor: str | None) -> tuple[list[Seen], str | None]:
        after = pages.read_cursor(cursor, str, "")
        found = registry.devices(wanted, after=after, rows_max=DEVICES_A_PAGE + 1)
        page, follows = pages.cut(found, DEVICES_A_PAGE)
        return _seen(view, page), pages.write_cursor(page[-1].device) if follows else None

    @router.get("/")
    def fleet(request: Request) -> Response:
        text = shell.texts(request)
        rows = tree.rows(registry.nodes(), registry.tallies(), alerts())
        newest = feed.before(None, Filter(severity=Severity.WARNING), rows_max=HAPPENINGS)
        return shell.page(
            request,
            "fleet.html",
            text(marked("Fleet")),
            refresh_s=REFRESH_S,
            rows=[row for row in rows if row.depth < LEVELS],
            totals=tree.total(rows),
            happened=[(each.news, happenings.text(words.subject(each.news), text)) for each in newest],
        )

    @router.get("/nodes/{node}")
    def node(
        request: Request, node: Annotated[str, Path(pattern=SLUG_PATTERN)], cursor: pages.Cursor = None
    ) -> Response:
        nodes = registry.nodes()
        placed = next((each for each in nodes if each.node.node == node), None)
        if placed is None:
            raise not_found("node", f"there is no node {node}", expected="one of the tree")
        rows = tree.rows(nodes, registry.tallies(), alerts())
        devices, following = listed(DeviceFilter(path=placed.path), cursor)
        return shell.page(
            request,
            "node.html",
            placed.node.name,
            refresh_s=REFRESH_S,
            placed=placed,
            trail=tree.trail(nodes, placed.path)[:-1],
            own=next(row for row in rows if row.placed == placed),
            rows=tree.below(rows, placed),
            devices=devices,
            following=following,
            first=cursor is None,
        )

    @router.get("/devices")
    def devices(
        request: Request,
        begins: Annotated[str, Query(max_length=64)] = "",
        cursor: pages.Cursor = None,
    ) -> Response:
        found, following = listed(DeviceFilter(text=begins or None), cursor)
        return shell.page(
            request,
            "devices.html",
            shell.texts(request)(marked("Devices")),
            refresh_s=REFRESH_S,
            devices=found,
            following=following,
            first=cursor is None,
            begins=begins,
        )

    return router


def _seen(view: TelemetryView, entries: Sequence[Device]) -> list[Seen]:
    found = [(entry, view.presence_of(entry.device)) for entry in entries]
    return [Seen(entry, presence, words.presence(presence)) for entry, presence in found]
