"""Kills a projecting server at random moments while its sink is at fault; judges by the points the sink holds.

``python -m tests.faults.projection --kills 100 --seed 7``: a program commits batches, seals them and projects them to
a time-series server that refuses, hangs up, is slow, and dies after it has stored. The program is killed again and
again. When all is healed, the points there are exactly those of the batches in the store; then the server loses
everything, and a rebuild brings back the same. ``--control forgets`` is a sink that says it has what it threw away:
then the run passes if that is seen.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker_config.telemetry import Batch, encode
from fleet_server.projection.projector import Projector
from tests.faults.programs import ROOT
from tests.fleet_server.projection.far_server import FAULTS, FarServer, Mode, far_server
from tests.fleet_server.projection.rig import SINK, Points, expected, filled_store, projector, to
from tests.fleet_server.store.fleet import BOOT, LATE_MS, START_MS, batch, group, held, opened

DEVICES: Final = ("car-1", "car-2", "cam-3")
FORGETS: Final = "forgets"
LIVES_S: Final = (0.0, 1.2)
"""Of a process, once it is at work."""
CLOCK_FACTOR: Final = 1_000
"""The program's clock goes so much faster, so that a sink is now and then too slow to be waited for."""
PAUSE_S_MAX: Final = 0.05
COMMIT_PAUSE_S_MAX: Final = 0.01
SEAL_EVERY: Final = 5
UNSET_DEVICE: Final = "car-2"
UNSET_EVERY: Final = 7
POINTS_A_POST: Final = 1_000
DRAIN_S_MAX: Final = 120.0


def record(seed: int, device: str, seq: int) -> Batch:
    """The batch of that number; always the same."""
    rng = random.Random(f"{seed}/{device}/{seq}")
    dt = sorted(rng.randrange(50_000) for _ in range(rng.randrange(1, 60)))
    rows: list[list[float | None]] = [[rng.choice((None, round(rng.gauss(0, 9), 2))), rng.random()] for _ in dt]
    return batch(seq, START_MS + seq * 60_000, mono=seq * 60_000, boot=BOOT, dt=dt, rows=rows)


def as_sent(device: str, made: Batch) -> Batch:
    """Every seventh of one device was sent while it did not know the time, and is the same once it is mapped.

    Of one only: an hour with such a batch is written again when it is sealed, which would hide what was lost before.
    """
    if device != UNSET_DEVICE or made.seq % UNSET_EVERY:
        return made
    return batch(
        made.seq,
        made.mono + 1_000,
        mono=made.mono,
        boot=made.boot,
        src="none",
        dt=made.dt,
        rows=made.rows,
    )


# the program


def program(path: Path, url: str, seed: int, *, commits: bool) -> None:
    """Commit, seal and project until killed; without *commits*, seal and project until there is nothing left."""
    store, token, restored = opened(path)
    store.feed.add_sink(SINK)
    started_s = time.monotonic()

    def now_ms() -> int:
        return LATE_MS + int((time.monotonic() - started_s) * 1000 * CLOCK_FACTOR)

    def commit_and_seal() -> None:
        rng = random.Random()
        first = max((numbers[-1] for numbers in held(restored).values()), default=0) + 1
        for seq in range(first, sys.maxsize):
            made = [(device, as_sent(device, record(seed, device, seq))) for device in DEVICES]
            store.commit(group(made, now_ms()), token=token)
            if seq % SEAL_EVERY == 0:
                store.seal(records_max=rng.choice((1, 20, 1_000)), now_ms=now_ms())
            time.sleep(rng.uniform(0, COMMIT_PAUSE_S_MAX))

    async def pause(seconds: float) -> None:
        await asyncio.sleep(min(seconds, PAUSE_S_MAX))

    one = projector(store.feed, to(url), sleep=pause, points_max=POINTS_A_POST)
    one._now_ms = now_ms
    print("at work", flush=True)
    if commits:
        threading.Thread(target=commit_and_seal, daemon=True).start()
        asyncio.run(one.run())
    else:
        asyncio.run(_drained(one))
        while store.seal(records_max=1_000, now_ms=now_ms()):
            pass
        asyncio.run(_drained(one))


async def _drained(one: Projector) -> None:
    await one.drain()


# the run


@dataclass(slots=True)
class Report:
    """What a run found. ``missing``/``other``: points that are not there, and that are there and should not be."""

    seed: int
    kills: int
    batches: int
    points: int
    lines: int
    answers: Counter[int]
    missing: int
    other: int
    after_rebuild: int
    """Points that differ after the sink lost everything and was filled again."""

    @property
    def good(self) -> bool:
        return not (self.missing or self.other or self.after_rebuild) and self.points > 0


async def run(directory: Path, *, seed: int, kills: int, control: str | None = None) -> Report:
    """Carry it out."""
    rng, path = random.Random(seed), directory / "s.db"
    filled_store(path)[0].close()
    async with far_server(FarServer()) as far:
        for _ in range(kills):
            far.modes.clear()
            far.then(rng.choices((Mode.GOOD, *FAULTS), k=rng.randrange(100, 200)))
            process = await _started(path, far.url, seed, commits=True)
            assert process.stdout is not None
            await process.stdout.readline()
            await asyncio.sleep(rng.uniform(*LIVES_S))
            assert process.returncode is None, "the program ended by itself"
            process.kill()
            await process.wait()
        _commit_more(path, seed)
        if control is not None:  # of the last process, because a next one would write its last seconds again
            far.always = Mode.FORGETS
        await _drain(far, path, seed)
        far.always = Mode.GOOD
        want, batches = _want(path, seed)
        report = Report(
            seed=seed,
            kills=kills,
            batches=batches,
            points=len(far.points),
            lines=far.lines,
            answers=Counter(far.answers),
            missing=sum(far.points.get(name) != fields for name, fields in want.items()),
            other=len(far.points.keys() - want.keys()),
            after_rebuild=0,
        )
        far.points.clear()
        store, _ = filled_store(path)
        store.feed.mark_stale(SINK, from_ms=0, now_ms=LATE_MS)
        store.close()
        await _drain(far, path, seed)
        report.after_rebuild = sum(far.points.get(name) != want.get(name) for name in far.points.keys() | want.keys())
    return report


async def _started(path: Path, url: str, seed: int, *, commits: bool) -> asyncio.subprocess.Process:
    flags = ["--commits"] if commits else []
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.projection", "--program", str(path), url, "--seed", str(seed), *flags,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _drain(far: FarServer, path: Path, seed: int) -> None:
    far.modes.clear()
    process = await _started(path, far.url, seed, commits=False)
    await asyncio.wait_for(process.communicate(), DRAIN_S_MAX)
    assert process.returncode == 0, f"the program ended with {process.returncode}"


def _commit_more(path: Path, seed: int) -> None:
    """A batch of each device that no process can have projected yet."""
    store, token, restored = opened(path)
    seq = max((numbers[-1] for numbers in held(restored).values()), default=0) + 1
    store.commit(group([(device, record(seed, device, seq)) for device in DEVICES], LATE_MS), token=token)
    store.close()


def _want(path: Path, seed: int) -> tuple[Points, int]:
    """The points of every batch that the store holds."""
    store, _, restored = opened(path)
    numbers = held(restored)
    store.close()
    made = [(key[0], record(seed, key[0], seq)) for key, seqs in numbers.items() for seq in seqs]
    for _, one in made:
        encode(one)  # what the generator makes is what a device may send
    return expected(made), len(made)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, help="of every choice; printed; random if not given")
    parser.add_argument("--control", choices=[FORGETS], help="a sink that must be caught")
    parser.add_argument("--program", nargs=2, metavar=("FILE", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--commits", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    seed = told.seed if told.seed is not None else random.SystemRandom().randrange(2**32)
    if told.program:
        program(Path(told.program[0]), told.program[1], seed, commits=told.commits)
        return 0
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        report = asyncio.run(run(Path(scratch), seed=seed, kills=told.kills, control=told.control))
    print(report)
    return 0 if report.good == (told.control is None) else 1


if __name__ == "__main__":
    sys.exit(main())
