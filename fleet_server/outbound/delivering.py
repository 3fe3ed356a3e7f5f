"""Delivers what waits in the outbox: a worker for each subscription, so that a dead receiver delays nobody else.

An attempt is made, then stored. A server that dies between the two makes the attempt again: at least once, and the
message's id is the same.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from broker_config.text import shown
from fleet_server.outbound import memory, retries
from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.recording import Recorder
from fleet_server.outbound.retries import Attempt, Decision, State
from fleet_server.outbound.sending import Sender
from fleet_server.outbound.store import Due, Settled
from fleet_server.outbound.subscriptions import Sort, Subscription
from fleet_server.telemetry.store import StoreError

log = structlog.get_logger()

REFRESH_S: Final = 30.0
"""How often it is looked who is subscribed, when nobody says that this changed."""
IDLE_S: Final = 30.0
RETRY_S: Final = 1.0
STOP_S: Final = 3.0
"""How long attempts under way may take when the server stops."""


class Postman:
    """One for a service. *failing*: subscriptions of which operators were told that they fail."""

    def __init__(
        self,
        recorder: Recorder,
        senders: Mapping[Sort, Sender],
        failing: set[str],
        *,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._recorder = recorder
        self._senders = senders
        self._failing = failing
        self._now_ms = now_ms
        self._rng = rng
        self._workers: dict[str, _Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled; then what is under way may end."""
        try:
            while True:
                self._changed.clear()
                try:
                    self._reconcile(await self._recorder.call(self._recorder.outbox.serving))
                except StoreError as error:
                    log.warning("subscriptions cannot be read", error=shown(error))
                await wait(self._changed, REFRESH_S)
        finally:
            for worker in self._workers.values():
                worker.stop()
            tasks = [*self._tasks.values(), *self._leaving]
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def news(self) -> None:
        """Something was recorded."""
        for worker in self._workers.values():
            worker.news.set()

    def changed(self) -> None:
        """Operators changed subscriptions, or ask for something to be sent now: nobody rests."""
        self._changed.set()
        for worker in self._workers.values():
            worker.hurry()

    def _reconcile(self, serving: Sequence[Subscription]) -> None:
        wanted = {each.id: each for each in serving if each.sort in self._senders}
        for name in self._workers.keys() - wanted.keys():
            self._workers.pop(name).stop()
            task = self._tasks.pop(name)
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for name, each in wanted.items():
            known = self._workers.get(name)
            if known is not None and not self._tasks[name].done():
                known.subscription = each
                continue
            worker = _Worker(each, self._senders[each.sort], self._recorder, self._judged, self._now_ms, self._rng)
            self._workers[name] = worker
            self._tasks[name] = asyncio.create_task(worker.run(), name=f"deliver {name}")

    async def _judged(self, subscription: Subscription, failures: int, why: str, *, gone: bool) -> None:
        """Tell operators once that a subscription fails. Raises StoreError."""
        name, known = subscription.id, subscription.id in self._failing
        if gone or (failures >= retries.FAILURES_TOLD and not known):
            said = f"is disabled: {why}" if gone else f"failed {failures} times in a row: {why}"
            news = News(self._now_ms(), Kind.WEBHOOK_FAILING, data={"webhook": name, "why": shown(said)})
            await self._recorder.record([news], memory.failing(name, told=True))
            self._failing.add(name)
        elif not failures and known:
            await self._recorder.record((), memory.failing(name, told=False))
            self._failing.discard(name)
        if gone:
            self._changed.set()


class _Worker:
    """Serves one subscription."""

    def __init__(
        self,
        subscription: Subscription,
        sender: Sender,
        recorder: Recorder,
        judged: Callable[..., Awaitable[None]],
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.subscription = subscription
        self.news = asyncio.Event()
        self._sender = sender
        self._recorder = recorder
        self._judged = judged
        self._now_ms = now_ms
        self._rng = rng
        self._hurry = asyncio.Event()
        self._stopping = False
        self._failures = 0

    def hurry(self) -> None:
        """Do not rest."""
        self._hurry.set()
        self.news.set()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopping = True
        self.hurry()

    async def run(self) -> None:
        """Until it is stopped."""
        while not self._stopping:
            self.news.clear()
            try:
                await self._round()
            except StoreError as error:
                log.warning("the outbox cannot be read", subscription=self.subscription.id, error=shown(error))
                await asyncio.sleep(RETRY_S)

    async def _round(self) -> None:
        sender, name, now_ms = self._sender, self.subscription.id, self._now_ms()
        careful = self._failures >= retries.REST_FAILURES_MIN
        parallel = 1 if careful else sender.concurrent_max
        due, next_ms = await self._recorder.call(
            lambda: self._recorder.outbox.due(name, now_ms, rows_max=parallel * sender.rows_max, sweep=sender.sweeps)
        )
        if not due:
            wait_s = IDLE_S if next_ms is None else (next_ms - now_ms) / 1000
            await wait(self.news, min(IDLE_S, max(0.0, wait_s)))
            return
        parts = [due[at : at + sender.rows_max] for at in range(0, len(due), sender.rows_max)]
        attempts = await asyncio.gather(*(self._attempt(part) for part in parts))
        await self._settle(list(zip(parts, attempts, strict=True)), careful=careful)
        await self._rest()

    async def _attempt(self, part: Sequence[Due]) -> Attempt:
        try:
            return await self._sender.send(
                self.subscription, [each.happening for each in part], now_ms=self._now_ms()
            )
        except Exception as error:  # a mistake of ours: it must not end the worker, and is told like any failure
            log.exception("an attempt failed by a mistake", subscription=self.subscription.id)
            return Attempt(0, f"{type(error).__name__}: {shown(error)}")

    async def _settle(self, tried: Sequence[tuple[Sequence[Due], Attempt]], *, careful: bool) -> None:
        now_ms = self._now_ms()
        settled = [
            Settled(each.happening.id, attempt, self._decide(attempt, each, now_ms))
            for part, attempt in tried
            for each in part
        ]
        bad = [each for each in settled if each.decision.state is not State.DELIVERED]
        gone = any(each.decision.disables for each in settled)
        self._failures = self._failures + 1 if bad else 0
        name = self.subscription.id
        # what was sent is sent: it is stored as soon as the database takes it, and not sent again meanwhile
        await self._until_taken(
            lambda: self._recorder.call(
                lambda: self._recorder.outbox.settle(name, settled, now_ms=now_ms, hurry=careful and not bad)
            )
        )
        why = f"{bad[-1].attempt.status} {bad[-1].attempt.error}".strip() if bad else ""
        await self._until_taken(lambda: self._judged(self.subscription, self._failures, why, gone=gone))

    def _decide(self, attempt: Attempt, due: Due, now_ms: int) -> Decision:
        return retries.decide(
            attempt, attempts=due.attempts + 1, since_ms=due.since_ms, now_ms=now_ms, jitter=self._rng.random()
        )

    async def _until_taken(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except StoreError as error:
                log.warning("an attempt is not stored yet", subscription=self.subscription.id, error=shown(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _rest(self) -> None:
        rest_ms = retries.rest_ms(self._failures)
        if rest_ms:
            self._hurry.clear()
            if not self._stopping:
                await wait(self._hurry, rest_ms * (0.5 + self._rng.random() / 2) / 1000)


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until *event*, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
