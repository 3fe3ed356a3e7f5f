"""Listens at the broker to uploads: which chunks really went over it, and what devices were told.

It misses what passes while it reconnects after a fault, so it proves what it saw and nothing by what it did not see.
"""

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import mqtt5

from broker_config import signing, transfer
from broker_config.ids import DeviceId
from broker_config.ranges import Ranges, minus
from broker_config.topics import Down, Up, down, up
from broker_config.transfer import Receipted, State
from fleet_server.adapters.mqtt import QOS, Link, LinkError, LinkSettings, connect

RETRY_S: Final = 0.05
HIGHEST: Final = (1 << 18) - 1


@dataclass(slots=True)
class Heard:
    """``chunks``: (upload, number) -> how often; ``windows``: every one that the device was told, in order.
    ``missing``: what the newest state of each upload says; ``taken_back``: chunks that a state said were durable, and
    a later one did not.
    """

    chunks: Counter[tuple[str, int]] = field(default_factory=Counter)
    bytes: int = 0
    bytes_again: int = 0
    windows: list[int] = field(default_factory=list)
    missing: dict[str, Ranges] = field(default_factory=dict)
    taken_back: Counter[str] = field(default_factory=Counter)
    receipts: dict[str, Receipted] = field(default_factory=dict)
    rejects: Counter[str] = field(default_factory=Counter)


class UploadTap:
    """``run`` it in a background loop; the rest from any thread."""

    def __init__(self, settings: LinkSettings, device: DeviceId) -> None:
        self._settings = settings
        self._chunk = up(device, Up.CHUNK)
        self._told = down(device, Down.UPLOAD)
        self._lock = threading.Lock()
        self._heard = Heard()

    async def run(self) -> None:
        """Listen, and come back as fast as the broker lets it."""
        filters = [mqtt5.TopicFilter(topic, max_qos=QOS) for topic in (self._chunk, self._told)]
        while True:
            try:
                link = await connect(
                    self._settings, filters=filters, will=None, clean_start=True, on_packets=self._on_packets
                )
                await link.gone
            except LinkError:
                pass
            await asyncio.sleep(RETRY_S)

    @property
    def window_bytes(self) -> int:
        """The last that the device was told."""
        with self._lock:
            return max(self._heard.windows[-8:], default=0)

    def heard(self) -> Heard:
        """All of it; to be called once nothing comes any more."""
        with self._lock:
            return self._heard

    def _on_packets(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))
        with self._lock:
            for packet in packets:
                if packet.topic == self._chunk:
                    self._take_chunk(bytes(packet.payload))
                else:
                    self._take_word(bytes(packet.payload))

    def _take_chunk(self, payload: bytes) -> None:
        chunk = transfer.decode_chunk(payload)
        at = (chunk.upload, chunk.number)
        self._heard.bytes += len(chunk.data)
        if at in self._heard.chunks:
            self._heard.bytes_again += len(chunk.data)
        self._heard.chunks[at] += 1

    def _take_word(self, payload: bytes) -> None:
        heard = self._heard
        message = transfer.decode_down(payload)
        if message is None:
            claims = signing.decode_claims(signing.decode_envelope(payload))
            for each in transfer.decode_receipt(bytes(claims.body)).uploads:
                heard.receipts[each.upload] = each
        elif isinstance(message, State):
            if not message.leaves:
                self._take_state(message)
        else:
            heard.rejects[message.code] += 1

    def _take_state(self, state: State) -> None:
        heard = self._heard
        heard.windows.append(state.window_bytes)
        missing: Ranges = state.missing
        if state.more:  # what is above the last range is not told
            missing = (*missing, (missing[-1][1] + 1, HIGHEST))
        before = heard.missing.get(state.upload)
        if before is not None:
            heard.taken_back[state.upload] += sum(high - low + 1 for low, high in minus(missing, before))
        heard.missing[state.upload] = missing
