"""The far end of a cable for tests: a terminal whose other side a test holds."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from firmware_bridge.peripherals.terminal import Terminal
from firmware_bridge.readings import Results

WAIT_S = 15.0
POLL_S = 0.02


def mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


async def until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not ready():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        await asyncio.sleep(POLL_S)


async def until_results(
    read: Callable[[], Awaitable[Results]], ready: Callable[[Results], bool], what: str
) -> Results:
    """Read until the results are as awaited."""
    deadline = time.monotonic() + WAIT_S
    while not ready(results := await read()):
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}; the last was {results}"
        await asyncio.sleep(POLL_S)
    return results


@dataclass(slots=True)
class FarEnd:
    """``answer`` makes what is said to each piece that is heard; None is silence."""

    link: Path
    answer: Callable[[bytes], bytes | None]
    heard: list[bytes] = field(default_factory=list)
    terminal: Terminal = field(init=False)

    def __post_init__(self) -> None:
        self.terminal = Terminal(self.link, self._hear)

    def _hear(self, data: bytes) -> None:
        self.heard.append(data)
        said = self.answer(data)
        if said is not None:
            self.terminal.say(said)


@contextlib.asynccontextmanager
async def far_end(link: Path, answer: Callable[[bytes], bytes | None] = lambda _data: None) -> AsyncIterator[FarEnd]:
    found = FarEnd(link, answer)
    found.terminal.plug()
    try:
        yield found
    finally:
        found.terminal.unplug()
