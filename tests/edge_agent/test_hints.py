"""A hint that there are newer keys starts a child sooner; a server that lies starts few."""

import asyncio

import pytest

from edge_agent.renewing import HINTS_AT_ONCE, Hint


async def test_a_hint_ends_the_wait_and_lies_do_so_a_few_times_only() -> None:
    hint = Hint(lambda low, _high: low)
    for _ in range(HINTS_AT_ONCE):
        hint.give(120.0)
        async with asyncio.timeout(5):
            await hint.within(3600.0)
    hint.give(120.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await hint.within(3600.0)


async def test_no_hint_no_haste_and_the_wait_ends_by_itself() -> None:
    hint = Hint(lambda low, _high: low)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await hint.within(3600.0)
    async with asyncio.timeout(5):
        await hint.within(0.01)


async def test_a_fleet_spreads_over_what_the_server_states() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    hint = Hint(uniform)
    hint.give(45.0)
    await hint.within(3600.0)
    assert asked == [(0.0, 45.0)]
