"""Looks at how the fleet stands, again and again, and tells what opened and what cleared.

What is held in memory is what is recorded: a look that cannot be recorded changes nothing, and the next one sees the
same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import Final, NamedTuple, Protocol

import structlog

from broker_config.text import shown
from fleet_server.alerting import keeping, showing
from fleet_server.alerting.hearing import Hearing
from fleet_server.alerting.machine import Key, Look, Machine, State
from fleet_server.alerting.rules import Rule, Streams, streams
from fleet_server.alerting.view import Alert
from fleet_server.outbound.happenings import News
from fleet_server.outbound.memory import Changes
from fleet_server.projection.labels import LabelsOf
from fleet_server.standing.sample import Sample, Standing
from fleet_server.telemetry.store import Latest, StoreError
from fleet_server.telemetry.view import IngestFacts

LOOK_S: Final = 5.0
FRESH_CADENCES: Final = 3
"""A reading that is older than so many of its stream's cadences says nothing of now."""
FRESH_S_MIN: Final = 60.0

log = structlog.get_logger()


class Readings(Protocol):
    """What is asked of telemetry: see :class:`fleet_server.telemetry.view.TelemetryView`."""

    def facts(self) -> IngestFacts: ...
    def latest(self) -> list[Latest]: ...


class Told(Protocol):
    """What was told, and where it is kept; durable once it returns. Raises StoreError."""

    def remembered(self) -> list[tuple[str, str, str]]:
        """Topic, name and value of all that was kept."""

    def record(self, news: Sequence[News], changes: Changes) -> None:
        """All of it, or nothing."""


class Settings(NamedTuple):
    """*settle_s*: after the server has lost the broker, for how long no device is judged."""

    rules: Mapping[str, Rule]
    patience: float = 1.0
    settle_s: float = 90.0
    look_s: float = LOOK_S


class Alerts:
    """A :class:`fleet_server.alerting.view.AlertsView`; its loop is for one thread."""

    def __init__(
        self,
        standing: Standing,
        readings: Readings,
        labels: LabelsOf,
        told: Told,
        settings: Settings,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._standing = standing
        self._readings = readings
        self._labels = labels
        self._told = told
        self._settings = settings
        self._now_ms = now_ms
        self._machine = Machine(tuple(settings.rules.values()), settings.patience)
        self._streams: Streams = streams(tuple(settings.rules.values()))
        self._hearing = Hearing(int(1_000 * settings.settle_s))
        self._states: dict[Key, State] | None = None
        self._recorded_ms = 0
        self._shown: list[Alert] = []

    def alerts(self) -> list[Alert]:
        """See the port."""
        return list(self._shown)

    def run(self, stop: Event) -> None:
        """Until *stop*."""
        failed = False
        while not stop.wait(self._settings.look_s):
            try:
                self.look()
            except StoreError as error:
                level = log.debug if failed else log.warning
                level("alerts cannot be recorded now", error=shown(error))
                failed = True
            else:
                failed = False

    def look(self) -> Look:
        """Once. Raises StoreError: nothing was told."""
        now_ms = self._now_ms()
        if self._states is None:
            self._states = keeping.read(self._told.remembered(), self._settings.rules, now_ms)
            self._recorded_ms = now_ms
        samples = self._heard(now_ms)
        look = self._machine.look(samples, self._states, now_ms)
        news = showing.news_of(self._settings.rules, look, now_ms)
        changes = keeping.changes(self._states, self._recorded_ms, look.states, now_ms)
        if news or changes:
            self._told.record(news, changes)
        if look.left_out:
            log.warning("too many alerts: the rest is left out", count=look.left_out)
        self._states, self._recorded_ms = look.states, now_ms
        self._shown = showing.shown(self._settings.rules, look)
        return look

    def _heard(self, now_ms: int) -> list[Sample]:
        """What is known now; of devices nothing while the server does not hear them."""
        samples = [*self._standing.samples(now_ms), *self._read(now_ms)]
        return self._hearing.heard(samples, now_ms, connected=self._readings.facts().connected)

    def _read(self, now_ms: int) -> Iterator[Sample]:
        """The newest readings that rules look at."""
        wanted = {stream for _, stream in self._streams}
        for row in self._readings.latest():
            if row.stream not in wanted:
                continue
            label = self._labels.labels(row.device, now_ms)
            measure = self._streams.get((label.device_class, row.stream))
            if measure is None:
                continue
            old_ms = 1_000 * max(FRESH_S_MIN, FRESH_CADENCES * measure.every_s)
            if now_ms - row.received_ms <= old_ms:
                values = tuple(row.values.get(name) for name in measure.names)
                yield Sample(measure, row.received_ms, values, row.device, label.device_class, label.org)
