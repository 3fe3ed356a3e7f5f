"""Records what happened, and lets everybody know who waits for it. The database has a thread of its own."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from fleet_server.outbound.bell import Bell
from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.memory import Changes
from fleet_server.outbound.store import Outbox
from fleet_server.outbound.watch import Told

T = TypeVar("T")

OVERFLOW_TOLD_MS: Final = 3_600_000
"""A subscription whose deliveries are too many is told of once in this time."""
NO_CHANGES: Final[Changes] = {}
NOBODY: Final[Mapping[str, Told]] = {}


class Recorder:
    """One for a service; ``news`` is set after each record."""

    def __init__(self, outbox: Outbox, bell: Bell, *, now_ms: Callable[[], int]) -> None:
        self.outbox = outbox
        self._bell = bell
        self._now_ms = now_ms
        self._thread = ThreadPoolExecutor(1, "outbox")
        self._overflow_told: dict[str, int] = {}
        self.on_record: Callable[[], None] = lambda: None

    async def call(self, work: Callable[[], T]) -> T:
        """Do *work* with the outbox, in turn. Raises StoreError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def record(
        self, news: Sequence[News], changes: Changes = NO_CHANGES, told: Mapping[str, Told] = NOBODY
    ) -> None:
        """See :meth:`fleet_server.outbound.store.Outbox.record`. Raises StoreError."""
        now_ms = self._now_ms()
        recorded = await self.call(lambda: self.outbox.record(news, changes, told, now_ms=now_ms))
        if recorded.happenings:
            self._bell.ring()
            self.on_record()
        over = [self._overflow(name, count, now_ms) for name, count in recorded.overflowed.items()]
        worth = [each for each in over if each is not None]
        if worth:
            await self.record(worth)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown(wait=True)

    def _overflow(self, subscription: str, count: int, now_ms: int) -> News | None:
        told_ms = self._overflow_told.get(subscription)
        if told_ms is not None and now_ms - told_ms < OVERFLOW_TOLD_MS:
            return None
        self._overflow_told[subscription] = now_ms
        why = f"too many deliveries waited; the oldest {count} are parked"
        return News(now_ms, Kind.WEBHOOK_FAILING, data={"webhook": subscription, "why": why})
