"""Outbound's postman over a real database, with a clock that a test moves."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Engine

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.adapters.sql.subscriptions import SqlSubscriptions
from fleet_server.adapters.webhook import WebhookSender
from fleet_server.outbound import memory
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.delivering import Postman
from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.recording import Recorder
from fleet_server.outbound.retries import State
from fleet_server.outbound.sending import Sender
from fleet_server.outbound.signing import SECRET_BYTES, secret_text
from fleet_server.outbound.store import Delivery, Filter
from fleet_server.outbound.subscriptions import Choice, Sort, Subscription
from tests.fleet_server.outbound.receiver import Receiver

T0: Final = 1_767_254_400_000
SITE: Final = "5e" * 32
SECRET: Final = secret_text(bytes(range(SECRET_BYTES)))
OTHER_SECRET: Final = secret_text(b"\7" * SECRET_BYTES)
WAIT_S_MAX: Final = 20.0
_ALL: Final = Filter()


@dataclass(slots=True)
class Clock:
    """Real time, moved ahead by tests: signatures must be of now for who checks them."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


@dataclass(slots=True)
class Rig:
    """Everything around a postman."""

    outbox: SqlOutbox
    subscriptions: SqlSubscriptions
    feed: SqlFeed
    recorder: Recorder
    postman: Postman
    clock: Clock
    bell: Bell = field(default_factory=Bell)

    def subscribe(self, to: Receiver | str, *, id_: str = "w0001", choice: Choice | None = None) -> Subscription:
        url = to if isinstance(to, str) else to.url
        if not isinstance(to, str):
            to.ahead_ms = lambda: self.clock.ahead_ms
        added = Subscription(id_, Sort.WEBHOOK, url, SECRET, choice or Choice(), "", "", 1, self.clock())
        self.subscriptions.add(added)
        self.postman.changed()
        return added

    async def happen(self, *kinds: Kind, org: str = "hq/st-1") -> list[int]:
        """Record; the ids, also of what that led to."""
        before = self.feed.after(0, _ALL, rows_max=1).newest
        news = [News(self.clock(), kind, f"cam-{at}", "body_camera", org) for at, kind in enumerate(kinds)]
        await self.recorder.record(news)
        return [each.id for each in self.feed.after(before, _ALL, rows_max=100_000).happenings][: len(kinds)]

    def deliveries(self, id_: str = "w0001", state: State | None = None) -> list[Delivery]:
        """The oldest happening first."""
        return self.subscriptions.deliveries(id_, before=None, state=state, rows_max=100_000)[::-1]

    def delivered(self, id_: str = "w0001") -> int:
        return len(self.deliveries(id_, State.DELIVERED))

    async def until(self, ready: Callable[[], bool], what: str, *, skip_ms: int = 0) -> None:
        """Poll; *skip_ms*: let so much time pass between, so that what rests goes on."""
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                while not ready():
                    if skip_ms:
                        self.clock.ahead_ms += skip_ms
                        self.postman.changed()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {WAIT_S_MAX} s: {what}") from None

    def told(self, kind: Kind) -> list[News]:
        return [each.news for each in self.feed.after(0, _ALL, rows_max=100_000).happenings if each.news.kind is kind]


@asynccontextmanager
async def delivering(
    engine: Engine,
    *,
    senders: Mapping[Sort, Sender] | None = None,
    seconds_max: float = 2.0,
    pending_max: int = 10_000,
    digest_ms: int = 0,
    security: ssl.SSLContext | None = None,
) -> AsyncIterator[Rig]:
    """A postman at work on *engine*, which is migrated here."""
    database.migrate(engine)
    outbox = SqlOutbox(engine, pending_max=pending_max, digest_ms=digest_ms)
    clock, bell = Clock(), Bell()
    recorder = Recorder(outbox, bell, now_ms=clock)
    chosen = senders or {
        Sort.WEBHOOK: WebhookSender(
            site=SITE, security=security or ssl.create_default_context(), seconds_max=seconds_max
        )
    }
    known = memory.read(outbox.remembered())
    postman = Postman(recorder, chosen, known.failing, now_ms=clock, rng=random.Random(1))
    recorder.on_record = postman.news
    task = asyncio.create_task(postman.run())
    try:
        yield Rig(outbox, SqlSubscriptions(engine), SqlFeed(engine), recorder, postman, clock, bell)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for sender in chosen.values():
            await sender.aclose()
        recorder.close()
