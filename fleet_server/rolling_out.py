"""Wires rollouts: their store, what they see, how they reach twins and layers, and the thread that looks at them."""

import time
from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from fleet_server.adapters.sql.rollouts import SqlRollouts
from fleet_server.api.twins import Change
from fleet_server.change.bringing import Bringing
from fleet_server.change.planning import Planner
from fleet_server.change.rolling import Rolling, Tell
from fleet_server.change.sight import Sight
from fleet_server.registry.store import Registry
from fleet_server.telemetry.view import TelemetryView
from fleet_server.threads import Resumed


def monotonic_ms() -> int:
    """Of this machine since some moment."""
    return time.monotonic_ns() // 1_000_000


def rolling_of(
    engine: Engine,
    registry: Registry,
    view: TelemetryView,
    change: Change,
    *,
    published: Callable[[Mapping[str, int]], None],
    tell: Tell,
    now_ms: Callable[[], int],
) -> Rolling:
    """Over ports that are not scoped; *published*: told of each device whose desired version is new."""
    sight = Sight(registry, view, change.twins, change.layers, now_ms=now_ms, monotonic_ms=monotonic_ms)
    bringing = Bringing(change.twins, change.layers, change.composer, published=published, now_ms=now_ms)
    planner = Planner(sight, bringing, change.layers)
    return Rolling(SqlRollouts(engine), sight, bringing, planner, tell=tell, now_ms=now_ms, monotonic_ms=monotonic_ms)


def running(rolling: Rolling) -> Resumed:
    """The thread that looks at them; with several servers only the one of the first shard has it."""
    return Resumed("rollouts", rolling.run, wake=rolling.wake)
