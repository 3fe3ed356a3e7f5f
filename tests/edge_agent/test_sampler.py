import math
import random

import pytest

from broker_config import limits, telemetry
from broker_config.telemetry import Batch, Clock
from edge_agent import sampler
from edge_agent.clock import Stamp
from edge_agent.sampler import BatchDraft, Sampler

LIFE = "1" * 16


def stamp(mono_ms: int) -> Stamp:
    return Stamp(1_790_000_000_000 + mono_ms, mono_ms, Clock("ntp", 0, 1))


def new(fields: int = 2) -> Sampler:
    return Sampler({"cpu": tuple(f"f{n}" for n in range(fields)), "memory": ("free",)}, boot="b" * 16, seal_ms=5_000)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (1.5, 1.5),
        (-4000.0, -4000.0),  # implausible, and the fact
        (None, None),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (1e15, 1e15),
        (1e19, None),  # past what the contract can carry
        (float(2**70), None),
    ],
)
def test_what_a_batch_may_carry(value: float | None, kept: float | None) -> None:
    assert sampler.fits(value) == kept


def test_nothing_is_sealed_before_its_time_and_then_everything_is() -> None:
    s = new()
    s.add("cpu", (1.0, 2.0), stamp(1_000))
    s.add("memory", (3.0,), stamp(4_000))
    assert s.due_ms() == 6_000
    assert s.seal_due(5_999) == []
    assert {draft.stream for draft in s.seal_due(6_000)} == {"cpu", "memory"}
    assert s.due_ms() is None


def test_time_within_a_batch_is_the_monotonic_clocks() -> None:
    s = new()
    for mono_ms in (1_000, 1_500, 1_400, 9_000):  # a reading that came late takes the place of the one before
        s.add("cpu", (1.0, 2.0), stamp(mono_ms))
    (draft,) = s.seal_all()
    assert draft.dt == [0, 500, 500, 8_000]
    assert draft.stamp == stamp(1_000)


def test_a_batch_spans_at_most_ten_minutes() -> None:
    s = new()
    s.add("cpu", (1.0, 2.0), stamp(0))
    assert s.add("cpu", (1.0, 2.0), stamp(limits.BATCH_SPAN_MS_MAX)) == []
    (draft,) = s.add("cpu", (1.0, 2.0), stamp(limits.BATCH_SPAN_MS_MAX + 1))
    assert len(draft.rows) == 2


@pytest.mark.parametrize("fields", [1, 8, 64])
def test_a_full_batch_of_the_worst_numbers_passes_the_codec(fields: int) -> None:
    rng = random.Random(7)
    s = new(fields)
    full: list[BatchDraft] = []
    row = 0
    while not full:
        values = [-rng.random() * 10.0 ** rng.randint(-300, 14) for _ in range(fields)]
        full = s.add("cpu", values, stamp(row))
        row += 1
    payload, content_type = telemetry.encode(full[0].numbered(LIFE, 1, telemetry.GENESIS))
    decoded = telemetry.decode(payload, content_type)
    assert isinstance(decoded, Batch)
    assert len(decoded.rows) == row == sampler.rows_max(fields)
