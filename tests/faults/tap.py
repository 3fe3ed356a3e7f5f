"""Listens at the broker: what devices really sent, and what they were really told.

Its certificate is the server authority's, under a name that only the rig's broker knows. It misses what passes while
it reconnects after a fault, so it proves what it saw and nothing by what it did not see.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import mqtt5

from broker_config.ids import DeviceId, SiteId
from broker_config.mac import MacKey, Purpose, authentic
from broker_config.messages import Receipt, decode
from broker_config.ranges import Ranges, minus
from broker_config.telemetry import (
    PROPERTY_KEY,
    PROPERTY_LAST,
    BadBatchError,
    Batch,
    Events,
    Key,
    parse_key,
)
from broker_config.telemetry import decode as decode_batch
from fleet_server.adapters.mqtt import Link, LinkError, LinkSettings, connect
from tests.faults.witness import CARRIERS

TAP_SITE: Final = SiteId("7a" * 32)
"""Makes the tap's name at the broker."""
FILTERS: Final = ("ff/1/+/+/up/telemetry", "ff/1/+/+/up/event", "ff/1/+/+/dn/receipt")
RETRY_S: Final = 0.1


class Sent(NamedTuple):
    """One record as a device sent it; the same key may come with other bytes (a spool restored from an image).

    ``ns``: the witness's numbers in it, empty for the journal. ``prev``: of a journal's record.
    """

    key: Key
    digest: str
    ns: tuple[int, ...]
    prev: str


class Told(NamedTuple):
    """A receipt whose mac is right."""

    at_s: float
    receipt: Receipt

    @property
    def covered(self) -> Ranges:
        """The numbers that it says are committed."""
        return minus(((1, self.receipt.up_to),), self.receipt.missing)


@dataclass(slots=True)
class Heard:
    """Everything the tap has heard of one device, in the order it came."""

    sent: dict[tuple[Key, str], Sent] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    messages: int = 0
    messages_again: int = 0
    backlog_max: int = 0
    receipts_forged: int = 0


class Tap:
    """``run`` it in a background loop; the rest from any thread."""

    def __init__(self, settings: LinkSettings, device: DeviceId, receipt_key: MacKey) -> None:
        self._settings = settings
        self._device = device
        self._receipt_key = receipt_key
        self._lock = threading.Lock()
        self._heard = Heard()
        self._up_to: dict[tuple[str, str], int] = {}
        self._newest: dict[str, int] = {}
        self._uncovered: dict[tuple[str, str], list[Sent]] = {}
        self._link: Link | None = None

    async def run(self) -> None:
        """Listen, and come back as fast as the broker lets it."""
        filters = [mqtt5.TopicFilter(pattern, max_qos=mqtt5.QoS.AT_LEAST_ONCE) for pattern in FILTERS]
        while True:
            try:
                link = await connect(
                    self._settings, filters=filters, will=None, clean_start=True, on_packets=self._on_packets
                )
                self._link = link
                await link.gone
            except LinkError:
                await asyncio.sleep(RETRY_S)
            self._link = None

    async def publish(self, topic: str, payload: bytes, properties: list[tuple[str, str]]) -> None:
        """Say anything on any topic: what a hostile broker could."""
        assert self._link is not None, "wait until it is connected"
        self._link.send(self._link.publish(topic, payload, properties))

    @property
    def connected(self) -> bool:
        """Whether it listens at this moment."""
        return self._link is not None

    def newest_receipted(self, stream: str) -> int:
        """The highest of the witness's numbers that is known to be covered by a receipt; 0 is none."""
        with self._lock:
            return self._newest.get(stream, 0)

    def look(self, at: Callable[[Heard], None]) -> None:
        """Let *at* read what was heard, while nothing is added."""
        with self._lock:
            at(self._heard)

    def heard(self) -> Heard:
        """All of it; to be called once nothing comes any more."""
        with self._lock:
            return self._heard

    def _on_packets(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        ids = [packet.packet_id for packet in packets if packet.packet_id is not None]
        link.send(link.acknowledge(ids))
        with self._lock:
            for packet in packets:
                device, _, channel = packet.topic.removeprefix("ff/1/")[3:].partition("/")
                if device != self._device:
                    continue
                if channel == "dn/receipt":
                    self._take_receipt(packet)
                else:
                    self._take_record(packet)

    def _take_receipt(self, packet: mqtt5.PublishPacket) -> None:
        properties = dict(packet.user_properties)
        payload = bytes(packet.payload)
        if not authentic(self._receipt_key, Purpose.RECEIPT, packet.topic, payload, properties):
            self._heard.receipts_forged += 1
            return
        told = Told(time.monotonic(), decode(payload, Receipt))
        self._heard.told.append(told)
        receipt = told.receipt
        at = (receipt.stream, receipt.life)
        self._up_to[at] = receipt.up_to
        uncovered = []
        for sent in self._uncovered.get(at, ()):
            if any(low <= sent.key.seq <= high for low, high in told.covered):
                newest = sent.ns[-1] if sent.ns else 0
                self._newest[receipt.stream] = max(newest, self._newest.get(receipt.stream, 0))
            else:
                uncovered.append(sent)
        self._uncovered[at] = uncovered

    def _take_record(self, packet: mqtt5.PublishPacket) -> None:
        heard = self._heard
        payload = bytes(packet.payload)
        properties = dict(packet.user_properties)
        try:
            key = parse_key(properties.get(PROPERTY_KEY, ""))
            record = decode_batch(payload, packet.content_type)
        except (BadBatchError, ValueError):
            return
        heard.messages += 1
        digest = hashlib.sha256(payload).hexdigest()
        if (key, digest) in heard.sent:
            heard.messages_again += 1
        else:
            sent = heard.sent[key, digest] = Sent(key, digest, numbers(record), prev_of(record))
            self._uncovered.setdefault((key.stream, key.life), []).append(sent)
        last = properties.get(PROPERTY_LAST, "0")
        behind = int(last) - self._up_to.get((key.stream, key.life), 0)
        heard.backlog_max = max(heard.backlog_max, behind)


def numbers(record: Batch | Events) -> tuple[int, ...]:
    """The witness's numbers in a record, ascending; a row that the driver could not read has none."""
    if isinstance(record, Events) or record.stream not in CARRIERS:
        return ()
    at = record.fields.index(CARRIERS[record.stream])
    return tuple(int(row[at] or 0) for row in record.rows if row[at] is not None)


def prev_of(record: Batch | Events) -> str:
    """The digest that a journal's record chains itself to."""
    return record.prev if isinstance(record, Events) else ""
