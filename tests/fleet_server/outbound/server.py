"""A server's outbound alone, as a program that a test kills: records and delivers until it is ended.

Usage: DATABASE_URL COUNT
"""

import asyncio
import itertools
import random
import ssl
import sys
import time

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.adapters.webhook import WebhookSender
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.delivering import Postman
from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.recording import Recorder
from fleet_server.outbound.subscriptions import Sort


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def main(url: str, count: int) -> None:
    outbox = SqlOutbox(database.connect(url))
    recorder = Recorder(outbox, Bell(), now_ms=now_ms)
    senders = {Sort.WEBHOOK: WebhookSender(site="5e" * 32, security=ssl.create_default_context())}
    postman = Postman(recorder, senders, set(), now_ms=now_ms, rng=random.Random())
    recorder.on_record = postman.news
    task = asyncio.create_task(postman.run())
    for n in itertools.islice(itertools.count(), count):
        await recorder.record([News(now_ms(), Kind.DEVICE_CONNECTED, f"cam-{n}")])
        print("recorded", flush=True)
        await asyncio.sleep(0)
    await task


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
