"""Officers with a working body camera, at each organisation node: from what was measured of the cameras."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from fleet_server.projection.labels import ORG_UNASSIGNED
from fleet_server.registry.assignment_store import Holders
from fleet_server.registry.assignments import Assignment
from fleet_server.standing.fitness import lasting
from fleet_server.standing.measures import COVERAGE, PRESENCE, READINESS
from fleet_server.standing.sample import Sample, sampled

CAMERA: Final = "body_camera"


def samples(measured: Iterable[Sample], held: Iterable[Assignment], at_ms: int) -> list[Sample]:
    """Of each node that has officers or cameras. *measured*: presence and readiness among others; *held*: what lasts.

    A camera works while nothing is wrong with it and, as long as it can be reached, it reports. Officers are counted
    where what they have was given out, cameras where they belong.
    """
    works: dict[str, bool] = {}
    camera_at: dict[str, str] = {}
    ready: set[str] = set()
    for each in measured:
        if each.device_class != CAMERA:
            continue
        if each.measure is PRESENCE:
            works[each.device] = bool(each.value("healthy")) and not (
                each.value("connected") and not each.value("reporting")
            )
        elif each.measure is READINESS:
            camera_at[each.device] = each.org
            if each.value("ready"):
                ready.add(each.device)
    officers: dict[str, set[str]] = {}
    covered: dict[str, set[str]] = {}
    given: set[str] = set()
    for one in held:
        given.add(one.device)
        if one.whom.officer:
            org = one.path or ORG_UNASSIGNED
            officers.setdefault(org, set()).add(one.whom.officer)
            if works.get(one.device):
                covered.setdefault(org, set()).add(one.whom.officer)
    cameras: dict[str, list[str]] = {}
    for device, org in camera_at.items():
        cameras.setdefault(org, []).append(device)
    return [
        sampled(
            COVERAGE,
            at_ms,
            {
                "officers": len(officers.get(org, ())),
                "covered": len(covered.get(org, ())),
                "cameras": len(cameras.get(org, ())),
                "spare": sum(device in ready and device not in given for device in cameras.get(org, ())),
            },
            org=org,
        )
        for org in sorted(officers.keys() | cameras.keys())
    ]


class CoverageLook:
    """*measured*: everything, as it was measured last."""

    def __init__(self, measured: Callable[[int], Sequence[Sample]], holders: Holders) -> None:
        self._measured = measured
        self._holders = holders

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        yield samples(self._measured(at_ms), lasting(self._holders), at_ms)
