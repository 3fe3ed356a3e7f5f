"""The witness of a run: every reading that the sensors' far end ever gave away, in its own words.

A line for each answer, written before the answer is sent: ``STREAM N AT_S``, where N grows by one within a stream and
AT_S is CLOCK_MONOTONIC in seconds, which every process of the machine shares. N rides exactly in one field of the
reading; the others follow from it, so that a stored row proves each of its values bit by bit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from broker_config import device_classes
from broker_config.telemetry import JOURNAL

DEVICE_CLASS: Final = "host"
CARRIERS: Final[Mapping[str, str]] = {
    "cpu": "load_1m",
    "memory": "available_bytes",
    "storage": "free_bytes",
    "network": "rx_bytes",
}
"""Stream -> the field that carries N."""


class Emitted(NamedTuple):
    """One answer of the far end."""

    stream: str
    n: int
    at_s: float


def fields(stream: str) -> tuple[str, ...]:
    """The stream's fields, in the order of its device class."""
    assert stream != JOURNAL
    return tuple(device_classes.load(DEVICE_CLASS).streams[stream].fields)


def values(stream: str, n: int) -> dict[str, float]:
    """What the far end answers for N: doubles that no rounding on the way would leave alone."""
    carrier = CARRIERS[stream]
    return {
        name: float(n) if name == carrier else (n * 2_654_435_761 % 1_000_003) / (7.0 + place)
        for place, name in enumerate(fields(stream))
    }


def line(emitted: Emitted) -> str:
    """As it stands in the witness file."""
    return f"{emitted.stream} {emitted.n} {emitted.at_s:.6f}\n"


def read(path: Path) -> list[Emitted]:
    """All that was given away so far; a last line that is still being written does not count."""
    text = path.read_text(encoding="ascii")
    whole = text[: text.rfind("\n") + 1]
    rows = (row.split(" ") for row in whole.splitlines())
    return [Emitted(stream, int(n), float(at_s)) for stream, n, at_s in rows]
