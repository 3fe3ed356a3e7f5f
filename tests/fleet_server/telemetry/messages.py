"""Messages as a broker hands them over, and what an ingest over a real store makes of them."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.messages import AskTime, Birth, Receipt, StreamState, Will, decode, encode
from broker_config.telemetry import CONTENT_JSON, Batch, Clock, key_text
from broker_config.telemetry import encode as encode_batch
from fleet_server.access.keys import MasterKey, derive
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.telemetry.ingest import Closed, Ingest, IngestSettings
from tests.fleet_server.fleet import Arrival

CAR: Final = DeviceId("car-7")
LIFE, OTHER_LIFE = "9f0c2b1a77d3e458", "0123456789abcdef"
BOOT: Final = "5c1d7a90be2f4436"
EPOCH, NEXT_EPOCH = "1" * 16, "2" * 16
T0: Final = 1_767_254_400_000
NOW: Final = T0 + 600_000
EVERY_MS: Final = 1_000
SEAL_MS: Final = 5_000
MASTER: Final = MasterKey(b"\1" * 32)
KNOWN: Final = {"cpu": frozenset({"cpu_pct"}), "memory": frozenset({"used_bytes"})}
SETTINGS: Final = IngestSettings(
    group_records_max=500, receipt_every=10, receipt_linger_ms=300, quarantine_bytes_max=100_000
)
Src = Literal["none", "ntp", "gnss", "server"]


def sealed(seq: int, *, life: str = LIFE, value: float = 1.0, t0: int | None = None, src: Src = "ntp") -> Batch:
    """One second of cpu, in the second of its number."""
    t0 = T0 + 1_000 * seq if t0 is None else t0
    rows: list[list[float | None]] = [[value]]
    return Batch(1, "cpu", life, seq, BOOT, t0, 60_000 + 1_000 * seq, Clock(src, 0, 5), ("cpu_pct",), [0], rows)


def published(batch: Batch, *, device: DeviceId = CAR, last: str | None = None, packet_id: int = 1) -> Arrival:
    """A batch as an agent publishes it."""
    payload, content_type = encode_batch(batch)
    properties = [("key", key_text(batch.stream, batch.life, batch.seq))]
    if last is not None:
        properties.append(("last", last))
    return Arrival(topics.up(device, topics.Up.TELEMETRY), payload, content_type, properties, packet_id)


def poison(seq: int | None, payload: bytes = b"{", *, device: DeviceId = CAR, packet_id: int = 1) -> Arrival:
    """What cannot be read; *seq* None: nor can its key."""
    properties = [] if seq is None else [("key", key_text("cpu", LIFE, seq))]
    return Arrival(topics.up(device, topics.Up.TELEMETRY), payload, CONTENT_JSON, properties, packet_id)


def birth(
    *streams: StreamState,
    epoch: str = EPOCH,
    device: DeviceId = CAR,
    retain: bool = False,
    duplicate: bool = False,
) -> Arrival:
    """An agent connects."""
    message = Birth(1, epoch, BOOT, 1000, 30, "0.1.0", "host", "host", 0, SEAL_MS, streams)
    return Arrival(
        topics.up(device, topics.Up.STATUS), encode(message), CONTENT_JSON, retain=retain, duplicate=duplicate
    )


def state(
    last: int, *, first: int = 1, gone: Sequence[tuple[int, int]] = (), life: str = LIFE, every_ms: int = EVERY_MS
) -> StreamState:
    """What a birth says of cpu."""
    return StreamState("cpu", life, first, last, tuple(gone), (), every_ms)


def will(epoch: str = EPOCH, *, reason: Literal["lost", "stop"] = "lost") -> Arrival:
    """A connection ended."""
    return Arrival(topics.up(CAR, topics.Up.STATUS), encode(Will(1, epoch, reason)), CONTENT_JSON)


def ask_time(nonce: str = "a" * 16) -> Arrival:
    """What time is it?"""
    return Arrival(topics.up(CAR, topics.Up.TIME), encode(AskTime(1, nonce)), CONTENT_JSON)


class Server:
    """An ingest over a real store. *seed* decides what chance may."""

    def __init__(self, path: Path, settings: IngestSettings = SETTINGS, seed: int = 0) -> None:
        self.path = path
        self.settings = settings
        self.random = random.Random(seed)
        self.start()

    def start(self) -> None:
        """Begin, or begin again with what is in the store."""
        self.store = SqliteStore(self.path, now_ms=T0)
        self.token = self.store.take_lease("test", first=0, last=255, now_ms=T0, ttl_ms=10_000)
        self.ingest = Ingest(
            self.settings,
            known=KNOWN,
            mac_key=lambda purpose, device, _kid: derive(MASTER, purpose, device),
            sealed_crc=self.store.sealed_crc,
            restored=self.store.restore(),
        )

    def take(self, *arrivals: Arrival, at_ms: int = NOW) -> None:
        """Take, and leave the group open."""
        for arrival in arrivals:
            self.ingest.take(arrival, at_ms)

    def close(self, at_ms: int = NOW, *, receipts_max: int = 1_000) -> Closed | None:
        """Close the group and commit it."""
        closed = self.ingest.close(at_ms, receipts_max=receipts_max)
        if closed is not None and closed.group:
            self.store.commit(closed.group, token=self.token)
        return closed

    def told(self, *arrivals: Arrival, at_ms: int = NOW) -> list[Receipt]:
        """Take, commit, and say what goes out."""
        self.take(*arrivals, at_ms=at_ms)
        self.ingest.ripen()
        return receipts(self.close(at_ms))

    def seal(self, records_max: int = 1_000) -> None:
        """Move the oldest commits into columns."""
        self.ingest.sealed(self.store.seal(records_max=records_max, now_ms=NOW))

    def crash(self) -> None:
        """What is not committed is gone; begin again."""
        self.store.close()
        self.start()


def receipts(closed: Closed | None) -> list[Receipt]:
    """What a closed group tells devices."""
    return [] if closed is None else [decode(publication.payload, Receipt) for publication in closed.publications]
