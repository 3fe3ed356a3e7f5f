"""A small fleet in InfluxDB as the server writes it, made from the tables that declare what is measured: every field
of its own measures, readings of every stream, and a happening.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import httpx

from broker_config import device_classes
from dashboards.provisioning import DATABASE
from fleet_server.standing.measures import (
    ALERTS,
    COVERAGE,
    EVIDENCE,
    HAPPENING,
    INTERVIEWS,
    MEASURES,
    PRESENCE,
    READINESS,
    RECORDINGS,
    SERVER,
    UPLOADS,
    Measure,
    Of,
)
from tests.servers import SeriesServer

HOURS: Final = 1
STATION_1: Final = "hq/station-01"
POST_1: Final = "hq/station-01/post-1"
STATION_2: Final = "hq/station-02"
NODES: Final = (STATION_1, POST_1, STATION_2)

Values = Mapping[str, float]


class Device(NamedTuple):
    """``now``: what differs from a device that is well, in the newest points; before, all were well. Fields that two
    measures have are named with their measure.
    """

    name: str
    device_class: str
    org: str
    now: Values


FLEET: Final = (
    Device("cam-1", "body_camera", STATION_1, {}),
    Device("cam-2", "body_camera", STATION_1, {"flaps": 5, "ready": 0, "battery_ok": 0, "battery_lasts_s": 3_000}),
    Device(
        "cam-3", "body_camera", POST_1, {"presence.gaps_unexplained": 1, "missing": 7, "overdue": 2, "verified": 4}
    ),
    Device("car-1", "in_car_terminal", STATION_1, {"space_lasts_s": 7_000}),
    Device("car-2", "in_car_terminal", POST_1, {"reporting": 0, "ready": 0, "agent_ok": 0}),
    Device("car-3", "in_car_terminal", STATION_2, {"ready": 0, "self_test_ok": 0}),
    Device("light-1", "traffic_light", STATION_2, {"connected": 0, "reporting": 0}),
    Device("light-2", "traffic_light", STATION_2, {"connected": 0, "reporting": 0, "missing": 2}),
    Device("light-3", "traffic_light", POST_1, {"healthy": 0}),
    Device("room-1", "interrogation_room", STATION_1, {"quarantined": 4}),
    Device(
        "room-2",
        "interrogation_room",
        STATION_2,
        {"flaps": 2, "interviews.covered": 0.5, "interviews.gaps_unexplained": 1},
    ),
    Device("host-1", "host", POST_1, {}),
)
WELL: Final[Mapping[str, Values]] = {
    PRESENCE.name: {"connected": 1, "reporting": 1, "healthy": 1, "held": 1_000},
    READINESS.name: {
        "ready": 1,
        "battery_ok": 1,
        "space_ok": 1,
        "agent_ok": 1,
        "self_test_ok": 1,
        "given_out": 1,
        "in_effect": 1,
        "battery_lasts_s": 30_000,
        "space_lasts_s": 90_000,
        "shift_left_s": 10_800,
        "certificate_s": 30 * 86_400,
        "clock_off_ms": -40,
        "clock_unc_ms": 60,
    },
    RECORDINGS.name: {"expected": 6, "verified": 6, "overdue": 0, "lateness_s": 5_400},
    UPLOADS.name: {"files": 3, "left_bytes": 2e9, "goodput": 1e6, "finish_s": 2_000},
    INTERVIEWS.name: {"sessions": 2, "under_way": 1, "covered": 1},
    COVERAGE.name: {"officers": 10, "covered": 9, "cameras": 12, "spare": 1},
    SERVER.name: {"broker_connected": 1, "store_takes": 1, "ingest": 180, "ca_s": 1e8, "disk_free_bytes": 5e10},
    EVIDENCE.name: {"space_lasts_s": 30 * 86_400, "scrub_age_s": 43_200, "log_good": 1, "pieces": 400},
}
"""What is not told here is 0."""
OF_CLASS: Final = {RECORDINGS.name: "body_camera", UPLOADS.name: "body_camera", INTERVIEWS.name: "interrogation_room"}
"""Measures that only devices of one class have here."""
STATES_MAX: Final = 4
ILL_SINCE_S: Final = 600
TOLD: Final = "cam-3"
"""The device of which a happening is told."""


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
    """The newest value of a field: plausible, and another one for each device; a whole number where few are."""
    of = device_classes.load(device.device_class).streams[stream].fields[field]
    at = FLEET.index(device)
    if of.unit in {"/", "1"} and of.max <= STATES_MAX:
        return round(of.min + (of.max - of.min) * (at % 4) / 3)
    return of.min + (of.max - of.min) * (1 + at) / 16


def _lines(now_ms: int) -> Iterator[str]:
    for measure in MEASURES:
        for tags, values in _subjects(measure):
            for age_s in range(0, HOURS * 3_600, measure.every_s):
                yield f"{measure.name}{tags} {_fields(measure, values, age_s)} {now_ms - age_s * 1_000}"
    for device in FLEET:
        for stream, spec in device_classes.load(device.device_class).streams.items():
            if spec.fields:
                newest = ",".join(f"{name}={float(reading(device, stream, name))}" for name in spec.fields)
                older = ",".join(f"{name}={of.max:g}" for name, of in spec.fields.items())
                yield f"{stream}{_tags(device)} {newest} {now_ms - 5_000}"
                yield f"{stream}{_tags(device)} {older} {now_ms - 65_000}"
        if device.name == TOLD:
            words = f'text_en="{device.name} is ill",text_zh_hans="{device.name}有故障"'
            yield f'{HAPPENING}{_tags(device)} kind="device.unhealthy",severity="warning",{words} {now_ms - 30_000}'


def _subjects(measure: Measure) -> Iterator[tuple[str, Values]]:
    """Tags as line protocol has them, and what differs now from what is well."""
    match measure.of:
        case Of.DEVICE:
            only = OF_CLASS.get(measure.name)
            yield from ((_tags(device), device.now) for device in FLEET if only in {None, device.device_class})
        case Of.NODE:
            yield from ((f",org={node}", {"alarms": float(node == STATION_2)}) for node in NODES)
            if measure is ALERTS:
                yield "", {"warnings": 1}  # of the site itself
        case Of.SITE:
            yield "", {}


def _tags(device: Device) -> str:
    return f",device={device.name},device_class={device.device_class},org={device.org}"


def _fields(measure: Measure, now: Values, age_s: int) -> str:
    well = WELL.get(measure.name, {})
    ill = now if age_s <= ILL_SINCE_S else {}
    told = {name: ill.get(f"{measure.name}.{name}", ill.get(name, well.get(name, 0))) for name in measure.names}
    return ",".join(f"{name}={float(value)}" for name, value in told.items())
