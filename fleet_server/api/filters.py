"""Which devices a list is of: query parameters that several lists share."""

from collections.abc import Callable
from typing import Annotated, TypeAlias

from fastapi import Query

from fleet_server.api.problems import bad_request
from fleet_server.change.twins import Drift
from fleet_server.registry.model import SLUG_PATTERN, DeviceFilter
from fleet_server.registry.store import Registry

Yes: TypeAlias = Annotated[bool | None, Query()]


def filters_of(registry: Registry) -> Callable[..., DeviceFilter]:
    """A dependency that reads the filter. Raises ProblemError: there is no such node."""

    def read(
        device_class: Annotated[
            str | None, Query(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="Only these.", examples=["body_camera"])
        ] = None,
        node: Annotated[
            str | None,
            Query(pattern=SLUG_PATTERN, description="At this organisation node or below.", examples=["station-7"]),
        ] = None,
        unit: Annotated[
            str | None, Query(pattern=SLUG_PATTERN, description="Of this duty unit.", examples=["unit-4"])
        ] = None,
        connected: Yes = None,
        reporting: Yes = None,
        healthy: Yes = None,
        registered: Annotated[bool | None, Query(description="false: those that were only heard of.")] = None,
        text: Annotated[
            str | None,
            Query(pattern=r"^[!-~]{1,64}$", description="How the id or the serial begins.", examples=["car-"]),
        ] = None,
        drift: Annotated[Drift | None, Query(description="How its twin stands.")] = None,
    ) -> DeviceFilter:
        path = None
        if node is not None:
            placed = next((placed for placed in registry.nodes() if placed.node.node == node), None)
            if placed is None:
                raise bad_request("query.node", expected="a node of /v1/org-nodes", got=node)
            path = placed.path
        return DeviceFilter(device_class, path, unit, connected, reporting, healthy, registered, text, drift)

    return read
