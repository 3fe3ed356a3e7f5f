"""A program that commits, seals, and is a sink, until it kills itself: ``python reader.py FILE FAILPOINT``.

It writes ``stored N`` when a commit has returned, and ``told N M ...`` of what a sink would have by now; both before
the store hears that the sink has it.
"""

import os
import signal
import sys
from pathlib import Path

from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.feed import Item, Readings
from tests.fleet_server.projection.rig import SINK, filled_store
from tests.fleet_server.store.fleet import LATE_MS, START_MS, batch, group, held

PASSES = 3
GROUPS_MAX = 10_000
SLOW_EVERY = 4


def say(kind: str, numbers: list[int]) -> None:
    sys.stdout.write(f"{kind} {' '.join(map(str, numbers))}\n")
    sys.stdout.flush()


def seqs(items: list[Item]) -> list[int]:
    return [item.seq for item in items if isinstance(item, Readings)]


def project(store: SqliteStore, now_ms: int) -> None:
    commits = store.feed.commits(SINK, records_max=2, now_ms=now_ms)
    say("told", seqs(list(commits.items)))
    store.feed.advance(SINK, commits, (), now_ms=now_ms)
    places = store.feed.stale(SINK, places_max=2)
    say("told", seqs([item for place in places for item in store.feed.read(place)]))
    store.feed.written(SINK, places, (), now_ms=now_ms)


def main(path: Path, failpoint: str) -> None:
    passes = 0

    def kill_here(name: str) -> None:
        nonlocal passes
        passes += name == failpoint
        if passes == PASSES:
            os.kill(os.getpid(), signal.SIGKILL)

    probe, _ = filled_store(path)
    first = max([0, *(n for numbers in held(probe.restore()).values() for n in numbers)]) + 1
    probe.close()
    store, token = filled_store(path, kill_here)
    for n in range(first, first + GROUPS_MAX):
        store.commit(group([("car-1", batch(n, START_MS + n * 600_000))]), token=token)
        say("stored", [n])
        now_ms = LATE_MS + n * 1_000_000
        if n % SLOW_EVERY:
            project(store, now_ms)
        else:
            store.seal(records_max=3, now_ms=now_ms + 500_000 * (n // SLOW_EVERY % 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
