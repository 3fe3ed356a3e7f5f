"""Obeys one order and tells each effect on stdout; ends itself like a power cut at a step of it.

python -m tests.edge_agent.obeyer COUNTERS COUNTER STEP
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from broker_config import device_classes
from broker_config.messages import CommandStatus
from broker_config.signing import Command, Kind
from edge_agent.adapters.counters import Counters
from edge_agent.commanding import Commands
from edge_agent.commands import Outcome
from edge_agent.journal import Data
from edge_agent.journal import Kind as Noted
from edge_agent.obeying import Order
from edge_agent.orders import Orders, Times
from tests.orders import CAR, NOW_MS, ROOTS, claims, command, order


class Journal:
    def __init__(self, step: str) -> None:
        self._step = step

    def note(self, kind: Noted, data: Data) -> None:
        os.write(1, f"{kind} {data.get('reason', '')}\n".encode())
        cut(kind.value, self._step)

    def seal(self) -> None:
        cut("seal", self._step)


def cut(step: str, at: str) -> None:
    if step == at:
        os.kill(os.getpid(), signal.SIGKILL)


async def identify(command: Command) -> Outcome:
    cut("handler", sys.argv[3])
    return Outcome()


async def main(path: Path, counter: int, step: str) -> None:
    order_id = f"{counter:016x}"

    async def right(order: Order) -> frozenset[str]:
        return order.keyids

    over = asyncio.Event()

    def tell(status: CommandStatus) -> None:
        # at the start it tells what was interrupted; the order's own end is behind it
        if status.state in {"done", "refused", "failed"} or status.reason == "replayed":
            over.set()

    counters, journal = Counters(path, lambda name: cut(name, step)), Journal(step)
    commands = Commands(
        device_classes.load("host"),
        frozenset({"identify"}),
        lambda: {"identify": identify},
        counters,
        journal=journal,
        tell=tell,
        boot="b" * 16,
        mono_ms=lambda: 0,
        now_ms=lambda: NOW_MS + 1_000,
    )
    orders = Orders(
        CAR,
        ROOTS,
        commands,
        counters,
        journal=journal,
        tell=tell,
        times=lambda: Times(0, NOW_MS + 1_000, NOW_MS),
        check=right,
        penalty_s=0,
    )
    orders.turn()
    orders.told(Kind.COMMAND, order(claims(command(order_id=order_id), counter=counter)))
    running = asyncio.create_task(orders.run())
    await over.wait()
    running.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
