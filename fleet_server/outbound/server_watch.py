"""Sees what became of the server itself: its broker, its store, its quarantine; and when it hears the fleet. Pure."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from fleet_server.outbound.happenings import Kind, News
from fleet_server.telemetry.view import IngestFacts

BROKER_LOST_MS: Final = 10_000
"""A broker that is back sooner was never away."""
QUARANTINE_PERCENTS: Final = (80, 100)
"""Of its bound: each is told once until it falls below ``QUARANTINE_CALM_PERCENT``."""
QUARANTINE_CALM_PERCENT: Final = 60


class ServerTold(NamedTuple):
    """What was last told of the server."""

    broker_lost: bool = False
    refusing: bool = False
    quarantine_percent: int = 0


@dataclass(frozen=True, slots=True)
class ServerLook:
    """What a look found."""

    news: tuple[News, ...]
    told: ServerTold


class ServerWatch:
    """*told* as recorded; ``settle_ms``: see :class:`fleet_server.outbound.watch.WatchPolicy`, 0 if nobody was ever
    told of a device, so that a new site is seen at once.
    """

    def __init__(self, told: ServerTold, *, quarantine_bytes_max: int, settle_ms: int, first_settle_ms: int) -> None:
        self.told = told
        self._quarantine_bytes_max = quarantine_bytes_max
        self._settle_ms = settle_ms
        self._wait_ms = first_settle_ms
        self._linked_ms: int | None = None
        self._away_ms: int | None = None
        self._commits = (0, 0)

    def look(self, facts: IngestFacts, now_ms: int) -> ServerLook:
        """The server's facts now."""
        self._hear(facts, now_ms)
        refusing, told = self._refuses(facts), self.told
        if refusing:
            self._deaf()
        lost = self._away_ms is not None and now_ms - self._away_ms >= BROKER_LOST_MS
        percent = 100 * facts.quarantine_bytes // max(1, self._quarantine_bytes_max)
        level = max((step for step in QUARANTINE_PERCENTS if percent >= step), default=0)
        if percent >= QUARANTINE_CALM_PERCENT:
            level = max(level, told.quarantine_percent)
        after = ServerTold(lost or (told.broker_lost and not facts.connected), refusing, level)
        news: list[News] = []
        if after.broker_lost != told.broker_lost:
            news.append(News(now_ms, Kind.BROKER_LOST if after.broker_lost else Kind.BROKER_BACK))
        if after.refusing != told.refusing:
            news.append(News(now_ms, Kind.STORE_REFUSING if refusing else Kind.STORE_TAKING))
        if level > told.quarantine_percent:
            data = {"percent": percent, "bytes": facts.quarantine_bytes}
            news.append(News(now_ms, Kind.QUARANTINE_FILLING, data=data))
        return ServerLook(tuple(news), after)

    def accept(self, look: ServerLook) -> None:
        """*look* is recorded."""
        self.told = look.told

    def judging(self, now_ms: int) -> bool:
        """Whether the server hears the fleet, and has for long enough to judge who is there."""
        return self._linked_ms is not None and now_ms - self._linked_ms >= self._wait_ms

    def _hear(self, facts: IngestFacts, now_ms: int) -> None:
        if not facts.connected:
            self._deaf()
            self._away_ms = self._away_ms if self._away_ms is not None else now_ms
        elif self._linked_ms is None:
            self._linked_ms, self._away_ms = now_ms, None

    def _deaf(self) -> None:
        if self._linked_ms is not None:
            self._wait_ms = self._settle_ms
        self._linked_ms = None

    def _refuses(self, facts: IngestFacts) -> bool:
        """Failures alone since the last look begin it, a commit ends it; a quiet time changes nothing."""
        commits, failures = self._commits
        self._commits = (facts.commits, facts.commit_failures)
        if facts.commits > commits:
            return False
        return self.told.refusing or facts.commit_failures > failures
