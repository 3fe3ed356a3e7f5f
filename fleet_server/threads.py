"""Work in a thread of its own, that begins again whatever ended it; a link to the broker in a loop of its own; what a
service in such a loop is made of: tasks until it is to end, and threads for what blocks.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

import structlog
import uvloop

STOP_S: Final = 10.0
AGAIN_S: Final = 5.0
"""Between two tries to begin."""

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")


class Resumed:
    """*work* is called with what asks it to end. If it ends by a mistake it begins again, from what is durable:
    nothing else is trusted then. *wake*: has it look whether it is to end.
    """

    def __init__(
        self, name: str, work: Callable[[threading.Event], None], *, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._name = name
        self._work = work
        self._wake = wake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def stop(self) -> None:
        """In order, and wait for it; nothing if it was never started."""
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work(self._stopping)
            except Exception:
                log.exception("ended; it begins again from what is durable", work=self._name)
            self._stopping.wait(AGAIN_S)


class Looped(Resumed):
    """*serve*, in a loop of its own; it ends when the event that it is given is set."""

    def __init__(self, name: str, serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        super().__init__(name, lambda stopping: uvloop.run(self._in_loop(stopping)), wake=self._end)
        self._serve = serve
        self._loop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def _end(self) -> None:
        if self._loop is not None and not self._loop[0].is_closed():
            self._loop[0].call_soon_threadsafe(self._loop[1].set)

    async def _in_loop(self, stopping: threading.Event) -> None:
        stop = asyncio.Event()
        self._loop = asyncio.get_running_loop(), stop
        if not stopping.is_set():
            await self._serve(stop)


async def until(stop: asyncio.Event, works: Mapping[str, Coroutine[None, None, None]]) -> None:
    """All of *works*, which do not end by themselves, as tasks of these names, until *stop* is set. Raises what one
    of them raises; the others are cancelled then.
    """
    tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)


class Threads:
    """One thread of each name, for what blocks: its work is done one after the other."""

    def __init__(self, *names: str) -> None:
        self._threads = {name: ThreadPoolExecutor(1, name) for name in names}

    async def run(self, thread: str, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Have *thread* do it, when what it was given before is done."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads[thread], partial(work, *args, **named))

    def close(self) -> None:
        """Once what they were given is done."""
        for thread in self._threads.values():
            thread.shutdown(wait=True)
