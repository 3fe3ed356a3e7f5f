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
        (4, 300, 19),  # a small site is as quick as it was
        (2_600, 300, 12_234),
        (10_000, 300, 47_053),
        (25_000, 300, 117_631),
        (10_000, 10, limits.RECONNECT_SPREAD_MS_MAX),
    ],
)
def test_the_spread_follows_from_the_devices_and_the_rate(devices: int, a_second_max: int, spread_ms: int) -> None:
    assert reconnects.spread_ms(devices, a_second_max=a_second_max) == spread_ms


@pytest.mark.parametrize(("devices", "kept"), [(25_503, True), (25_504, False)])
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
    ("said_ms", "before_ms", "now_ms", "news"),
    [
        (0, 0, 18, False),
        (0, 0, 100, False),
        (0, 0, 101, True),
        (10_000, 11_000, 12_500, False),  # it grows, and has not grown enough
        (10_000, 12_000, 12_501, True),
        (10_000, 12_400, 12_400, True),  # it has grown, and grows no more
        (10_000, 12_370, 12_400, True),
        (10_000, 10_200, 10_200, False),
        (10_000, 9_700, 9_700, True),
        (10_000, 10_000, 10_000, False),
    ],
)
def test_a_spread_is_said_again_in_steps_while_it_grows_and_more_exactly_then(
    said_ms: int, before_ms: int, now_ms: int, news: bool
) -> None:
    assert reconnects.is_news(said_ms, before_ms, now_ms) is news


@pytest.mark.parametrize("devices", [1_000, 2_000, 10_000, 20_000])
def test_while_a_fleet_comes_few_words_are_needed_and_in_the_end_they_are_true(devices: int) -> None:
    said, before, words = 0, 0, 0
    for born in (*range(0, devices, 225), devices, devices, devices):
        now = reconnects.spread_ms(born, a_second_max=300)
        if reconnects.is_news(said, before, now):
            said, words = now, words + 1
        before = now
    assert said == pytest.approx(reconnects.spread_ms(devices, a_second_max=300), rel=reconnects.DIFFERS_SHARE)
    assert words < 25
