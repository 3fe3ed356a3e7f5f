"""Batches as real sensors make them: random walks at a sensor's resolution, sealed by the contract's own codec."""

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from broker_config.ids import DeviceId, device_id
from broker_config.telemetry import PROPERTY_KEY, PROPERTY_LAST, Batch, Clock, encode, key_text
from broker_config.topics import Up, up

STREAM: Final = "power"
LIFE: Final = "9f3c21aa07b1d4e6"
BOOT: Final = "5d0c7a3f11e29b84"
T0_MS: Final = 1_767_225_600_000
MINUTE_MS: Final = 60_000
CLOCK: Final = Clock("ntp", -12, 40)


class Walk(NamedTuple):
    """A field: where it begins, how far it steps, how many decimals its sensor gives."""

    name: str
    start: float
    step: float
    decimals: int


FIELDS: Final = (
    Walk("battery_pct", 83.4, 0.03, 1),
    Walk("temp_c", 31.2, 0.1, 1),
    Walk("charging", 1, 0, 0),
    Walk("supply_v", 12.613, 0.004, 3),
    Walk("current_ma", 412.5, 3.0, 1),
    Walk("free_bytes", 51_234_567_168, 65_536, 0),
    Walk("rssi_dbm", -71, 1, 0),
    Walk("cpu_pct", 12.25, 0.8, 2),
)
KNOWN: Final = {STREAM: frozenset(field.name for field in FIELDS)}


class Message(NamedTuple):
    """A sealed batch as it is published."""

    topic: str
    payload: bytes
    content_type: str
    properties: list[tuple[str, str]]


def devices(count: int) -> list[DeviceId]:
    """``cam-0001`` and so on."""
    return [device_id(f"cam-{number:04d}") for number in range(1, count + 1)]


def messages(device_count: int, message_count: int, *, rows: int, burst: int, seed: int) -> Iterator[Message]:
    """Each device in turn, *burst* batches of it in a row, a batch of *rows* rows a minute.

    One row a batch is what a quiet sensor sends; a burst is an agent's window when it has a backlog.
    """
    rng = random.Random(seed)
    names = tuple(field.name for field in FIELDS)
    topics = [up(device, Up.TELEMETRY) for device in devices(device_count)]
    walks = [[field.start * rng.uniform(0.9, 1.1) for field in FIELDS] for _ in topics]
    dt = [row * (MINUTE_MS // rows) for row in range(rows)]
    for number in range(message_count):
        block, within = divmod(number, device_count * burst)
        place, minute = within // burst, block * burst + within % burst
        walk, seq = walks[place], minute + 1
        table: list[list[float | None]] = []
        for _ in dt:
            for at, field in enumerate(FIELDS):
                walk[at] += rng.gauss(0, field.step)
            table.append([round(value, field.decimals) for value, field in zip(walk, FIELDS, strict=True)])
        t0 = T0_MS + minute * MINUTE_MS + place % 50 * 17
        batch = Batch(1, STREAM, LIFE, seq, BOOT, t0, minute * MINUTE_MS, CLOCK, names, dt, table)
        payload, content_type = encode(batch)
        properties = [(PROPERTY_KEY, key_text(STREAM, LIFE, seq)), (PROPERTY_LAST, str(seq))]
        yield Message(topics[place], payload, content_type, properties)
