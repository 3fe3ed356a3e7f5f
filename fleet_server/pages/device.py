"""``/devices/DEVICE``: everything about one of them, as far as who asks may know it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from fleet_server.access import acting
from fleet_server.access.enrolment import Certificate
from fleet_server.access.roles import Permission
from fleet_server.access.scoped_assignments import ScopedAssignments
from fleet_server.access.scoped_change import ScopedTwins
from fleet_server.api import times
from fleet_server.api.devices import DeviceName
from fleet_server.api.problems import not_found
from fleet_server.change import twins
from fleet_server.change.twins import Twin
from fleet_server.pages import streams, tree, words
from fleet_server.pages.alerts import Open
from fleet_server.pages.charts import Span
from fleet_server.pages.shell import PageRoute, Shell
from fleet_server.registry.store import Registry
from fleet_server.telemetry.store import EventFact
from fleet_server.telemetry.view import Gap, GapReason, TelemetryView, never_heard_of
from fleet_server.texts import marked

REFRESH_S: Final = 15
GAPS_SHOWN_MAX: Final = 100
EVENTS_SHOWN: Final = 25
EVENTS_READ_MAX: Final = 2_000
_LOOKED_MS: Final = (times.HOUR_MS, times.DAY_MS, 30 * times.DAY_MS)
"""How far back the journal is read until there are EVENTS_SHOWN."""
_WORST: Final = {GapReason.LOST: 0, GapReason.UNEXPLAINED: 1}


class Length(StrEnum):
    """What charts show."""

    QUARTER = "15m"
    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"


LENGTHS: Final = {
    Length.QUARTER: (times.HOUR_MS // 4, marked("15 minutes")),
    Length.HOUR: (times.HOUR_MS, marked("1 hour")),
    Length.DAY: (times.DAY_MS, marked("24 hours")),
    Length.WEEK: (7 * times.DAY_MS, marked("7 days")),
}


class Setting(NamedTuple):
    """``differs``: what is desired is not what was reported. Values as JSON, empty: there is none."""

    name: str
    desired: str
    reported: str
    origin: str
    differs: bool


class Said(NamedTuple):
    """A line of the journal."""

    at_ms: int
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Ports of one device, each for who acts. ``twins``: None if the server changes no devices; ``certificates``:
    None if it signs none.
    """

    registry: Registry
    view: TelemetryView
    held: ScopedAssignments
    twins: ScopedTwins | None
    certificates: Callable[[str], Sequence[Certificate]] | None
    alerts: Open


def routes(shell: Shell, kept: Kept) -> APIRouter:
    """The page of a device. It blocks on its ports, so the framework runs it in a thread."""
    router = APIRouter(route_class=PageRoute)
    registry, view = kept.registry, kept.view

    @router.get("/devices/{device}")
    def one(request: Request, device: DeviceName, span: Length = Length.HOUR) -> Response:
        entry, now_ms, text = registry.device(device), shell.clock(), shell.texts(request)
        if entry is None:
            raise not_found("device", f"{device} was never heard of", expected="an id of /devices")
        seen, summary = view.presence_of(device), view.device(device) or never_heard_of(device)
        length_ms, _ = LENGTHS[span]
        shown = Span(now_ms - length_ms, now_ms, shell.zone)
        gaps = view.gaps(device, from_ms=shown.from_ms, to_ms=shown.to_ms)
        twin = None if kept.twins is None else kept.twins.twin(device)
        may = acting.principal().scope
        return shell.page(
            request,
            "device.html",
            device,
            refresh_s=REFRESH_S,
            entry=entry,
            trail=tree.trail(registry.nodes(), entry.path),
            summary=summary,
            word=words.presence(seen),
            alerts=[
                (words.SEVERITIES[alert.severity], alert.words(text), alert)
                for alert in kept.alerts()
                if alert.device == device
            ],
            lengths=LENGTHS,
            length=span,
            shown=shown,
            groups=streams.drawn(view, summary, gaps, shown, text),
            gaps=[(gap, words.REASONS[gap.reason]) for gap in _newest(gaps)[:GAPS_SHOWN_MAX]],
            more_gaps=max(0, len(gaps) - GAPS_SHOWN_MAX),
            events=_tail(view, device, now_ms),
            twin=twin,
            drift=None if twin is None else words.DRIFTS[twin.drift],
            settings=[] if twin is None else settings(twin),
            may_know_who=not may(Permission.ASSIGNMENTS_READ).nowhere,
            held=kept.held.holder_at(device, now_ms),
            certificates=_certificates(kept, device, may(Permission.DEVICES_ENROL).covers(entry.path)),
            may_evidence=not may(Permission.EVIDENCE_LIST).nowhere,
        )

    return router


def settings(twin: Twin) -> list[Setting]:
    """What is desired and what was reported, by name."""
    aim, report = twin.aim, twin.report
    desired = {} if aim is None else aim.config
    reported = {} if report is None else report.reported.config
    differing = set(twins.deviating(desired, reported))
    return [
        Setting(
            name,
            _json(desired.get(name)),
            _json(reported.get(name)),
            str(aim.provenance[name].layer) if aim is not None and name in aim.provenance else "",
            name in differing,
        )
        for name in sorted(desired.keys() | reported.keys())
    ]


def _certificates(kept: Kept, device: str, may: bool) -> list[Certificate] | None:  # noqa: FBT001
    if kept.certificates is None or not may:
        return None
    return list(kept.certificates(device)[:10])


def _newest(gaps: Sequence[Gap]) -> list[Gap]:
    """The bad ones first, of each the newest first."""
    return sorted(gaps, key=lambda gap: (_WORST.get(gap.reason, 2), -(gap.to_ms or gap.from_ms or 0), -gap.last_seq))


def _tail(view: TelemetryView, device: str, now_ms: int) -> list[Said]:
    """The newest first. A clock that is a little ahead counts."""
    found: Sequence[EventFact] = ()
    for back_ms in _LOOKED_MS:
        found = view.events(device, from_ms=now_ms - back_ms, to_ms=now_ms + times.HOUR_MS, rows_max=EVENTS_READ_MAX)
        if len(found) >= EVENTS_SHOWN:
            break
    return [_said(fact) for fact in reversed(found[-EVENTS_SHOWN:])]


def _said(fact: EventFact) -> Said:
    data = msgspec.json.decode(fact.data_json, type=dict[str, float | bool | str | None])
    return Said(
        fact.at_ms, fact.kind, ", ".join(f"{name} {_json(value).strip(chr(34))}" for name, value in data.items())
    )


def _json(value: object) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()
