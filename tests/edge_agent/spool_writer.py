"""Stores numbered batches in a spool and tells each number once it is durable; ends itself like a power cut at the
n-th step of a transaction.

python -m tests.edge_agent.spool_writer SPOOL STEP N BYTES_MAX
"""

import os
import signal
import sys
from pathlib import Path

from broker_config.device_classes import SpoolClass
from broker_config.messages import Receipt
from broker_config.telemetry import Clock
from edge_agent.adapters.sqlite import SqliteSpool
from edge_agent.clock import Stamp
from edge_agent.sampler import BatchDraft

STREAMS = {"cpu": SpoolClass.BULK, "memory": SpoolClass.NORMAL, "journal": SpoolClass.KEEP}
ROUNDS = 40


def draft(stream: str, number: int) -> BatchDraft:
    """A batch that tells which one it is."""
    return BatchDraft(stream, "b" * 16, Stamp(0, number, Clock("none", 0, 0)), ("x",), [0], [[float(number)]])


def main(path: Path, step: str, at: int, bytes_max: int) -> None:
    seen = 0

    def failpoint(name: str) -> None:
        nonlocal seen
        if name == step:
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    spool = SqliteSpool(path, streams=STREAMS, bytes_max=bytes_max, new_life="1" * 16, failpoint=failpoint)
    for number in range(ROUNDS):
        stored = spool.store([draft("cpu", number), draft("memory", number)], dropped={})
        for key in stored.keys:
            os.write(1, f"{key} {number}\n".encode())
        if number % 5 == 4:
            told = Receipt(1, "memory", "1" * 16, spool.ledgers()[1].last - 1, (), (), 1)
            spool.mark(told, now_ms=None, new_life="2" * 16)
        if number == ROUNDS // 2:
            conflict = Receipt(1, "cpu", "1" * 16, 1, (), ((1, 1),), 2)
            spool.mark(conflict, now_ms=None, new_life="2" * 16)
    spool.close(clean=True, floor_ms=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
