"""Runs uploads: a connection to the broker of their own, the writer's thread, the one that waits for the disk, the
one that reads files again, and the one that has receipts signed. The only impure part.

Messages go to :mod:`fleet_server.evidence.writing`; acknowledged, and answered, is what was made durable. While
too much waits to be written the link is not read: the broker holds what comes, no more than the windows that were
granted.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Final

import mqtt5
import structlog

from broker_config import topics, transfer
from broker_config.ids import DeviceId
from broker_config.signing import LIFETIME_MS_MAX
from broker_config.text import shown
from broker_config.topics import BadTopicError, Down, Up, parse_up
from broker_config.transfer import DownMessage, Receipted
from fleet_server.access.signing import Signer, SignerError
from fleet_server.adapters.mqtt import Link, LinkSettings, keep_linked, subscriptions
from fleet_server.evidence import receipting
from fleet_server.evidence.facts import EvidenceFacts, Progress
from fleet_server.evidence.finishing import Finisher
from fleet_server.evidence.receipts import Due, receipted
from fleet_server.evidence.transfer import Transfer
from fleet_server.evidence.underway import Outcome, Put, Said, Told
from fleet_server.evidence.uploads import Upload, UploadError, UploadStore
from fleet_server.evidence.windows import Windows
from fleet_server.evidence.writing import GROUP_BYTES_MAX, Waiting, Writing
from fleet_server.threads import Threads, until

log = structlog.get_logger()

WAITING_BYTES_MAX: Final = 4 * GROUP_BYTES_MAX
"""For the writer; beyond that the link is not read."""
LOOK_S: Final = 0.25
RECEIPT_LOOK_S: Final = 0.05
SIGN_AGAIN_S: Final = 1.0
REPLICATE_AGAIN_S: Final = 60.0
CHANNELS: Final = (Up.UPLOAD, Up.CHUNK)
"""What is listened to."""
ASK_WAIT_S: Final = 30.0
"""For an answer over HTTPS."""
SIGNED_LATELY_MAX: Final = 1_024
SUSPECTS_A_GROUP_MAX: Final = 5
"""Lines of the log about one group; all are counted."""
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """``shards``: first and last. ``incoming_keep_d``: after so long without anything new an upload is told of.
    ``receipt_life_ms``: of the signature, not of what it says: a device that asks later gets another.
    """

    shards: tuple[int, int] = (0, 255)
    incoming_keep_d: float = 30.0
    receipt_life_ms: int = LIFETIME_MS_MAX


class UploadService:
    """``run`` it once; ``facts`` from any thread."""

    def __init__(
        self,
        settings: UploadSettings,
        link_settings: LinkSettings,
        transfer_: Transfer,
        finisher: Finisher,
        uploads: UploadStore,
        windows: Windows,
        signer: Signer,
        *,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._link_settings = link_settings
        self._transfer = transfer_
        self._finisher = finisher
        self._uploads = uploads
        self._windows = windows
        self._signer = signer
        self._now_ms = now_ms
        self._rng = rng
        self._threads = Threads("again", "receipts")
        self._signed_lately: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._whole: asyncio.Queue[tuple[Upload, Sequence[bytes] | None]] = asyncio.Queue()
        self._due = Due()
        self._link: Link | None = None
        self._receipts = 0
        self._untold = 0
        self._sign_failures = 0
        self._unreplicated = 0
        self._stale = 0
        self._loop: asyncio.AbstractEventLoop
        self._writing: Writing

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until *stop* is set. Raises UploadError: what is under way cannot be read at the start."""
        self._loop = asyncio.get_running_loop()
        self._writing = writing = Writing(self._transfer, self._on_settled, now_ms=self._now_ms, now_s=time.monotonic)
        try:
            self._deliver(await writing.beside(self._transfer.begin, now_s=time.monotonic()))
            works = {
                "link": self._keep_linked(),
                "writing": writing.run(),
                "again": self._keep_finishing(),
                "look": self._keep_looking(),
                "receipts": self._keep_receipting(),
                "replica": self._keep_replicating(),
            }
            await until(stop, works)
        finally:
            if self._link is not None:
                self._link.disconnect()
            writing.close()
            self._threads.close()

    # the link

    async def _keep_linked(self) -> None:
        await keep_linked(
            self._link_settings,
            filters=subscriptions(CHANNELS, *self._settings.shards),
            will=None,
            on_packets=self._on_packets,
            up=self._linked,
            down=self._unlinked,
            rng=self._rng,
        )

    def _linked(self, link: Link) -> None:
        self._link = link
        log.info("takes uploads", host=self._link_settings.host, port=self._link_settings.port)

    def _unlinked(self) -> None:
        self._link = None  # what was not acknowledged comes again with the session

    def _on_packets(self, link: Link, packets: Iterable[mqtt5.PublishPacket]) -> None:
        self._link = link
        strays = []
        for packet in packets:
            payload = bytes(packet.payload or b"")
            try:
                topic = parse_up(packet.topic)
            except BadTopicError:
                topic = None
            if topic is None or topic.channel not in CHANNELS:
                strays += [packet.packet_id] if packet.packet_id is not None else []
                continue
            self._writing.put(Waiting(Said(topic.device, payload, topic.channel is Up.CHUNK), link, packet.packet_id))
        if strays:
            link.send(link.acknowledge(strays))
        if self._writing.waiting_bytes > WAITING_BYTES_MAX:
            link.pause()

    def _on_settled(self, waited: Sequence[Waiting], out: Outcome) -> None:
        link = self._link
        if link is not None:  # packet ids mean nothing on another connection
            ids = [each.packet_id for each in waited if each.link is link and each.packet_id is not None]
            link.send(link.acknowledge(ids))
            if self._writing.waiting_bytes < WAITING_BYTES_MAX // 2:
                link.resume()
        for each in waited:
            if each.asked is not None and not each.asked.done():
                each.asked.set_result([told.message for told in out.told if told.device == each.said.device])
        self._deliver(out)

    def _deliver(self, out: Outcome) -> None:
        for line in out.suspect[:SUSPECTS_A_GROUP_MAX]:
            log.warning("upload", detail=shown(line, 300))
        for whole in out.whole:
            self._whole.put_nowait(whole)
        for done in out.done:
            self._whole.put_nowait((done, None))
        for device, each in out.due:
            self._due.add(device, each, self._loop.time())
        self._tell(out.told)

    def _tell(self, told: Iterable[Told]) -> None:
        """What the broker has no room for is not said: devices ask again."""
        said = [(topics.down(each.device, Down.UPLOAD), transfer.encode(each.message)) for each in told]
        heard = 0 if self._link is None else self._link.say(said)
        self._untold += len(said) - heard

    # the other threads

    async def _keep_finishing(self) -> None:
        while True:
            upload, leaves = await self._whole.get()
            if leaves is None:
                result = await self._threads.run("again", self._finisher.enter_again, upload)
            else:
                result = await self._threads.run("again", self._finisher.finish, upload, leaves)
            out = await self._writing.beside(
                self._transfer.finished, result, now_ms=self._now_ms(), now_s=time.monotonic()
            )
            self._deliver(out)
            log.info("read again", upload=upload.upload, device=upload.device, result=type(result).__name__.lower())

    async def _keep_looking(self) -> None:
        keep_ms = int(self._settings.incoming_keep_d * DAY_MS)
        while True:
            await asyncio.sleep(LOOK_S)
            self._deliver(await self._writing.beside(self._transfer.look, now_s=time.monotonic()))
            before_ms = self._now_ms() - keep_ms
            self._stale = await self._writing.beside(self._transfer.stale, before_ms=before_ms)

    async def _keep_receipting(self) -> None:
        failed = False
        while True:
            await asyncio.sleep(SIGN_AGAIN_S if failed else RECEIPT_LOOK_S)
            failed = False
            for device, uploads in self._due.take(self._loop.time()):
                try:
                    envelope = await self._threads.run("receipts", self._signed, device, uploads)
                except SignerError as error:
                    level = log.debug if self._sign_failures else log.error
                    level("evidence receipts are not signed", error=shown(error))
                    self._sign_failures += 1
                    failed = True
                    for each in uploads:
                        self._due.add(device, each, self._loop.time())
                    continue
                self._keep_receipt(device, uploads, envelope)
                self._say_receipt(device, envelope, len(uploads))

    def _signed(self, device: DeviceId, uploads: tuple[Receipted, ...]) -> bytes:
        return receipting.signed(self._signer, device, uploads, life_ms=self._settings.receipt_life_ms)

    def _keep_receipt(self, device: DeviceId, uploads: Iterable[Receipted], envelope: bytes) -> None:
        for each in uploads:
            self._signed_lately[device, each.upload] = envelope
            self._signed_lately.move_to_end((device, each.upload))
        while len(self._signed_lately) > SIGNED_LATELY_MAX:
            self._signed_lately.popitem(last=False)

    def _say_receipt(self, device: DeviceId, envelope: bytes, uploads: int) -> None:
        if self._link is not None and self._link.say([(topics.down(device, Down.UPLOAD), envelope)]):
            self._receipts += uploads
        else:
            self._untold += 1

    async def _keep_replicating(self) -> None:
        while True:
            left = 0
            for upload in await self._threads.run("again", self._uploads.unreplicated):
                if await self._threads.run("again", self._finisher.replicate, upload):
                    await self._replicated(upload)
                else:
                    left += 1
            self._unreplicated = left
            await asyncio.sleep(REPLICATE_AGAIN_S)

    async def _replicated(self, upload: Upload) -> None:
        assert upload.place is not None
        await self._threads.run(
            "again", self._uploads.done, upload.upload, upload.place, replicated=True, now_ms=self._now_ms()
        )
        better = receipted(upload._replace(replicated=True))
        self._due.add(DeviceId(upload.device), better, self._loop.time())

    # for others

    def say(self, said: Said | Put) -> list[DownMessage]:
        """See :class:`fleet_server.evidence.docking.Docking`."""
        try:
            return asyncio.run_coroutine_threadsafe(self._ask(said), self._loop).result(ASK_WAIT_S)
        except (RuntimeError, TimeoutError, CancelledError) as error:
            raise UploadError("the server is not ready") from error

    async def _ask(self, said: Said | Put) -> list[DownMessage]:
        if self._writing.waiting_bytes > WAITING_BYTES_MAX:
            raise TimeoutError
        asked: asyncio.Future[list[DownMessage]] = self._loop.create_future()
        self._writing.put(Waiting(said, asked=asked))
        return await asked

    def receipt(self, device: DeviceId, upload: str) -> bytes | None:
        """See :class:`fleet_server.evidence.docking.Docking`."""
        return self._signed_lately.get((device, upload))

    def progress(self) -> list[Progress]:
        """Of each file that is on its way; any thread."""
        return self._transfer.progress()

    def facts(self) -> EvidenceFacts:
        """See :class:`EvidenceFacts`."""
        counts = self._transfer.counts
        return EvidenceFacts(
            connected=self._link is not None,
            open_uploads=self._transfer.open_uploads,
            stale_uploads=self._stale,
            unreplicated=self._unreplicated,
            receipts_waiting=len(self._due),
            receipts_sent=self._receipts,
            sign_failures=self._sign_failures,
            untold=self._untold,
            window_bytes=self._windows.granted_bytes,
            devices_waiting=self._windows.waiting,
            counts=dict(counts),
        )
