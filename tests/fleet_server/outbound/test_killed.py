"""A server that is killed at any moment delivers at least once, and loses nothing that was recorded."""

import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.subscriptions import SqlSubscriptions
from fleet_server.outbound.retries import State
from fleet_server.outbound.store import Filter
from fleet_server.outbound.subscriptions import Choice, Sort, Subscription
from tests.fleet_server.outbound.receiver import Answer, missing, receiving
from tests.fleet_server.outbound.rig import SECRET

KILLS = 6
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("seed", [1])
async def test_a_server_killed_again_and_again_loses_nothing(engine: Engine, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    database.migrate(engine)
    subscriptions, feed = SqlSubscriptions(engine), SqlFeed(engine)

    def now_and_then(_number: int, _data: object) -> Answer:
        return Answer(reset=rng.random() < 0.05)

    async with receiving(SECRET, now_and_then) as receiver:
        subscriptions.add(Subscription("w0001", Sort.WEBHOOK, receiver.url, SECRET, Choice(), "", "", 1, 1))
        said = 0
        for _ in range(KILLS):
            said += await _run_and_kill(engine, receiver.asked, rng)
        # the last one is let finish
        process = await _start(engine, 5)
        recorded: list[int] = []
        async with asyncio.timeout(60):
            while not recorded or missing(recorded, receiver) or _waiting(subscriptions):
                recorded = [each.id for each in feed.after(0, Filter(), rows_max=100_000).happenings]
                await asyncio.sleep(0.05)
        process.kill()
        await process.wait()
    assert receiver.faults == []
    assert len(recorded) >= said + 5  # what it said it had recorded is there
    assert missing(recorded, receiver) == set()
    print(f"recorded {len(recorded)}, asked {len(receiver.asked)}, twice {len(receiver.asked) - len(recorded)}")


def _waiting(subscriptions: SqlSubscriptions) -> bool:
    return bool(subscriptions.deliveries("w0001", before=None, state=State.PENDING, rows_max=1))


async def _start(engine: Engine, count: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fleet_server.outbound.server",
        engine.url.render_as_string(hide_password=False),
        str(count),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


async def _run_and_kill(engine: Engine, asked: Sequence[object], rng: random.Random) -> int:
    """Kill it after it has asked so often; how many it said that it had recorded."""
    until = len(asked) + rng.randint(1, 25)
    process = await _start(engine, 100_000)
    assert process.stdout is not None
    said = 0
    async with asyncio.timeout(30):
        while len(asked) < until:
            said += bool(await process.stdout.readline())
    process.kill()
    await process.wait()
    return said
