"""Runs ingest: one connection to the broker, one writer thread, the lease, the sealer. The only impure part.

Order is everything here. A group is closed, committed, and only then are its packets acknowledged and its receipts
sent. When the store cannot take a group, that group is tried again and nothing behind it moves: reading stops, the
broker and then the devices hold, and nobody is told anything that is not so.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import mqtt5
import structlog

from broker_config import limits
from broker_config.device_classes import known_streams
from broker_config.ids import DeviceId
from broker_config.mac import MacKey, Purpose
from broker_config.messages import ServerState, ShardEpoch, encode
from broker_config.text import shown
from broker_config.topics import SERVER_STATE
from fleet_server.adapters.mqtt import INGESTED, Link, LinkError, LinkSettings, keep_linked, subscriptions
from fleet_server.telemetry import reconnects
from fleet_server.telemetry.admission import KnownStreams
from fleet_server.telemetry.ages import Ages
from fleet_server.telemetry.answers import Answers
from fleet_server.telemetry.ingest import Closed, Ingest, IngestSettings, Publication
from fleet_server.telemetry.store import (
    UNSEALED_RECORDS_MAX,
    BatchStore,
    FencedError,
    LeaseHeldError,
    StoreError,
)
from fleet_server.telemetry.view import IngestFacts

log = structlog.get_logger()
T = TypeVar("T")

GROUPS_WAITING_MAX: Final = 2
"""Closed groups that may wait for the writer; beyond that the link is not read."""
GROUPS_HELD_MAX: Final = GROUPS_WAITING_MAX + 2
"""Those, one more that has closed by then, and the open one."""
RETRY_S: Final = 0.5
"""Between two tries to commit a group that the store did not take."""
LEASE_RENEWALS: Final = 3
"""Renewals within one lease's time."""
REPLAY_WAIT_S: Final = 30.0
PUBLISH_WAIT_S: Final = 10.0
PUBLISH_LOOK_S: Final = 0.05
"""While the broker has no room, it is looked again after this long."""
PUBLISHING_MAX: Final = 1_000
"""Messages of other threads that wait for room at once."""
DRAIN_WAIT_S: Final = 5.0
SEAL_LOOK_S: Final = 0.5
SPREAD_LOOK_S: Final = 1.0
"""How often the spread is looked at: so often at most is it said while a new fleet comes."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """``shards``: first and last; the rest as ``fleet_server.config`` says."""

    shards: tuple[int, int]
    lease_ttl_s: float
    group_wait_ms: int
    seal_every_s: float
    seal_records_max: int
    ingest: IngestSettings
    reconnects_a_second_max: int = limits.RECONNECTS_A_SECOND_MAX


@dataclass(slots=True)
class _Waiting:
    """A closed group on its way; *committed* is set for who waits for it."""

    closed: Closed
    link: Link | None
    committed: asyncio.Future[None] | None = None


class Service:
    """Telemetry's server side. ``run`` it once; ``answers`` is there when ``started`` is set.

    ``mac_key``: of a purpose, a device, and the key id that the device says it has. ``known``: the streams that are
    admitted, by default those of every device class. ``newest``: the version of the signers and the key id that a
    device can have, for the hint in the server's state.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        link_settings: LinkSettings,
        store: BatchStore,
        *,
        mac_key: Callable[[Purpose, DeviceId, str], MacKey],
        owner: str,
        now_ms: Callable[[], int],
        rng: random.Random,
        known: KnownStreams | None = None,
        newest: Callable[[], tuple[int, str]] = lambda: (0, ""),
    ) -> None:
        self._settings = settings
        self._link_settings = link_settings
        self._store = store
        self._mac_key = mac_key
        self._owner = owner
        self._now_ms = now_ms
        self._rng = rng
        self._known = known_streams() if known is None else known
        self._writer = ThreadPoolExecutor(1, "writer")
        self._sealer = ThreadPoolExecutor(1, "sealer")
        self._waiting: deque[_Waiting] = deque()
        self._promised = 0
        self._publishing = 0
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._link: Link | None = None
        self._tick_due: asyncio.TimerHandle | None = None
        self._said_spread_ms = 0
        self._newest = newest
        self._said_newest = 0, ""
        self._commits = 0
        self._commits_s = 0.0
        self._commit_failures = 0
        self._ages = Ages()
        self._ingest: Ingest
        self._token: int
        self._loop: asyncio.AbstractEventLoop
        self._mistake: asyncio.Future[None]
        self.started = asyncio.Event()
        self.answers: Answers

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until *stop* is set.

        Raises:
            FencedError: another server owns the shards now. Nothing was written since.
            StoreError: the store cannot be read at the start.
        """
        self._loop = asyncio.get_running_loop()
        self._mistake = self._loop.create_future()
        try:
            if not await self._own(stop):
                return
            restored = await self._in_writer(self._store.restore)
            self._ingest = await self._in_writer(
                lambda: Ingest(
                    self._settings.ingest,
                    known=self._known,
                    mac_key=self._mac_key,
                    sealed_crc=self._store.sealed_crc,
                    restored=restored,
                )
            )
            self.answers = Answers(
                self._ingest,
                self._store,
                now_ms=self._now_ms,
                facts=self.facts,
                replay=self._replay_from_thread,
                grace_ms=int(1000 * self._link_settings.keep_alive_s),
            )
            self.started.set()
            await self._serve(stop)
        finally:
            self._sealer.shutdown(wait=True)
            self._writer.shutdown(wait=True)

    async def _serve(self, stop: asyncio.Event) -> None:
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("link", self._keep_linked()),
                ("writer", self._write()),
                ("lease", self._keep_lease()),
                ("spread", self._keep_spread_said()),
                ("sealer", self._keep_sealing()),
                ("mistake", self._mistaken()),
            )
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._drain()
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)
            if self._tick_due is not None:
                self._tick_due.cancel()
            if self._link is not None:
                self._link.disconnect()
            try:
                await self._in_writer(lambda: self._store.drop_lease(token=self._token))
            except StoreError as error:
                log.warning("lease not dropped", error=shown(error))

    async def _drain(self) -> None:
        """Commit and receipt what has come, then say that the server goes."""
        self._ingest.ripen()
        self._close()
        try:
            async with asyncio.timeout(DRAIN_WAIT_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("stopped before everything was committed", groups=len(self._waiting))
        if self._link is not None:
            self._link.send(self._link.publish(SERVER_STATE, self._state("down"), [], retain=True))

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._writer, work)

    # ownership

    async def _own(self, stop: asyncio.Event) -> bool:
        first, last = self._settings.shards
        ttl_ms = int(self._settings.lease_ttl_s * 1000)
        while not stop.is_set():
            now_ms = self._now_ms()
            try:
                self._token = await self._in_writer(
                    lambda: self._store.take_lease(
                        self._owner, first=first, last=last, now_ms=self._now_ms(), ttl_ms=ttl_ms
                    )
                )
            except LeaseHeldError as held:
                wait_s = min(max(held.until_ms - now_ms, 10) / 1000, 1.0)
                log.info("waiting for the shards", owner=held.owner, until_ms=held.until_ms)
            except StoreError as error:
                wait_s = RETRY_S
                log.warning("the store cannot give a lease", error=shown(error))
            else:
                log.info("owns the shards", first=first, last=last, epoch=self._token)
                return True
            await _wait(stop, wait_s)
        return False

    async def _keep_lease(self) -> None:
        ttl_s = self._settings.lease_ttl_s
        while True:
            await asyncio.sleep(ttl_s / LEASE_RENEWALS)
            try:
                await self._in_writer(
                    lambda: self._store.renew_lease(
                        token=self._token, now_ms=self._now_ms(), ttl_ms=int(ttl_s * 1000)
                    )
                )
            except FencedError:
                raise
            except StoreError as error:
                # commits check the token, so an unrenewed lease is a risk to progress and not to truth
                log.warning("lease not renewed", error=shown(error))

    # the link

    async def _keep_linked(self) -> None:
        first, last = self._settings.shards
        await keep_linked(
            self._link_settings,
            filters=subscriptions(INGESTED, first, last),
            will=mqtt5.Will(SERVER_STATE, payload=self._state("down"), qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True),
            on_packets=self._on_packets,
            up=self._linked,
            down=self._unlinked,
            rng=self._rng,
        )

    def _linked(self, link: Link) -> None:
        self._link = link
        self._say_up(link)

    def _unlinked(self) -> None:
        self._link = None
        self._ingest.disconnected()

    def _state(self, state: Literal["up", "down"], spread_ms: int = 0) -> bytes:
        first, last = self._settings.shards
        epoch = ShardEpoch(first, last, self._token)
        signers, kid = self._said_newest if state == "up" else (0, "")
        return encode(ServerState(1, self._ingest.store_epoch, (epoch,), state, spread_ms, signers, kid))

    def _say_up(self, link: Link) -> None:
        self._said_spread_ms = self._spread_ms()
        self._said_newest = self._newest()
        link.send(link.publish(SERVER_STATE, self._state("up", self._said_spread_ms), [], retain=True))

    def _spread_ms(self) -> int:
        return reconnects.spread_ms(self._ingest.born, a_second_max=self._settings.reconnects_a_second_max)

    async def _keep_spread_said(self) -> None:
        a_second_max, kept = self._settings.reconnects_a_second_max, True
        spread_ms = self._spread_ms()
        while True:
            await asyncio.sleep(SPREAD_LOOK_S)
            link, born = self._link, self._ingest.born
            before_ms, spread_ms = spread_ms, self._spread_ms()
            if link is None or link.room <= self._promised:
                continue
            if reconnects.is_news(self._said_spread_ms, before_ms, spread_ms):
                self._say_up(link)
                log.info("devices spread their connections", devices=born, spread_ms=spread_ms)
            elif self._said_newest != self._newest():
                self._say_up(link)
                log.info("devices may ask for newer keys", signers=self._said_newest[0], kid=self._said_newest[1])
            if kept and not reconnects.is_kept(born, a_second_max=a_second_max):
                kept = False
                log.warning(
                    "too many devices for the stated rate", devices=born, reconnects_a_second_max=a_second_max
                )

    def _on_packets(self, link: Link, packets: Iterable[mqtt5.PublishPacket]) -> None:
        ingest, now_ms = self._ingest, self._now_ms()
        if self._mistake.done():
            return
        if self._link is not link:  # retained births come before connect() has returned
            self._link = link
        try:
            for packet in packets:
                ingest.take(packet, now_ms)
            # the writer is idle: what has gathered while it worked is a group
            if ingest.full or (ingest.ready and not self._waiting):
                self._close()
        except Exception as error:  # noqa: BLE001 - see there
            self._give_up(error)
            return
        if ingest.replies:
            self._reply(link)
        self._tick_later()

    def _reply(self, link: Link) -> None:
        """Answers of the clock: now, or as soon as the broker has room; too late is the device's to judge."""
        replies = self._ingest.replies
        room = max(0, link.room - self._promised)
        link.send(_published(link, replies[:room]))
        del replies[:room]

    def _give_up(self, error: Exception) -> None:
        """A mistake of ours half way through a message may have left the ledger ahead of the group, and the next
        receipt would be a lie. So nothing is taken or said from now on, and ``run`` raises it.
        """
        if not self._mistake.done():
            self._mistake.set_exception(error)

    async def _mistaken(self) -> None:
        await self._mistake

    # groups

    def _tick_later(self) -> None:
        if self._tick_due is None and (self._ingest.pending or self._ingest.replies):
            self._tick_due = self._loop.call_later(self._settings.group_wait_ms / 1000, self._tick)

    def _tick(self) -> None:
        self._tick_due = None
        if self._mistake.done():
            return
        try:
            self._close()
        except Exception as error:  # noqa: BLE001 - see there
            self._give_up(error)
            return
        if self._ingest.replies and self._link is not None:
            self._reply(self._link)
        self._tick_later()

    def _close(self, committed: asyncio.Future[None] | None = None) -> None:
        if self._mistake.done():
            return
        link = self._link
        room = link.room - self._promised if link is not None else 0
        closed = self._ingest.close(self._now_ms(), receipts_max=max(0, room))
        if closed is None:
            if committed is not None:
                committed.set_result(None)
            return
        self._promised += len(closed.publications)
        self._waiting.append(_Waiting(closed, link, committed))
        self._idle.clear()
        self._work.set()
        if link is not None and len(self._waiting) > GROUPS_WAITING_MAX:
            link.pause()

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            while self._waiting:
                waiting = self._waiting[0]
                if waiting.closed.group:
                    await self._commit(waiting.closed)
                self._waiting.popleft()
                if self._ingest.ready and not self._waiting:
                    self._close()
                self._deliver(waiting)
            self._work.clear()
            self._idle.set()

    async def _commit(self, closed: Closed) -> None:
        tries = 0
        while True:
            began_s = self._loop.time()
            try:
                await self._in_writer(lambda: self._store.commit(closed.group, token=self._token))
            except FencedError:
                raise
            except StoreError as error:
                self._commit_failures += 1
                level = log.debug if tries else log.error
                level("the store takes nothing; no receipts until it does", error=shown(error))
                tries += 1
                await asyncio.sleep(RETRY_S)
            else:
                self._commits_s += self._loop.time() - began_s
                self._commits += 1
                if tries:
                    log.info("the store takes commits again", tries=tries)
                return

    def _deliver(self, waiting: _Waiting) -> None:
        closed, link = waiting.closed, waiting.link
        self._promised -= len(closed.publications)
        if link is not None:
            # packet ids mean nothing on another connection; receipts that miss theirs come again with a resend
            link.send(link.acknowledge(closed.acks) + _published(link, closed.publications))
            if closed.oldest_ms is not None:
                now_ms = self._now_ms()
                self._ages.note(now_ms, now_ms - closed.oldest_ms)
            if len(self._waiting) < GROUPS_WAITING_MAX:
                link.resume()
        if waiting.committed is not None and not waiting.committed.done():
            waiting.committed.set_result(None)

    # sealing

    async def _keep_sealing(self) -> None:
        sealed_s = self._loop.time()
        while True:
            await asyncio.sleep(SEAL_LOOK_S)
            due = self._loop.time() - sealed_s >= self._settings.seal_every_s
            if not due and self._store.unsealed_records < UNSEALED_RECORDS_MAX:
                continue
            try:
                await self._seal()
            except FencedError:
                raise
            except StoreError as error:
                log.warning("not sealed", error=shown(error))
            sealed_s = self._loop.time()

    async def _seal(self) -> None:
        """In slices, in a thread of its own: commits go on beside it."""
        while True:
            sealed = await self._loop.run_in_executor(
                self._sealer,
                lambda: self._store.seal(records_max=self._settings.seal_records_max, now_ms=self._now_ms()),
            )
            if not sealed:
                return
            self._ingest.sealed(sealed)

    # for the API

    @property
    def committed(self) -> bool:
        """Whether everything that has come is committed; receipts may still linger."""
        return not self._waiting and not self._ingest.open

    def facts(self) -> IngestFacts:
        """See :class:`IngestFacts`; from any thread."""
        counters = self._ingest.counters
        # a copy: the loop goes on meanwhile
        waiting = self._ingest.open_records + sum(len(each.closed.group.payloads) for each in list(self._waiting))
        return IngestFacts(
            store_epoch=self._ingest.store_epoch,
            connected=self._link is not None,
            records_stored=counters.records_stored,
            records_duplicate=counters.records_duplicate,
            records_quarantined=counters.records_quarantined,
            messages_dropped=counters.messages_dropped,
            receipts_sent=counters.receipts_sent,
            commits=self._commits,
            commit_failures=self._commit_failures,
            quarantine_bytes=self._ingest.quarantine_bytes,
            unsealed_records=self._store.unsealed_records,
            commits_ms=1000 * self._commits_s,
            receipt_age_ms=self._ages.oldest_ms(self._now_ms()),
            queue_records=waiting,
            queue_share=min(1.0, waiting / (GROUPS_HELD_MAX * self._settings.ingest.group_records_max)),
        )

    def publish(self, topic: str, payload: bytes) -> None:
        """Say something to a device, once ``started``, from any thread but the loop's; waits while the broker has no
        room. Receipts go before it. It is on its way once this returns, and a broker may lose it.

        Raises:
            LinkError: there is no link, it takes nothing in time, or too many wait. Nothing was said.
        """
        try:
            asyncio.run_coroutine_threadsafe(self._publish(topic, payload), self._loop).result(2 * PUBLISH_WAIT_S)
        except (RuntimeError, TimeoutError, CancelledError) as error:  # its loop has ended, or is about to
            raise LinkError("the server stops") from error

    async def _publish(self, topic: str, payload: bytes) -> None:
        if self._publishing >= PUBLISHING_MAX:
            raise LinkError(f"expected at most {PUBLISHING_MAX} messages that wait, the broker takes none")
        self._publishing += 1
        try:
            async with asyncio.timeout(PUBLISH_WAIT_S):
                # looked at again and again: an event would cost every acknowledgement of a receipt something
                while (link := self._link) is not None and link.room <= self._promised:  # noqa: ASYNC110
                    await asyncio.sleep(PUBLISH_LOOK_S)
        except TimeoutError as error:
            raise LinkError(f"the broker took nothing within {PUBLISH_WAIT_S:.0f} s") from error
        finally:
            self._publishing -= 1
        if link is None:
            raise LinkError("no link to the broker")
        link.send(link.publish(topic, payload, []))

    def _replay_from_thread(self, row_id: int) -> str:
        return asyncio.run_coroutine_threadsafe(self._replay(row_id), self._loop).result(REPLAY_WAIT_S)

    async def _replay(self, row_id: int) -> str:
        rows = await self._in_writer(lambda: self._store.quarantine(after_id=row_id - 1, rows_max=1))
        if not rows or rows[0].id != row_id:
            raise KeyError(row_id)
        row = rows[0]
        if row.replayed_ms is not None:
            return "stored"
        try:
            verdict = self._ingest.readmit(row, self._now_ms())
        except Exception as error:
            self._give_up(error)
            raise
        if verdict != "stored":
            return verdict
        committed: asyncio.Future[None] = self._loop.create_future()
        self._close(committed)
        await committed
        await self._in_writer(lambda: self._store.replayed(row_id, self._now_ms()))
        self._ingest.quarantine_bytes -= len(row.payload)
        return verdict


def _published(link: Link, publications: Iterable[Publication]) -> bytes:
    return b"".join([link.publish(p.topic, p.payload, p.properties) for p in publications])


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until *event*, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
