"""Runs outbound in a thread of its own: look, record, deliver, tidy up. What it does never delays a receipt."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from broker_config.text import shown
from fleet_server.outbound import memory, retries
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.delivering import STOP_S, Postman, wait
from fleet_server.outbound.looking import Fleet, Looker, LookSettings
from fleet_server.outbound.recording import Recorder
from fleet_server.outbound.sending import Sender
from fleet_server.outbound.store import PRUNE_ROWS_MAX, Outbox
from fleet_server.outbound.subscriptions import Sort
from fleet_server.projection.labels import LabelsOf
from fleet_server.telemetry.store import StoreError

log = structlog.get_logger()

TIDY_S: Final = 60.0
AGAIN_S: Final = 10.0
"""After a failure of ours, or of the database at the start."""
JOIN_S: Final = STOP_S + 5.0


class Outbound:
    """``start`` it, ``wake`` it when subscriptions change, ``stop`` it; each from any thread.

    *senders* makes them in the loop that they belong to.
    """

    def __init__(
        self,
        fleet: Fleet,
        labels: LabelsOf,
        outbox: Outbox,
        senders: Callable[[], Mapping[Sort, Sender]],
        settings: LookSettings,
        *,
        bell: Bell,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._fleet = fleet
        self._labels = labels
        self._outbox = outbox
        self._senders = senders
        self._settings = settings
        self._bell = bell
        self._now_ms = now_ms
        self._rng = rng
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._postman: Postman | None = None
        self._thread = threading.Thread(target=self._main, name="outbound", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End in order: attempts under way may take ``STOP_S``. What is not delivered is after the next start."""
        self._bell.close()
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(JOIN_S)

    def wake(self) -> None:
        """Subscriptions changed, or something is to be sent now."""

        def wake() -> None:
            if self._postman is not None:
                self._postman.changed()

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(wake)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._again_and_again())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _again_and_again(self) -> None:
        while not self._stop.is_set():
            try:
                await self._run()
            except StoreError as error:
                log.warning("outbound cannot begin", error=shown(error))
            except Exception:
                # telemetry goes on without us; everything that matters is in the database
                log.exception("outbound failed by a mistake, and begins anew")
            if not self._stop.is_set():
                await wait(self._stop, AGAIN_S)

    async def _run(self) -> None:
        recorder = Recorder(self._outbox, self._bell, now_ms=self._now_ms)
        senders = self._senders()
        try:
            known = memory.read(await recorder.call(self._outbox.remembered))
            looker = Looker(self._fleet, self._labels, recorder, self._settings, known, now_ms=self._now_ms)
            postman = Postman(recorder, senders, known.failing, now_ms=self._now_ms, rng=self._rng)
            self._postman, recorder.on_record = postman, postman.news
            await self._until_stopped(looker, postman, recorder)
        finally:
            self._postman = None
            for sender in senders.values():
                await sender.aclose()
            recorder.close()

    async def _until_stopped(self, looker: Looker, postman: Postman, recorder: Recorder) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        tasks = [
            asyncio.create_task(looker.run(), name="look"),
            asyncio.create_task(postman.run(), name="deliver"),
            asyncio.create_task(self._tidy(looker, recorder), name="tidy"),
        ]
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)

    async def _tidy(self, looker: Looker, recorder: Recorder) -> None:
        while True:
            now_ms, told = self._now_ms(), looker.told
            try:
                await recorder.call(lambda: self._outbox.park_older(now_ms - retries.GIVE_UP_MS, now_ms=now_ms))  # noqa: B023 - called at once
                await recorder.call(lambda: self._outbox.reconcile(told))  # noqa: B023
                while await recorder.call(lambda: self._outbox.prune(now_ms)) == PRUNE_ROWS_MAX:  # noqa: B023
                    pass
            except StoreError as error:
                log.warning("the outbox is not tidied up", error=shown(error))
            await asyncio.sleep(TIDY_S)
