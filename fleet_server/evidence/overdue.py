"""Tells of recordings that are overdue, each once: what devices say they recorded, and a day later is not here.

A look reads one device's ledger after the other, with a pause between, so that it costs little however many there
are. What cannot be recorded was not told: the next look sees the same.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from typing import Final, NamedTuple, Protocol

from broker_config.text import shown
from fleet_server.evidence.ledger import DAY_MS, OVERDUE_MS, Row, Span, Standing
from fleet_server.evidence.reconciling import Books, TooMuchError
from fleet_server.outbound.happenings import Data, Kind, News, names
from fleet_server.registry.model import Device, DeviceFilter
from fleet_server.registry.store import Registry
from fleet_server.telemetry.store import StoreError

FIRST_S: Final = 600.0
"""From the server's start: devices that were away have come back by then."""
LOOK_S: Final = 3_600.0
PAUSE_S: Final = 0.05
"""Between devices."""
SPAN_MS: Final = 7 * DAY_MS
"""Recordings are looked for that began in this time, up to now."""
FORGET_MS: Final = SPAN_MS + 2 * DAY_MS
"""What was told is remembered so long, which is longer than it is looked for."""
TOLD_MAX: Final = 50_000
"""Remembered; beyond them what was told first is forgotten, and told again if it is overdue still."""
DEVICES_A_READ: Final = 500

logger = logging.getLogger(__name__)


class Told(Protocol):
    """What was told, and where it is; durable once it returns. Raises StoreError."""

    def remembered(self) -> Mapping[str, int]:
        """Keys, and when each was told, ms since the epoch."""

    def record(self, news: Sequence[News], told: Mapping[str, int], forgotten: Sequence[str]) -> None:
        """All of it, or nothing."""


class Look(NamedTuple):
    """What a look at one device found: news of what was not told yet, and the keys of that."""

    news: tuple[News, ...]
    keys: tuple[str, ...]


def look(device: Device, rows: Iterable[Row], told: Mapping[str, int], now_ms: int) -> Look:
    """One happening of a device, however many of its recordings are newly overdue."""
    found = {key_of(device.device, row): row for row in rows if row.standing is Standing.OVERDUE}
    fresh = {key: row for key, row in found.items() if key not in told}
    if not fresh:
        return Look((), ())
    data: Data = {
        "count": len(fresh),
        "recordings": names([row.recording or row.upload or f"none after {row.trigger}" for row in fresh.values()]),
        "from_ms": min(row.begin_ms for row in fresh.values()),
        "overdue": len(found),
    }
    news = News(
        now_ms, Kind.EVIDENCE_OVERDUE, device.device, device.registration.device_class, device.path, data=data
    )
    return Look((news,), tuple(fresh))


def key_of(device: str, row: Row) -> str:
    """A recording's name; its begin may still move, but for a start that nothing followed."""
    return f"{device}/{row.file_class}/{row.recording or row.upload or row.begin_ms}"


def forgotten(told: Mapping[str, int], now_ms: int) -> list[str]:
    """What need not be remembered any more."""
    old = {key for key, at_ms in told.items() if now_ms - at_ms > FORGET_MS}
    over = len(told) - len(old) - TOLD_MAX
    first = sorted(told.keys() - old, key=told.__getitem__)[: max(0, over)]
    return [*old, *first]


class OverdueLooker:
    """The loop, for one thread."""

    def __init__(self, books: Books, registry: Registry, told: Told, *, now_ms: Callable[[], int]) -> None:
        self._books = books
        self._registry = registry
        self._told = told
        self._now_ms = now_ms
        self.counts: dict[str, int] | None = None
        """Of each device, how many recordings are overdue, as of the last look at all; None: there was none."""

    def run(self, stop: Event) -> None:
        """Look now and then, until *stop*."""
        wait_s = FIRST_S
        while not stop.wait(wait_s):
            wait_s = LOOK_S
            try:
                self.look(stop)
            except StoreError as error:
                logger.warning("what is overdue cannot be told now", extra={"error": shown(error)})

    def look(self, stop: Event, *, pause_s: float = PAUSE_S) -> None:
        """At every device. Raises StoreError: what was recorded until then is."""
        told = dict(self._told.remembered())
        old = forgotten(told, self._now_ms())
        if old:
            self._told.record((), {}, old)
        after = ""
        counts: dict[str, int] = {}
        while page := self._registry.devices(DeviceFilter(), after=after, rows_max=DEVICES_A_READ):
            for device in page:
                counts[device.device] = self._look_at(device, told)
                if stop.wait(pause_s):
                    return
            after = page[-1].device
        self.counts = counts

    def _look_at(self, device: Device, told: Mapping[str, int]) -> int:
        now_ms = self._now_ms()
        # what began later is not due yet
        span = Span(now_ms - SPAN_MS, now_ms - OVERDUE_MS)
        try:
            rows = self._books.rows(device.device, span, now_ms=now_ms)
        except TooMuchError as error:
            logger.warning("what is overdue of a device is not known", extra={"error": shown(error)})
            return 0
        found = look(device, rows, told, now_ms)
        if found.news:
            self._told.record(found.news, dict.fromkeys(found.keys, now_ms), ())
        return sum(row.standing is Standing.OVERDUE for row in rows)
