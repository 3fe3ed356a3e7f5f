"""How long a spread has to be for a stated rate, and when it is worth a message to every device."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import limits
from fleet_server.cli.simulate.gate import peak_a_second
from fleet_server.telemetry import reconnects


@pytest.mark.parametrize(
    ("devices", "a_second_max", "spread_ms"),
    [
        (0, 300, 0),
        (4, 300, 18),  # a small site is as quick as it was
        (2_600, 300, 11_556),
        (10_000, 300, 44_445),
        (26_000, 300, 115_556),
        (10_000, 10, limits.RECONNECT_SPREAD_MS_MAX),
    ],
)
def test_the_spread_follows_from_the_devices_and_the_rate(devices: int, a_second_max: int, spread_ms: int) -> None:
    assert reconnects.spread_ms(devices, a_second_max=a_second_max) == spread_ms


@pytest.mark.parametrize(("devices", "kept"), [(27_000, True), (27_001, False)])
def test_a_rate_that_the_longest_spread_cannot_keep_is_known(devices: int, kept: bool) -> None:
    assert reconnects.is_kept(devices, a_second_max=300) is kept


@given(a_second_max=st.integers(1, 100_000))
def test_the_aim_is_below_the_rate_by_the_scatter(a_second_max: int) -> None:
    aim = reconnects.aim(a_second_max)
    assert 0 < aim < a_second_max
    assert aim + reconnects.DEVIATIONS * aim**0.5 == pytest.approx(a_second_max)


@pytest.mark.parametrize(("devices", "a_second_max"), [(10_000, 300), (2_000, 100), (500, 20), (15_000, 1_000)])
def test_even_draws_from_the_spread_peak_below_the_rate(devices: int, a_second_max: int) -> None:
    rng = random.Random(1)
    spread_s = reconnects.spread_ms(devices, a_second_max=a_second_max) / 1000
    for _ in range(5):
        assert peak_a_second(rng.uniform(0, spread_s) for _ in range(devices)) <= a_second_max


@pytest.mark.parametrize(
    ("said_ms", "now_ms", "news"),
    [
        (0, 18, False),
        (0, 499, False),
        (0, 500, True),
        (1_000, 1_400, False),
        (10_000, 12_499, False),
        (10_000, 12_500, True),
        (10_000, 7_500, True),
        (10_000, 10_000, False),
    ],
)
def test_a_spread_is_said_again_when_it_differs_by_a_quarter(said_ms: int, now_ms: int, news: bool) -> None:
    assert reconnects.is_news(said_ms, now_ms) is news
