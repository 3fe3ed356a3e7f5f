"""Work in a thread of its own, that begins again whatever ended it; and a link to the broker in a loop of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import uvloop

STOP_S: Final = 10.0
AGAIN_S: Final = 5.0
"""Between two tries to begin."""

log = structlog.get_logger()


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
