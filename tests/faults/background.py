"""One event loop in a thread, for what must go on while the harness waits: links that can be cut, and the tap."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Final, TypeVar

T = TypeVar("T")
CALL_S_MAX: Final = 30.0


class Background:
    """Started when made; ``close`` ends its tasks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[None, None, T]) -> T:
        """Do it there, and return what it returned."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S_MAX)

    def keep(self, work: Coroutine[None, None, None]) -> None:
        """Start what runs until ``close``."""

        async def start() -> None:
            self._tasks.add(asyncio.create_task(work))

        self.call(start())

    def close(self) -> None:
        """Cancel what was kept, and stop."""

        async def end() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S_MAX)
        self._loop.close()
