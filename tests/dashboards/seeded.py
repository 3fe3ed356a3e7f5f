"""A small fleet in InfluxDB as the projection writes it: points of presence, and readings of every stream."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import httpx

from broker_config import device_classes
from dashboards.provisioning import DATABASE
from fleet_server.standing.measures import PRESENCE
from tests.servers import SeriesServer

EVERY_S: Final = 30
HOURS: Final = 1
STATION_1: Final = "hq/station-01"
POST_1: Final = "hq/station-01/post-1"
STATION_2: Final = "hq/station-02"


class Device(NamedTuple):
    """``now``: what differs from a device that is well, in the newest points; before, all were well."""

    name: str
    device_class: str
    org: str
    now: dict[str, float]


FLEET: Final = (
    Device("cam-1", "body_camera", STATION_1, {}),
    Device("cam-2", "body_camera", STATION_1, {"flaps": 5}),
    Device("cam-3", "body_camera", POST_1, {"gaps_unexplained": 1, "missing": 7}),
    Device("car-1", "in_car_terminal", STATION_1, {}),
    Device("car-2", "in_car_terminal", POST_1, {"reporting": 0}),
    Device("car-3", "in_car_terminal", STATION_2, {}),
    Device("light-1", "traffic_light", STATION_2, {"connected": 0, "reporting": 0}),
    Device("light-2", "traffic_light", STATION_2, {"connected": 0, "reporting": 0, "missing": 2}),
    Device("light-3", "traffic_light", POST_1, {"healthy": 0}),
    Device("room-1", "interrogation_room", STATION_1, {"quarantined": 4}),
    Device("room-2", "interrogation_room", STATION_2, {"flaps": 2}),
    Device("host-1", "host", POST_1, {}),
)
WELL: Final = {"connected": 1.0, "reporting": 1.0, "healthy": 1.0, "held": 1000.0}
ILL_SINCE_S: Final = 600


def fill(server: SeriesServer, *, now_ms: int, auth: tuple[str, str] | None = None) -> None:
    """Write the last hour of :data:`FLEET`: the one place that knows who writes to InfluxDB."""
    made = httpx.post(f"{server.url}/query", params={"q": f'CREATE DATABASE "{DATABASE}"'}, auth=auth)
    made.raise_for_status()
    answer = httpx.post(
        f"{server.url}/write",
        params={"db": DATABASE, "precision": "ms"},
        content="\n".join(_lines(now_ms)).encode(),
        auth=auth,
        timeout=30,
    )
    answer.raise_for_status()


def reading(device: Device, stream: str, field: str) -> float:
    """The newest value of a field: plausible, and another one for each device."""
    of = device_classes.load(device.device_class).streams[stream].fields[field]
    return of.min + (of.max - of.min) * (1 + FLEET.index(device)) / 16


def _lines(now_ms: int) -> Iterator[str]:
    for device in FLEET:
        tags = f"device={device.name},device_class={device.device_class},org={device.org}"
        for age_s in range(0, HOURS * 3_600, EVERY_S):
            yield f"{PRESENCE.name},{tags} {_presence(device, age_s)} {now_ms - age_s * 1000}"
        for stream, spec in device_classes.load(device.device_class).streams.items():
            if spec.fields:
                newest = ",".join(f"{name}={reading(device, stream, name)}" for name in spec.fields)
                older = ",".join(f"{name}={of.max:g}" for name, of in spec.fields.items())
                yield f"{stream},{tags} {newest} {now_ms - 5_000}"
                yield f"{stream},{tags} {older} {now_ms - 65_000}"


def _presence(device: Device, age_s: int) -> str:
    values = WELL | (device.now if age_s <= ILL_SINCE_S else {})
    return ",".join(f"{name}={float(values.get(name, 0))}" for name in PRESENCE.names)
