"""Telemetry and the feed as somebody sees them who may only act at some nodes."""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from fleet_server.access.roles import Scope
from fleet_server.outbound.happenings import Happening
from fleet_server.outbound.store import Feed, FeedPage, Filter
from fleet_server.registry.model import DeviceFilter
from fleet_server.registry.store import Registry
from fleet_server.telemetry.store import EventFact, Latest, QuarantineRow, Series
from fleet_server.telemetry.view import DevicePresence, DeviceSummary, Gap, Heard, IngestFacts, TelemetryView

DEVICES_A_READ: Final = 5_000
ROWS_A_READ: Final = 500

T = TypeVar("T", Gap, Latest, DeviceSummary)


class ScopedView:
    """A :class:`fleet_server.telemetry.view.TelemetryView`; whose devices they are, the scoped *registry* says."""

    def __init__(self, inner: TelemetryView, registry: Registry, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._registry = registry
        self._scope = scope

    def facts(self) -> IngestFacts:
        """See the port: of the server, and of no device."""
        return self._inner.facts()

    def devices(self) -> list[DeviceSummary]:
        """See the port."""
        return self._within(self._inner.devices())

    def device(self, device: str) -> DeviceSummary | None:
        """See the port."""
        return self._inner.device(device) if self._sees(device) else None

    def names(self) -> list[str]:
        """See the port."""
        seen = self._seen()
        return [name for name in self._inner.names() if seen is None or name in seen]

    def presence_of(self, device: str) -> DevicePresence | None:
        """See the port."""
        return self._inner.presence_of(device) if self._sees(device) else None

    def news(self, devices_max: int) -> list[Heard]:
        """Nobody's who is let in by a token."""
        raise NotImplementedError

    def latest(self, device: str | None = None) -> list[Latest]:
        """See the port."""
        if device is None:
            return self._within(self._inner.latest())
        return self._inner.latest(device) if self._sees(device) else []

    def series(self, device: str, stream: str, *, from_ms: int, to_ms: int, points: int | None = None) -> Series:
        """See the port; of what they do not see there is nothing."""
        if not self._sees(device):
            return Series([], {}, {}, {}, {}, 0, 0)
        return self._inner.series(device, stream, from_ms=from_ms, to_ms=to_ms, points=points)

    def events(self, device: str, *, from_ms: int, to_ms: int, rows_max: int) -> list[EventFact]:
        """See the port."""
        if not self._sees(device):
            return []
        return self._inner.events(device, from_ms=from_ms, to_ms=to_ms, rows_max=rows_max)

    def gaps(self, device: str | None, *, from_ms: int, to_ms: int) -> list[Gap]:
        """See the port."""
        if device is not None and not self._sees(device):
            return []
        found = self._inner.gaps(device, from_ms=from_ms, to_ms=to_ms)
        return found if device is not None else self._within(found)

    def gaps_of_numbers(self, device: str) -> list[Gap]:
        """See the port."""
        return self._inner.gaps_of_numbers(device) if self._sees(device) else []

    def silences(self, *, from_ms: int, to_ms: int) -> list[Gap]:
        """See the port."""
        return self._within(self._inner.silences(from_ms=from_ms, to_ms=to_ms))

    def quarantine(self, *, after_id: int, rows_max: int) -> list[QuarantineRow]:
        """See the port."""
        if self._scope().everywhere:
            return self._inner.quarantine(after_id=after_id, rows_max=rows_max)
        found: list[QuarantineRow] = []
        while len(found) < rows_max:
            rows = self._inner.quarantine(after_id=after_id, rows_max=ROWS_A_READ)
            found += [row for row in rows if self._sees(row.device)]
            if len(rows) < ROWS_A_READ:
                break
            after_id = rows[-1].id
        return found[:rows_max]

    def replay(self, row_id: int) -> str:
        """See the port."""
        rows = self.quarantine(after_id=row_id - 1, rows_max=1)
        if not rows or rows[0].id != row_id:
            raise KeyError(row_id)
        return self._inner.replay(row_id)

    def _sees(self, device: str) -> bool:
        return self._scope().everywhere or self._registry.device(device) is not None

    def _seen(self) -> set[str] | None:
        """Every device that they see; None is all."""
        if self._scope().everywhere:
            return None
        seen: set[str] = set()
        after = ""
        while True:
            found = self._registry.devices(DeviceFilter(), after=after, rows_max=DEVICES_A_READ)
            seen.update(each.device for each in found)
            if len(found) < DEVICES_A_READ:
                return seen
            after = found[-1].device

    def _within(self, rows: Iterable[T]) -> list[T]:
        seen = self._seen()
        return [row for row in rows if seen is None or row.device in seen]


class ScopedFeed:
    """A :class:`fleet_server.outbound.store.Feed`: what happened at their nodes, and to no server."""

    def __init__(self, inner: Feed, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._scope = scope

    def after(self, after: int, chosen: Filter, *, rows_max: int) -> FeedPage:
        """See the port."""
        page = self._inner.after(after, chosen, rows_max=rows_max)
        return FeedPage(tuple(self._within(page.happenings)), page.up_to, page.pruned, page.newest)

    def before(self, before: int | None, chosen: Filter, *, rows_max: int) -> list[Happening]:
        """See the port."""
        found: list[Happening] = []
        while len(found) < rows_max:
            rows = self._inner.before(before, chosen, rows_max=ROWS_A_READ)
            found += self._within(rows)
            if len(rows) < ROWS_A_READ:
                break
            before = rows[-1].id
        return found[:rows_max]

    def _within(self, happenings: Iterable[Happening]) -> list[Happening]:
        scope = self._scope()
        return [each for each in happenings if scope.everywhere or scope.covers(each.news.org)]
