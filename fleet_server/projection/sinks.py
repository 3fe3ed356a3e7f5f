"""Runs projectors beside the server, in a thread with a loop of its own, so that no receipt waits for a sink."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Final

import structlog

from broker_config.text import shown
from fleet_server.projection.feed import DeadLetter, Feed, UnknownSinkError
from fleet_server.projection.projector import Projector
from fleet_server.projection.view import SinkStatus
from fleet_server.telemetry.store import FencedError

log = structlog.get_logger()

STOP_S_MAX: Final = 5.0


class Sinks:
    """The port :class:`fleet_server.projection.view.SinkView`; none are configured if *projectors* is empty."""

    def __init__(self, feed: Feed, projectors: Sequence[Projector]) -> None:
        self._feed = feed
        self._projectors = projectors
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="projection", daemon=True)

    def start(self) -> None:
        """Begin; what the store remembers of sinks that are configured no longer is forgotten.

        Raises:
            StoreError
        """
        names = [projector.name for projector in self._projectors]
        known = self._feed.sinks()
        for name in known:
            if name not in names:
                self._feed.forget_sink(name)
                log.warning("a sink is not configured any more and is forgotten", sink=name)
        for name in names:
            self._feed.add_sink(name)
            if name not in known:
                log.info("a new sink begins with what is new; fleet-server rebuild --from gives it more", sink=name)
        if self._projectors:
            self._thread.start()
            self._ready.wait()

    def stop(self) -> None:
        """End; what was on its way is written again by the next run."""
        if not self._projectors or self._loop is None or self._task is None:
            return
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(STOP_S_MAX)

    def _main(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._task = self._loop.create_task(self._run())
            self._ready.set()
            runner.run(_ended(self._task))

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for projector in self._projectors:
                    group.create_task(projector.run())
        except* FencedError as error:
            log.warning("no more projection", error=shown(error.exceptions[0]))
        except* Exception:  # the server goes on without
            log.exception("no more projection")

    # the port

    def sinks(self) -> list[SinkStatus]:
        return [projector.status() for projector in self._projectors]

    def rebuild(self, sink: str, from_ms: int) -> int:
        return self._of(sink).rebuild(from_ms)

    def dead_letters(self, sink: str, *, rows_max: int) -> list[DeadLetter]:
        self._of(sink)
        return self._feed.dead_letters(sink, rows_max=rows_max)

    def _of(self, sink: str) -> Projector:
        for projector in self._projectors:
            if projector.name == sink:
                return projector
        raise UnknownSinkError(f"no sink called {shown(sink)} is configured")


async def _ended(task: "asyncio.Task[None]") -> None:
    await asyncio.wait([task])
