"""The threads behind what comes: one writes chunks and keeps what is known of uploads, one waits for the disk to have
them, and one until it is committed that it has.

What comes while they are busy is the next group. None waits for the loop between two groups: it may be reading for
many milliseconds at a time.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Final, NamedTuple, ParamSpec, TypeVar

from broker_config.transfer import DownMessage
from fleet_server.adapters.mqtt import Link
from fleet_server.evidence.groups import Group
from fleet_server.evidence.transfer import Transfer
from fleet_server.evidence.underway import Outcome, Put, Said

P = ParamSpec("P")
T = TypeVar("T")

GROUP_BYTES_MAX: Final = 8 * 1024 * 1024
"""Chunks that one sync and one commit make durable: each costs some milliseconds, whatever is in it."""
UNSETTLED_MAX: Final = 4
"""Groups that are being written, or are, and were not told of: one for each thread, and one between them."""


class Waiting(NamedTuple):
    """``link``, ``packet_id``: to be acknowledged there. ``asked``: who waits for the answer elsewhere."""

    said: Said | Put
    link: Link | None = None
    packet_id: int | None = None
    asked: asyncio.Future[list[DownMessage]] | None = None

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.said.data if isinstance(self.said, Put) else self.said.payload)


class Writing:
    """Made, used and closed by a running loop, where *settled* is called: with a group's messages and what came of
    them.
    """

    def __init__(
        self,
        transfer: Transfer,
        settled: Callable[[Sequence[Waiting], Outcome], None],
        *,
        now_ms: Callable[[], int],
        now_s: Callable[[], float],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._transfer = transfer
        self._settled = settled
        self._now_ms = now_ms
        self._now_s = now_s
        self._chunks = ThreadPoolExecutor(1, "chunks")
        self._disk = ThreadPoolExecutor(1, "disk")
        self._database = ThreadPoolExecutor(1, "database")
        self._lock = Lock()  # of what follows
        self._waiting: list[Waiting] = []
        self._waiting_bytes = 0
        self._unsettled = 0
        self._writes = False
        self._closed = False

    async def run(self) -> None:
        """Ends with a mistake of ours; it is not to be used any more."""
        await self._failed

    @property
    def waiting_bytes(self) -> int:
        """What no group has taken."""
        return self._waiting_bytes

    def put(self, each: Waiting) -> None:
        """It is written as soon as there is a thread for it, with all that has come by then."""
        with self._lock:
            self._waiting.append(each)
            self._waiting_bytes += each.size
            self._begin()

    async def beside(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Do something else on the thread that keeps what is known of uploads."""
        return await self._loop.run_in_executor(self._chunks, partial(work, *args, **named))

    def close(self) -> None:
        """What is under way is done to its end; what waits is not."""
        with self._lock:
            self._closed = True
        self._disk.shutdown(wait=True)
        self._database.shutdown(wait=True)
        self._chunks.shutdown(wait=True)

    def _begin(self) -> None:
        """With the lock: write the next group, if there is one and its turn."""
        if self._waiting and not self._writes and not self._closed and self._unsettled < UNSETTLED_MAX:
            self._writes = True
            self._unsettled += 1
            self._do(self._chunks, self._write)

    def _do(self, thread: ThreadPoolExecutor, work: Callable[P, None], *args: P.args, **named: P.kwargs) -> None:
        def tried() -> None:
            try:
                work(*args, **named)
            except Exception as error:  # noqa: BLE001 - nobody else hears of it
                self._loop.call_soon_threadsafe(self._fail, error)

        thread.submit(tried)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    def _write(self) -> None:
        waited = self._next()
        said = [each.said for each in waited]
        group = self._transfer.write(said, now_ms=self._now_ms(), now_s=self._now_s())
        with self._lock:
            if not self._closed:
                self._do(self._disk, self._sync, group, waited)
            self._writes = False
            self._begin()

    def _next(self) -> Sequence[Waiting]:
        """The next messages, at most :data:`GROUP_BYTES_MAX` of them and one more."""
        with self._lock:
            size = count = 0
            for each in self._waiting:
                count += 1
                size += each.size
                if size >= GROUP_BYTES_MAX:
                    break
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            self._waiting_bytes -= size
        return taken

    def _sync(self, group: Group, waited: Sequence[Waiting]) -> None:
        self._transfer.sync(group)
        self._do(self._database, self._commit, group, waited)

    def _commit(self, group: Group, waited: Sequence[Waiting]) -> None:
        self._transfer.commit(group, now_ms=self._now_ms())
        self._do(self._chunks, self._settle, group, waited)

    def _settle(self, group: Group, waited: Sequence[Waiting]) -> None:
        out = self._transfer.settle(group, now_ms=self._now_ms(), now_s=self._now_s())
        with self._lock:
            self._unsettled -= 1
            self._begin()
        self._loop.call_soon_threadsafe(self._settled, waited, out)
