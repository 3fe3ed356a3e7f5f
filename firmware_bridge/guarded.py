"""A driver whose instrument is asked who it is before anything else, and left alone for good if it is another one."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from firmware_bridge.driver import Driver, MonoMs, Nothing, all_failed
from firmware_bridge.expected import QUARANTINED, Expected, wrong
from firmware_bridge.readings import Failed, Identity, Results

ASK_MS: Final = 60_000
"""Who has answered all the time is asked again after so long: it may have been changed between two readings."""


class Guarded(Driver):
    """It is asked before the first reading, after one in which nothing answered, once a minute, and right before each
    writing. An answer that is another's ends it: from then on nothing is read or written until it is made anew, which
    is when an operator has the agent started again. No answer is only a fault.
    """

    kind = "guarded"
    summary = "another driver's instrument, if it is who is meant"
    points = ()

    def __init__(self, driver: Driver, expected: Expected, mono_ms: MonoMs) -> None:
        super().__init__(Nothing(), mono_ms)
        self._driver = driver
        self._expected = expected
        self._known_ms: int | None = None
        self.quarantined = ""
        """Why it is left alone."""

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        until_s = asyncio.get_running_loop().time() + deadline_s
        known = self._known_ms is not None and self._mono_ms() - self._known_ms < ASK_MS
        if not known and (why := await self._why_not(deadline_s)):
            return all_failed(points, why)
        results = await self._driver.read(points, _left_s(until_s))
        if all(isinstance(result, Failed) for result in results.values()):
            self._known_ms = None
        return results

    async def write(self, settings: Mapping[str, float], deadline_s: float) -> Results:
        until_s = asyncio.get_running_loop().time() + deadline_s
        if why := await self._why_not(deadline_s):
            return all_failed(tuple(settings), f"not written: {why}")
        return await self._driver.write(settings, _left_s(until_s))

    async def identify(self, deadline_s: float) -> Identity | Failed:
        return await self._driver.identify(deadline_s)

    async def present(self) -> bool:
        return await self._driver.present()

    async def close(self) -> None:
        await self._driver.close()

    async def _why_not(self, deadline_s: float) -> str:
        """Why it is not to be touched; empty: it has just said that it is who is meant."""
        if not self.quarantined:
            self._known_ms = None
            told = await self._driver.identify(deadline_s)
            if isinstance(told, Failed):
                return f"it does not say who it is: {told.why}"
            self.quarantined = wrong(self._expected, told)
        if self.quarantined:
            return f"{QUARANTINED}{self.quarantined}"
        self._known_ms = self._mono_ms()
        return ""


def _left_s(until_s: float) -> float:
    return max(0.0, until_s - asyncio.get_running_loop().time())
