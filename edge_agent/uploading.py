"""Carries out what the sender decides: offers and chunks out, receipts in. Loaded only where there are folders.

What is said on ``dn/upload`` without a signature reaches the sender alone. A receipt comes by way of the orders: its
signature, device, time and counter were right (:meth:`Uploading.carry_out`); it is durable before anything follows.
"""

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from broker_config import limits, merkle, signing, transfer
from broker_config.device_classes import Priority
from broker_config.ids import ContractError
from broker_config.signing import Claims
from broker_config.telemetry import CONTENT_JSON
from broker_config.text import shown
from broker_config.topics import Up
from broker_config.transfer import CONTENT_CHUNK, Chunk, Leaves, Offer, Query, Reject, StorageClass, Withdraw
from edge_agent import clock, link_rules, outbox
from edge_agent.adapters import folder
from edge_agent.adapters.sqlite_outbox import OUTBOX_NAME, SqliteOutbox
from edge_agent.adapters.system import System
from edge_agent.config import Settings
from edge_agent.journal import Kind
from edge_agent.keeper import Keeper
from edge_agent.lost import Lost
from edge_agent.obeying import Order
from edge_agent.outbox import Kept, OutboxError, Row
from edge_agent.releasing import Releaser
from edge_agent.sender import Action, Asking, Offering, Sender, Sending, Telling, Upload
from edge_agent.watching import Watcher

logger = logging.getLogger(__name__)

CLIENT_BYTES_MAX: Final = 1_048_576
"""Of chunks that the client and the kernel have and the broker has not: what a reading waits behind at most, whatever
window a server gives.
"""
RELEASE_S: Final = 10.0
RETRY_S: Final = 3.0
"""After the outbox took nothing."""
UNREADABLE_S: Final = 30.0
UNREADABLE_MAX: Final = 5
"""Times that a file may not be read before it is given up."""
BETTER_S: Final = 600.0
"""A receipt of too low a class is asked for again after this."""
TURN_S_MIN: Final = 0.005

Send = Callable[[Up, bytes, str, Callable[[], None]], None]


class _ChangedError(Exception):
    """The file is not what was sealed."""


class Uploading:
    """All calls are the agent's loop's. ``send`` publishes; ``pending`` tells the bytes that the broker has not
    acknowledged.
    """

    def __init__(
        self,
        settings: Settings,
        system: System,
        keeper: Keeper,
        *,
        send: Send,
        pending: Callable[[], int],
        lost: Lost | None = None,
    ) -> None:
        assert settings.uploads is not None, "nothing else loads this"
        self._settings = settings
        self._uploads = settings.uploads
        self._system = system
        self._keeper = keeper
        self._send = send
        self._pending = pending
        self._lost = lost
        self._sender = Sender()
        self._outbox: SqliteOutbox | None = None
        self._watcher: Watcher | None = None
        self._releaser: Releaser | None = None
        self._work: asyncio.Task[None] | None = None
        self._look_s = self._release_s = self._open_s = self._better_s = 0.0
        self._unreadable: dict[str, int] = {}
        self._refused: set[str] = set()
        self._wake = asyncio.Event()

    # Called by the agent ----------------------------------------------------------------------------------------

    def connected(self) -> None:
        """There is a connection, and it has subscribed."""
        self._sender.connected(self._system.mono_s())
        self._wake.set()

    def disconnected(self) -> None:
        """There is none any more."""
        self._sender.disconnected()

    def server_changed(self) -> None:
        """Another server, or one that lost what it had in memory."""
        self._sender.server_changed(self._system.mono_s())
        self._wake.set()

    def store_changed(self) -> None:
        """By the server's authentic word its store is another one: what is still here is offered again."""
        if self._outbox is not None:
            with self._faults():
                self._outbox.offer_again()
        self._wake.set()

    def told(self, payload: bytes) -> bool:
        """A message on ``dn/upload``; False: it may be a signed receipt."""
        try:
            message = transfer.decode_down(payload)
        except ContractError as error:
            logger.debug("not understood", extra={"why": shown(error)})
            return True
        if message is None:
            return False
        code = self._sender.told(message, self._system.mono_s())
        if code is not None and isinstance(message, Reject):
            self._told_refused(message)
        self._wake.set()
        return True

    def _told_refused(self, message: Reject) -> None:
        detail = shown(message.detail)
        logger.warning("upload not taken", extra={"upload": message.upload, "code": message.code, "detail": detail})
        if message.again_s == 0 and message.upload not in self._refused and len(self._refused) < limits.EVENTS_MAX:
            self._refused.add(message.upload)
            told = {"upload": message.upload, "code": message.code.value, "detail": detail}
            self._keeper.note(Kind.FILE_REFUSED, told)

    def pull(self, name: str) -> tuple[int, int] | None:
        """See :class:`edge_agent.built_in.Pulling`."""
        if self._outbox is None:
            raise OutboxError("there is none yet")
        found = self._outbox.pull(name)
        if found is None:
            return None
        for row in found:
            self._sender.prefer(row.upload, row.priority, self._system.mono_s())
        self._wake.set()
        return len(found), sum(row.size for row in found)

    def status(self) -> dict[str, object]:
        """For people."""
        found: dict[str, object] = {"open": len(self._sender.open), "under_way_bytes": self._sender.under_way}
        if self._outbox is not None and self._releaser is not None:
            with self._faults():
                found["waiting_files"], found["waiting_bytes"] = self._outbox.backlog()
            found["stopped"] = sorted(self._releaser.stopped)
        return found

    # Receipts: what the orders hand over ------------------------------------------------------------------------

    def fits(self, claims: Claims) -> bool:
        """Whether the body is what its kind says."""
        try:
            transfer.decode_receipt(bytes(claims.body))
        except ContractError:
            return False
        return True

    def carry_out(self, order: Order) -> bool:
        """Take a receipt that is rightly signed, meant for this device and new. One that cannot be kept is lost, and
        comes again with the next offer.
        """
        now_ms = clock.trusted_ms(self._keeper.clock, self._system.facts())
        if self._outbox is None or now_ms is None:
            return True
        receipt = transfer.decode_receipt(bytes(order.claims.body))
        rows: list[Row] = []
        with self._faults():
            rows = self._outbox.receipted(
                receipt.uploads, at_ms=now_ms, counter=order.claims.counter, envelope=signing.encode(order.envelope)
            )
        by_upload = {each.upload: each for each in receipt.uploads}
        for row in rows:
            each = by_upload[row.upload]
            self._sender.drop(row.upload)
            self._refused.discard(row.upload)
            if not outbox.suffices(each.storage_class, self._wanted(row)):
                self._sender.put_off_until(row.upload, self._system.mono_s() + BETTER_S)
            if row.storage_class is each.storage_class:
                continue
            told = {"upload": row.upload, "storage_class": each.storage_class.value}
            self._keeper.note(Kind.FILE_RECEIPTED, {**told, "log": each.log, "number": each.number})
            logger.info("file receipted", extra=told)
        self._wake.set()
        return True

    def _wanted(self, row: Row) -> StorageClass:
        told = self._uploads.table.folders.get(row.file_class)
        return StorageClass.LOGGED if told is None else StorageClass(told.receipt_class)

    # The loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._turn()
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._until_next_turn_s()):
                        await self._wake.wait()
        finally:
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)
            if self._outbox is not None:
                self._outbox.close()

    def _until_next_turn_s(self) -> float:
        now_s = self._system.mono_s()
        due_s = self._sender.next_s()
        look_s = self._uploads.table.look_s
        return min(look_s, max(TURN_S_MIN, (now_s + look_s if due_s is None else due_s) - now_s))

    def _turn(self) -> None:
        now_s = self._system.mono_s()
        if self._outbox is None and now_s >= self._open_s and self._keeper.ready:
            self._open()
        if self._work is not None and self._work.done():
            self._work.result()  # a mistake of ours ends the agent
            self._work = None
        rows, releaser = self._outbox, self._releaser
        if rows is None or releaser is None:
            return
        with self._faults():
            if self._work is None and now_s >= self._look_s:
                self._look_s = now_s + self._uploads.table.look_s
                self._work = asyncio.create_task(self._look())
            if now_s >= self._release_s:
                self._release_s = now_s + (0.0 if releaser.turn() else RELEASE_S)
            self._offer_more(rows, now_s)
            self._pump(rows, now_s)

    def _open(self) -> None:
        self._open_s = self._system.mono_s() + RETRY_S
        try:
            for path in self._uploads.paths.values():
                path.mkdir(parents=True, exist_ok=True)
            self._outbox = SqliteOutbox(self._settings.state_dir / OUTBOX_NAME)
            self._watcher = Watcher(self._settings, self._system, self._keeper, self._outbox)
        except (OSError, OutboxError) as error:
            logger.warning("no outbox", extra={"why": shown(error)})
            return
        self._releaser = Releaser(self._settings, self._system, self._keeper, self._outbox, self._watcher, self._lost)
        self._releaser.found_stopped()
        if self._outbox.aside:
            logger.error("outbox damaged, set aside", extra={"aside": self._outbox.aside})
            self._keeper.note(Kind.FILES_NEW, {"aside": self._outbox.aside})

    async def _look(self) -> None:
        assert self._watcher is not None
        with self._faults():
            self._watcher.tell()
            while await self._watcher.turn(self._sender.window_told):
                self._watcher.tell()
                self._wake.set()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What the outbox could not do is done later."""
        try:
            yield
        except OutboxError as error:
            logger.warning("outbox", extra={"why": shown(error)})
            self._look_s = self._release_s = self._system.mono_s() + RETRY_S

    # Sending ----------------------------------------------------------------------------------------------------

    def _offer_more(self, rows: SqliteOutbox, now_s: float) -> None:
        apart = self._sender.open | self._sender.put_off(now_s)
        for priority in Priority:
            room = self._sender.room(priority, now_s)
            for row in rows.waiting(priority, apart, room) if room else ():
                self._sender.add(Upload(row.upload, row.size, row.chunk_bytes, row.priority), now_s)
        if now_s >= self._better_s and self._sender.room(Priority.LOG, now_s):
            self._better_s = now_s + RELEASE_S
            self._ask_for_better(rows, now_s, apart)

    def _ask_for_better(self, rows: SqliteOutbox, now_s: float, apart: frozenset[str]) -> None:
        """Receipts that are not enough for deletion."""
        now_ms = clock.trusted_ms(self._keeper.clock, self._system.facts())
        if now_ms is None:
            return
        before_ms = now_ms - int(BETTER_S * 1000)
        for file_class, told in self._uploads.table.folders.items():
            wanted = StorageClass(told.receipt_class)
            for row in rows.below(wanted, file_class, before_ms=before_ms, count=len(apart) + 1):
                if row.upload not in apart and self._sender.room(Priority.LOG, now_s):
                    self._sender.add(Upload(row.upload, row.size, row.chunk_bytes, Priority.LOG), now_s)

    def _allowed(self) -> link_rules.Allowed:
        uploads = self._uploads.table
        link = uploads.link
        if uploads.link_file:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = (self._settings.config_file.parent / Path(uploads.link_file)).read_text(encoding="ascii")
                link = text.strip()[: link_rules.LINK_CHARS_MAX]
        now = datetime.fromtimestamp(time.time()).astimezone().time()
        return link_rules.allowed(uploads.limits.values(), link, now)

    def _pump(self, rows: SqliteOutbox, now_s: float) -> None:
        allowed = self._allowed() if self._uploads.table.limits and not self._lost else link_rules.NO_LIMIT
        if self._lost and rows.has_evidence():
            allowed = link_rules.EVIDENCE_ONLY
        for action in self._sender.take(now_s, CLIENT_BYTES_MAX - self._pending(), allowed):
            row = rows.get(action.upload)
            if row is None or row.kept not in {Kept.SEALED, Kept.RECEIPTED}:
                self._sender.drop(action.upload)
                continue
            try:
                self._do(action, row, rows)
            except (_ChangedError, FileNotFoundError, folder.NotAFileError) as error:
                self._give_up(row, shown(error) if isinstance(error, _ChangedError) else "it is not there")
            except OSError as error:
                self._cannot_read(row, shown(error))

    def _do(self, action: Action, row: Row, rows: SqliteOutbox) -> None:
        match action:
            case Offering():
                found = rows.offer(row.upload)
                if found is not None:
                    self._say(Offer(1, signing.decode_envelope(found[0]), found[1], row.priority))
            case Asking():
                self._say(Query(1, row.upload))
            case Sending():
                data = self._read(row, action.number, rows)
                self._send(Up.CHUNK, transfer.encode_chunk(Chunk(row.upload, action.number, data)), CONTENT_CHUNK,
                           self._wake.set)  # fmt: skip
            case Telling():
                numbers = range(action.first, action.last + 1)
                hashes = b"".join(merkle.leaf_hash(self._read(row, number, rows)) for number in numbers)
                self._say(Leaves(1, row.upload, action.first, hashes))

    def _say(self, message: transfer.UpMessage) -> None:
        self._send(Up.UPLOAD, transfer.encode(message), CONTENT_JSON, self._wake.set)

    def _read(self, row: Row, number: int, rows: SqliteOutbox) -> bytes:
        """A chunk as it was sealed. Raises _ChangedError, OSError."""
        path = self._uploads.paths.get(row.file_class)
        if path is None:
            raise FileNotFoundError(row.file_class)
        with folder.opened(path, row.name) as descriptor:
            if folder.stat_of(descriptor) != (row.inode, row.size, row.mtime_ns):
                raise _ChangedError("it was written to after it was sealed")
            data = folder.part(descriptor, number * row.chunk_bytes, row.chunk_bytes)
        if zlib.crc32(data).to_bytes(4, "big") != rows.crc(row.upload, number):
            raise _ChangedError(f"chunk {number} is not what was sealed")
        return data

    def _give_up(self, row: Row, why: str) -> None:
        assert self._releaser is not None
        self._sender.drop(row.upload)
        if row.kept is Kept.RECEIPTED:
            self._sender.put_off_until(row.upload, self._system.mono_s() + BETTER_S)
            return
        self._releaser.changed(row, why)
        self._say(Withdraw(1, row.upload, why))

    def _cannot_read(self, row: Row, why: str) -> None:
        tries = self._unreadable.get(row.upload, 0) + 1
        logger.warning("file not read", extra={"upload": row.upload, "why": why, "tries": tries})
        if tries >= UNREADABLE_MAX or len(self._unreadable) >= limits.EVENTS_MAX:
            self._unreadable.pop(row.upload, None)
            self._give_up(row, f"it cannot be read: {why}")
            return
        self._unreadable[row.upload] = tries
        self._sender.put_off_until(row.upload, self._system.mono_s() + UNREADABLE_S)
