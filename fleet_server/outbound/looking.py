"""Looks at the fleet in slices, again and again, and records what became of it.

A look that cannot be recorded changes nothing: the next one sees the same.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from broker_config.text import shown
from fleet_server.outbound import memory
from fleet_server.outbound.gap_watch import KINDS, GapWatch
from fleet_server.outbound.recording import Recorder
from fleet_server.outbound.server_watch import ServerWatch
from fleet_server.outbound.watch import DeviceFacts, Look, Told, Watch, WatchPolicy
from fleet_server.projection.labels import CLASS_UNKNOWN, Labels, LabelsOf
from fleet_server.telemetry.store import StoreError
from fleet_server.telemetry.view import DevicePresence, Gap, IngestFacts

log = structlog.get_logger()

SLICE_DEVICES: Final = 250
PAUSE_S: Final = 0.1
"""Between slices: a look costs some 3 % of a core however large the fleet is, and takes longer instead."""
PASS_S_MIN: Final = 1.0
"""A small fleet is looked at as often as this."""
RETRY_S: Final = 1.0
GAP_LOOK_MS: Final = 60_000
GAP_WINDOW_MS: Final = 86_400_000
"""Silences are looked for in this much of the devices' own time, up to now."""

DEVICES: Final = "devices"
GAPS: Final = "gaps"


class Fleet(Protocol):
    """What is asked of telemetry: see :class:`fleet_server.telemetry.view.TelemetryView`."""

    def facts(self) -> IngestFacts: ...
    def names(self) -> list[str]: ...
    def presence_of(self, device: str) -> DevicePresence | None: ...
    def gaps_of_numbers(self, device: str) -> list[Gap]: ...
    def silences(self, *, from_ms: int, to_ms: int) -> list[Gap]: ...


@dataclass(frozen=True, slots=True)
class LookSettings:
    """See the watches; the others: as :data:`PAUSE_S` and :data:`PASS_S_MIN`."""

    quarantine_bytes_max: int
    watch: WatchPolicy = field(default_factory=WatchPolicy)
    pause_s: float = PAUSE_S
    pass_s_min: float = PASS_S_MIN


class Looker:
    """One for a service. ``told`` is everything that was told of devices."""

    def __init__(
        self,
        fleet: Fleet,
        labels: LabelsOf,
        recorder: Recorder,
        settings: LookSettings,
        known: memory.Memory,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        # a site that has just been made has no outage to wait for the end of
        fresh = not known.devices and not fleet.names()
        self._fleet = fleet
        self._labels = labels
        self._recorder = recorder
        self._settings = settings
        self._now_ms = now_ms
        self._kept_baseline = DEVICES in known.baselines
        self._watch = Watch(settings.watch, known.devices, baseline=fresh or self._kept_baseline)
        self._gaps = GapWatch(known.gaps, now_ms(), baseline=fresh or GAPS in known.baselines)
        self._gaps_ms = now_ms()
        self._server = ServerWatch(
            known.server,
            quarantine_bytes_max=settings.quarantine_bytes_max,
            settle_ms=settings.watch.settle_ms,
            first_settle_ms=0 if fresh else settings.watch.settle_ms,
        )

    @property
    def told(self) -> dict[str, Told]:
        """A copy."""
        return self._watch.told()

    async def run(self) -> None:
        """Until it is cancelled."""
        failed = False
        while True:
            try:
                await self._pass()
            except StoreError as error:
                level = log.debug if failed else log.warning
                level("what happened cannot be recorded; it will be once the database is back", error=shown(error))
                failed = True
                await asyncio.sleep(RETRY_S)
            else:
                failed = False

    async def _pass(self) -> None:
        names = self._fleet.names()
        slices = [names[at : at + SLICE_DEVICES] for at in range(0, len(names), SLICE_DEVICES)] or [[]]
        pause_s = max(self._settings.pause_s, self._settings.pass_s_min / len(slices))
        gaps_due = self._now_ms() - self._gaps_ms >= GAP_LOOK_MS
        judged, found = True, []
        self._watch.begin()
        for each in slices:
            judged = await self._slice(each) and judged
            if gaps_due:
                found += [gap for name in each for gap in self._fleet.gaps_of_numbers(name) if gap.reason in KINDS]
            await asyncio.sleep(pause_s)
        self._watch.passed(judging=judged)
        if self._watch.baseline and not self._kept_baseline:
            await self._recorder.record((), memory.baseline(DEVICES))
            self._kept_baseline = True
        if gaps_due and judged:
            await self._look_at_gaps(found)

    async def _slice(self, names: list[str]) -> bool:
        """Whether it was judged."""
        now_ms = self._now_ms()
        await self._look_at_server(now_ms)
        judging = self._server.judging(now_ms)
        facts = [fact for name in names if (fact := self._fact(name, now_ms)) is not None]
        await self._keep(self._watch.look(facts, now_ms, judging=judging), now_ms)
        await self._keep(self._watch.gathered(now_ms, judging=judging), now_ms)
        return judging

    def _fact(self, name: str, now_ms: int) -> DeviceFacts | None:
        seen = self._fleet.presence_of(name)
        if seen is None:
            return None
        label = self._labels.labels(name, now_ms)
        device_class = label.device_class if label.device_class != CLASS_UNKNOWN else seen.device_class
        return DeviceFacts(name, device_class, label.org, seen.connected, seen.overdue, seen.faults)

    async def _keep(self, look: Look, now_ms: int) -> None:
        if look.news or look.told:
            await self._recorder.record(look.news, memory.devices(look.told), look.told)
        self._watch.accept(look, now_ms)

    async def _look_at_server(self, now_ms: int) -> None:
        look = self._server.look(self._fleet.facts(), now_ms)
        if look.told != self._server.told:
            await self._recorder.record(look.news, memory.server(look.told))
        self._server.accept(look)

    async def _look_at_gaps(self, found: list[Gap]) -> None:
        now_ms = self._gaps_ms = self._now_ms()
        begin_ms = now_ms - GAP_WINDOW_MS
        silences = await asyncio.to_thread(lambda: self._fleet.silences(from_ms=begin_ms, to_ms=now_ms))
        gaps = [*found, *silences]
        labels: dict[str, Labels] = {gap.device: self._labels.labels(gap.device, now_ms) for gap in gaps}
        look = self._gaps.look(gaps, labels, now_ms)
        changes = memory.gaps(look.told, look.forgotten)
        if not self._gaps.baseline:
            changes = {**changes, **memory.baseline(GAPS)}
        if changes:
            await self._recorder.record(look.news, changes)
        self._gaps.accept(look, now_ms)
