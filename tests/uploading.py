"""A device that uploads over a real broker as the contract says, in this process: for tests and benchmarks."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import mqtt5

from broker_config import limits, signing, topics, transfer
from broker_config.ids import DeviceId
from broker_config.topics import Down, Up
from broker_config.transfer import BadTransferError, Chunk, Query, Receipted, Reject, State
from fleet_server.adapters.mqtt import QOS, Link, LinkError, LinkSettings, connect
from tests.fleet_server.evidence.upload_rig import File, numbers

PUMP_S: Final = 0.05
RECONNECT_S: Final = 0.1


@dataclass
class _Sending:
    file: File
    upload: str
    missing: list[int] = field(default_factory=list)
    under_way: OrderedDict[int, float] = field(default_factory=OrderedDict)
    known: bool = False
    heard_s: float = 0.0
    again_s: float = 0.0


class UploadingDevice:
    """Sends *files* until each is receipted. ``receipts``: upload -> what was receipted, and the envelope."""

    def __init__(self, link: LinkSettings, device: DeviceId, files: Iterable[File]) -> None:
        self._settings = link
        self.device = device
        self._queue = list(files)
        self._sending: dict[str, _Sending] = {}
        self._window = 0
        self._link: Link | None = None
        self.receipts: dict[str, Receipted] = {}
        self.envelopes: dict[str, bytes] = {}
        self.states = 0
        self.rejects: list[Reject] = []
        self.sent_bytes = 0
        self.first_chunk_s: float | None = None
        self.durable_s: dict[str, float] = {}
        self.receipted_s: dict[str, float] = {}

    async def run(self) -> None:
        """Until all is receipted."""
        while self._queue or self._sending:
            try:
                link = await connect(
                    self._settings,
                    filters=[mqtt5.TopicFilter(topics.down_filter(self.device), max_qos=QOS)],
                    will=None,
                    clean_start=True,
                    on_packets=self._on_packets,
                )
            except LinkError:
                await asyncio.sleep(RECONNECT_S)
                continue
            self._link = link
            for each in self._sending.values():
                self._offer(each)
            while (self._queue or self._sending) and not link.gone.done():
                self._begin()
                self._pump()
                await asyncio.sleep(PUMP_S)
            self._link = None
            link.disconnect()

    def _begin(self) -> None:
        while self._queue and len(self._sending) < limits.OPEN_UPLOADS_MAX:
            file = self._queue.pop(0)
            each = self._sending[file.upload] = _Sending(file, file.upload)
            self._offer(each)

    def _offer(self, each: _Sending) -> None:
        each.known, each.heard_s = False, time.monotonic()
        each.under_way.clear()
        self._say(Up.UPLOAD, transfer.encode(each.file.offer))

    def _say(self, channel: Up, payload: bytes) -> None:
        if self._link is not None:
            self._link.send(self._link.publish(topics.up(self.device, channel), payload, []))

    def _on_packets(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))
        for packet in packets:
            if packet.topic == topics.down(self.device, Down.UPLOAD):
                self._hear(bytes(packet.payload or b""))
        self._pump()

    def _hear(self, payload: bytes) -> None:
        now_s = time.monotonic()
        try:
            message = transfer.decode_down(payload)
        except BadTransferError:
            return
        if message is None:
            self._hear_receipt(payload, now_s)
            return
        each = self._sending.get(message.upload)
        if each is None:
            return
        each.heard_s = now_s
        if isinstance(message, Reject):
            self.rejects.append(message)
            each.again_s = now_s + max(message.again_s, 0.1)
            each.known = False
            return
        self._obey(each, message, now_s)

    def _obey(self, each: _Sending, state: State, now_s: float) -> None:
        self.states += 1
        each.known = True
        each.again_s = now_s + state.again_s
        self._window = state.window_bytes
        if state.leaves:
            for said in each.file.says_leaves():
                self._say(Up.UPLOAD, said.payload)
            return
        each.missing = list(numbers(state.missing))
        gone = set(each.under_way) - set(each.missing)
        for number in gone:
            if not state.more or number <= (each.missing[-1] if each.missing else -1):
                del each.under_way[number]
        if not each.missing:
            self.durable_s.setdefault(each.upload, now_s)

    def _hear_receipt(self, payload: bytes, now_s: float) -> None:
        claims = signing.decode_claims(signing.decode_envelope(payload))
        for told in transfer.decode_receipt(bytes(claims.body)).uploads:
            self.receipts[told.upload] = told
            self.envelopes[told.upload] = payload
            self.receipted_s.setdefault(told.upload, now_s)
            self._sending.pop(told.upload, None)

    def _pump(self) -> None:
        now_s = time.monotonic()
        under_way = sum(
            each.file.manifest.chunk_size(number) for each in self._sending.values() for number in each.under_way
        )
        for each in self._sending.values():
            if now_s - each.heard_s > limits.UPLOAD_WAIT_S and now_s >= each.again_s:
                each.heard_s = now_s
                each.under_way.clear()  # what was lost on the way is sent again once the server has said what it has
                if each.known:
                    self._say(Up.UPLOAD, transfer.encode(Query(1, each.upload)))
                else:
                    self._offer(each)
                continue
            if not each.known or now_s < each.again_s:
                continue
            under_way = self._send_missing(each, under_way, now_s)

    def _send_missing(self, each: _Sending, under_way: int, now_s: float) -> int:
        link = self._link
        for number in each.missing:
            since_s = each.under_way.get(number)
            if since_s is not None and now_s - since_s < limits.UPLOAD_WAIT_S:
                continue
            size = each.file.manifest.chunk_size(number)
            if link is None or link.room <= 0 or (under_way + size > self._window and since_s is None):
                break
            each.under_way[number] = now_s
            under_way += size if since_s is None else 0
            self.sent_bytes += size
            if self.first_chunk_s is None:
                self.first_chunk_s = now_s
            data = each.file.chunk_data(number)
            self._say(Up.CHUNK, transfer.encode_chunk(Chunk(each.upload, number, data)))
        return under_way
