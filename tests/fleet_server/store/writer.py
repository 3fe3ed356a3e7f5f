"""A program that commits, seals and merges until it is killed: ``python writer.py FILE [FAILPOINT]``.

Group *n* is number *n* of each of DEVICES; a line with *n* is written only when its commit has returned. With
FAILPOINT it kills itself there, when it comes by for the third time.
"""

import os
import signal
import sys
from pathlib import Path

from fleet_server.adapters.sqlite_access import nothing
from tests.fleet_server.store.fleet import LATE_MS, START_MS, batch, group, opened

DEVICES = ("car-1", "car-2", "car-3")
SEAL_EVERY = 3
GROUPS_MAX = 100_000
PASSES = 3


def main(path: Path, failpoint: str | None) -> None:
    passes = 0

    def kill_here(name: str) -> None:
        nonlocal passes
        if name == failpoint:
            passes += 1
            if passes == PASSES:
                os.kill(os.getpid(), signal.SIGKILL)

    store, token, restored = opened(path, kill_here if failpoint else nothing)
    numbers = [high for row in restored.ledger for _, high in row.held]
    numbers += [int(key.rsplit("/", 1)[1]) for commit in restored.unsealed for key in commit.keys]
    first = max(numbers, default=0) + 1
    for n in range(first, first + GROUPS_MAX):
        store.commit(group([(device, batch(n, START_MS + n * 1000)) for device in DEVICES]), token=token)
        sys.stdout.write(f"{n}\n")
        sys.stdout.flush()
        if n % SEAL_EVERY == 0:
            # late enough for each part to be settled, and every second time for the hour to be over
            store.seal(records_max=5, now_ms=LATE_MS + n * 1_000_000 if n % 2 else START_MS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
