"""What drivers of GNSS receivers share: they listen all the time, and a reading is what is known by then."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from firmware_bridge import position
from firmware_bridge.driver import Driver, MonoMs
from firmware_bridge.position import Ages, Part, Position
from firmware_bridge.readings import Quality, Reading, Result, Results

SETTLE_S: Final = 0.25
"""The sentences of one moment come in one burst; so long after the first of them the last has come."""


class Source(Protocol):
    """Where it is heard. ``closed_because``: empty while it is open; ``opening``: the first attempt goes on."""

    closed_because: str

    @property
    def opening(self) -> bool: ...
    def start(self) -> None: ...
    async def close(self) -> None: ...


def check_ages(stale_s: float, absent_s: float) -> None:
    """Raise ValueError if a part would be absent before it is stale."""
    if stale_s > absent_s:
        raise ValueError(f"stale_s: expected at most absent_s {absent_s:g}, got {stale_s:g}")


def _stale(result: Result) -> Result:
    if isinstance(result, Reading) and result.quality is Quality.GOOD:
        return result._replace(quality=Quality.STALE)
    return result


class Receiver(Driver):
    """``_source`` is made by who derives from it, and whatever it hears goes to :meth:`_take`."""

    points = position.POINTS
    shares = False  # it listens all the time
    _source: Source

    def __init__(self, options: Struct, mono_ms: MonoMs, ages: Ages) -> None:
        super().__init__(options, mono_ms)
        self._ages = ages
        self._position = Position()
        self._news = asyncio.Event()
        self._damaged = 0

    def _take(self, part: Part | None) -> None:
        """None: it was damaged."""
        if part is None:
            self._damaged += 1
        else:
            self._position.take(part, self._mono_ms())
            self._news.set()

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        """What is known now; the first time it waits until something is."""
        self._source.start()
        if self._position.heard_ms is None:
            await self._first(points, deadline_s)
        now_ms, why = self._mono_ms(), self._why_silent()
        results = {point: position.result(self._position, point, now_ms, self._ages, why) for point in points}
        # what nobody is there to tell any more is stale, however young
        return (
            {point: _stale(result) for point, result in results.items()} if self._source.closed_because else results
        )

    async def _first(self, points: Sequence[str], deadline_s: float) -> None:
        until_s = asyncio.get_running_loop().time() + deadline_s
        while not self._told_all(points) and (self._source.opening or not self._source.closed_because):
            self._news.clear()
            try:
                async with asyncio.timeout_at(until_s):
                    await self._news.wait()
            except TimeoutError:
                return
            if self._position.heard_ms is not None:  # the burst has begun
                until_s = min(until_s, asyncio.get_running_loop().time() + SETTLE_S)

    def _told_all(self, points: Sequence[str]) -> bool:
        now_ms = self._mono_ms()
        return all(self._position.value(point, now_ms) is not None for point in points)

    def _why_silent(self) -> str:
        if self._source.closed_because:
            return self._source.closed_because
        damaged = f", {self._damaged} damaged ones" if self._damaged else ""
        return f"no whole sentence for {self._ages.absent_ms / 1000:g} s{damaged}"

    async def close(self) -> None:
        await self._source.close()
