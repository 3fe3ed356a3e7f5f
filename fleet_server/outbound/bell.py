"""Tells readers of the feed, whatever loop they run in, that there is more of it, or that the server stops."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Bell:
    """Any thread may ring it or wait for it (in a loop of its own)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self.closed = False

    def __len__(self) -> int:
        """Who listens."""
        return len(self._waiting)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that each ring sets, from now on."""
        event = asyncio.Event()
        with self._lock:
            self._waiting[event] = asyncio.get_running_loop()
            if self.closed:
                event.set()
        try:
            yield event
        finally:
            with self._lock:
                del self._waiting[event]

    def ring(self) -> None:
        """There is more."""
        with self._lock:
            for event, loop in self._waiting.items():
                with suppress(RuntimeError):  # a loop that has ended: nobody waits there any more
                    loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """The server stops: whoever listens is to end."""
        self.closed = True
        self.ring()
