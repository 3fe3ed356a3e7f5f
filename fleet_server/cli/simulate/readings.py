"""What simulated devices measure: walks inside the plausible range of each field of their device class."""

import random
from dataclasses import dataclass
from typing import Final

from broker_config import device_classes
from broker_config.ids import ContractError
from broker_config.telemetry import JOURNAL

STEP_SHARE: Final = 0.002
"""Of a field's usual span: how far one reading is from the one before."""
SPAN_MAX: Final = 1_000.0
"""Counters of bytes have ranges of 10^15; a walk over that would be nobody's reading."""
DECIMALS: Final = 2
STREAMS_DEFAULT: Final = 4


@dataclass(frozen=True, slots=True)
class Walk:
    """A field's name and where its readings stay."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Signal:
    """A stream and its fields."""

    stream: str
    fields: tuple[Walk, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields."""
        return tuple(field.name for field in self.fields)


def signals(device_class: str, streams: tuple[str, ...] = ()) -> tuple[Signal, ...]:
    """*streams* of a class, or its first four.

    Raises:
        UnknownClassError: no such class.
        ContractError: it has no such stream, or only one without fields; the message names those there are.
    """
    known = {
        name: spec
        for name, spec in device_classes.load(device_class).streams.items()
        if name != JOURNAL and spec.fields
    }
    wrong = [name for name in streams if name not in known]
    if wrong:
        raise ContractError(f"streams of {device_class}: expected some of {', '.join(known)}; got {', '.join(wrong)}")
    return tuple(
        Signal(
            name,
            tuple(
                Walk(field, spec.min, min(spec.max, spec.min + SPAN_MAX))
                for field, spec in known[name].fields.items()
            ),
        )
        for name in (streams or tuple(known)[:STREAMS_DEFAULT])
    )


def rows(signal: Signal, before: list[float], count: int, rng: random.Random) -> list[list[float | None]]:
    """*count* rows that follow *before*, which is moved on; shape (count, fields)."""
    out: list[list[float | None]] = []
    for _ in range(count):
        for at, field in enumerate(signal.fields):
            step = (field.high - field.low) * STEP_SHARE
            before[at] = min(field.high, max(field.low, before[at] + rng.uniform(-step, step)))
        out.append([round(value, DECIMALS) for value in before])
    return out


def start(signal: Signal, rng: random.Random) -> list[float]:
    """Where a device's walks begin."""
    return [rng.uniform(field.low, field.high) for field in signal.fields]
