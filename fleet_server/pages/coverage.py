"""``/coverage``: officers with a working body camera, by place."""

from collections.abc import Callable
from typing import Final, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from fleet_server.access.roles import Scope
from fleet_server.pages.shell import PageRoute, Shell
from fleet_server.registry.model import PATH_SEPARATOR, PlacedNode
from fleet_server.registry.store import Registry
from fleet_server.registry.tree import is_below
from fleet_server.standing.measures import COVERAGE
from fleet_server.standing.sample import Standing
from fleet_server.texts import marked

REFRESH_S: Final = 15


class Row(NamedTuple):
    """Of a node and all below it."""

    placed: PlacedNode
    depth: int
    officers: int
    covered: int
    cameras: int
    spare: int


def routes(shell: Shell, registry: Registry, standing: Standing | None, scope: Callable[[], Scope]) -> APIRouter:
    """The page of coverage."""
    router = APIRouter(route_class=PageRoute)

    @router.get("/coverage")
    def covered(request: Request) -> Response:
        nodes = registry.nodes()
        own = {} if standing is None else _own(standing, scope(), shell.clock())
        tops = min((placed.path.count(PATH_SEPARATOR) for placed in nodes), default=0)
        rows = [_row(placed, placed.path.count(PATH_SEPARATOR) - tops, own) for placed in nodes]
        return shell.page(
            request,
            "coverage.html",
            shell.texts(request)(marked("Coverage")),
            refresh_s=REFRESH_S,
            known=bool(own),
            rows=[row for row in rows if row.officers or row.cameras],
            totals=[sum(values) for values in zip(*own.values(), strict=True)],
        )

    return router


def _own(standing: Standing, scope: Scope, now_ms: int) -> dict[str, tuple[int, int, int, int]]:
    """By path: officers, covered, cameras, spare, of each node alone."""
    names = ("officers", "covered", "cameras", "spare")
    found: dict[str, tuple[int, int, int, int]] = {}
    for sample in standing.samples(now_ms):
        if sample.measure is COVERAGE and scope.covers(sample.org):
            officers, covered, cameras, spare = (int(sample.value(name) or 0) for name in names)
            found[sample.org] = officers, covered, cameras, spare
    return found


def _row(placed: PlacedNode, depth: int, own: dict[str, tuple[int, int, int, int]]) -> Row:
    below = [values for path, values in own.items() if is_below(path, placed.path)]
    officers, covered, cameras, spare = (
        (sum(column) for column in zip(*below, strict=True)) if below else (0, 0, 0, 0)
    )
    return Row(placed, depth, officers, covered, cameras, spare)
