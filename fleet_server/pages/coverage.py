"""``/coverage``: officers with a working body camera, by place."""

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from fleet_server.access.roles import Scope
from fleet_server.pages import tree
from fleet_server.pages.shell import PageRoute, Shell
from fleet_server.registry.model import PlacedNode
from fleet_server.registry.store import Registry
from fleet_server.standing.measures import COVERAGE
from fleet_server.standing.sample import Standing
from fleet_server.texts import marked

REFRESH_S: Final = 15
COUNTS: Final = ("officers", "covered", "cameras", "spare")
"""Fields of the measure, as they are shown."""


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
        counts = tree.with_below(own.items())
        rows = [Row(placed, depth, *_counts(counts.get(placed.path))) for placed, depth in tree.depths(nodes)]
        return shell.page(
            request,
            "coverage.html",
            shell.texts(request)(marked("Coverage")),
            refresh_s=REFRESH_S,
            known=bool(own),
            rows=[row for row in rows if row.officers or row.cameras],
            totals=_counts(sum(own.values(), Counter())),
        )

    return router


def _own(standing: Standing, scope: Scope, now_ms: int) -> dict[str, Counter[str]]:
    """By path, of each node alone."""
    return {
        sample.org: Counter({name: int(sample.value(name) or 0) for name in COUNTS})
        for sample in standing.samples(now_ms)
        if sample.measure is COVERAGE and scope.covers(sample.org)
    }


def _counts(found: Counter[str] | None) -> tuple[int, int, int, int]:
    officers, covered, cameras, spare = (0 if found is None else found[name] for name in COUNTS)
    return officers, covered, cameras, spare
