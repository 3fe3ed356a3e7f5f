"""The fault run of uploads: device, server and broker are killed again and again while files are on their way, their
bytes are changed on the server's disk, the disk fills and fails; then every file is looked for.

``python -m tests.faults.uploads --kills 1000 --seed 1 --report run.json``

Exit code 0: every file is kept byte for byte, and receipted, and nothing was sent in vain but what the faults cost.
With ``--control`` the server breaks a promise, and 0 means that this was caught. A kill takes no power away: what a
disk forgets that did not sync is played by ``early-states`` and by the bytes that are changed.
"""

import argparse
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from broker_config import limits
from tests.faults import schedule
from tests.faults.carry_out import pause, strike
from tests.faults.programs import why_no_disks
from tests.faults.schedule import Kind, Step, Target
from tests.faults.upload_rig import SETTINGS, UploadRig, settings_of
from tests.faults.upload_verdict import Evidence, Verdict, judge

KIB: Final = limits.KIB
EACH_FAULT_KILLS: Final = 12
"""Each fault of the disk comes once for so many kills."""
FILE_BYTES: Final = {64 * KIB: 0.4, 700 * KIB: 0.4, 3_000 * KIB: 0.2}
"""Up to so many bytes, and how often."""
WAITING_FILES_MAX: Final = 6
FAULT_S: Final = 1.0
PART_S_MAX: Final = 0.4
CONTROL_LINK_BYTES_S: Final = 1e6
"""So slow that most kills find a file half told of: on a fast link it is whole in the same moment."""
CORRUPT_S_MAX: Final = 120.0
DRAIN_S_MAX: Final = 180.0
FILL_SHARE: Final = 0.6
"""Of the evidence disk; files are made smaller beyond it."""


class Disk(StrEnum):
    """What happens to the server's disk."""

    CORRUPTED = "corrupted"
    FULL = "full"
    FAILING = "failing"


class Control(StrEnum):
    """A server that must be caught."""

    EARLY_STATES = "early-states"
    EARLY_RECEIPTS = "early-receipts"


MODULES: Final = {
    Control.EARLY_STATES: "tests.faults.early_states",
    Control.EARLY_RECEIPTS: "tests.faults.early_evidence_receipts",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found."""

    seed: int
    control: str | None
    seconds: float
    kills: int
    faults: dict[str, int]
    spoiled_files: int
    rejects: dict[str, int]
    skipped: dict[str, str]
    verdict: Verdict
    passed: bool

    def as_json(self) -> str:
        """Everything."""
        return json.dumps(asdict(self), indent=2)

    def as_text(self) -> str:
        """The same for people."""
        verdict = self.verdict
        rows = [
            ("seed", self.seed),
            ("seconds", round(self.seconds)),
            ("processes killed", self.kills),
            *((f"disk {name}", count) for name, count in sorted(self.faults.items()) if name in set(Disk)),
            ("files spoiled on the way", self.spoiled_files),
            ("files made", verdict.files),
            ("bytes", verdict.bytes),
            ("kept byte for byte", verdict.kept),
            ("receipted", verdict.receipted),
            ("sent in vain, bytes", verdict.wasted_bytes),
            ("excused by the faults, bytes", verdict.excused_bytes),
            ("told durable and lost, chunks", verdict.taken_back),
            *((f"turned away for now: {code}", count) for code, count in sorted(self.rejects.items())),
            *((f"skipped {name}", why) for name, why in self.skipped.items()),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        lines += ["", *(f"WRONG: {each}" for each in verdict.wrong[:20])]
        return "\n".join([*lines, "passed" if self.passed else "FAILED"])


def plan(seed: int, kills: int, faults: Sequence[Disk]) -> list[Step | Disk]:
    """Just *kills* processes killed, the disk's faults strewn among them. The same arguments give the same steps."""
    rng = random.Random(f"{seed} disks")
    steps: list[Step | Disk] = list(schedule.plan(seed, kills, [Kind.KILL, Kind.KILL_AND_WIPE]))
    for fault in faults:
        for _ in range(max(1, kills // EACH_FAULT_KILLS)):
            steps.insert(rng.randint(0, len(steps)), fault)
    return steps


class Run:
    """One run over a rig."""

    def __init__(self, rig: UploadRig, seed: int) -> None:
        self._rig = rig
        self._rng = random.Random(f"{seed} run")
        self.kills = 0
        self.spoiled: set[str] = set()
        self.excused_bytes = 0

    def do(self, step: Step | Disk) -> None:
        """Make files, then let it happen."""
        self._make()
        match step:
            case Step():
                pause(min(step.pause_s, 0.5))
                self._kill(step)
            case Disk.CORRUPTED:
                self._corrupt()
            case Disk.FULL:
                self._fill()
            case Disk.FAILING:
                self._fail()

    def _make(self) -> None:
        rig = self._rig
        waiting = len(rig.made) - len(rig.receipted()) if rig.made else 0
        used = sum(made.size for made in rig.made)
        for _ in range(self._rng.randint(1, 3) if waiting < WAITING_FILES_MAX else 0):
            (largest,) = self._rng.choices(tuple(FILE_BYTES), tuple(FILE_BYTES.values()))
            size = self._rng.randint(1, largest)
            if rig.evidence_disk is not None and used + size > FILL_SHARE * rig.evidence_disk_bytes:
                size = self._rng.randint(1, 4 * KIB)
            used += size
            if self._rng.random() < 0.4:
                rig.record(f"rec-{len(rig.made) // 40:04d}", size)
            else:
                rig.make(size, file_class=self._rng.choice(["snapshots", "logs"]))

    def _kill(self, step: Step) -> None:
        rig = self._rig
        self._wait_for_a_part()
        # what was under way when it died; once for each process, because each can lose it again
        self._excuse(len(step.targets))
        strike(rig, step, rig.agent.kill)
        self.kills += len(step.targets)
        if step.settle:
            rig.wait(lambda: rig.api.linked, "the server serves", rig.server, rig.agent)
            pause(self._rng.uniform(0, 1.0))

    def _wait_for_a_part(self) -> None:
        """A file is on its way, if one is to be: most deaths are to come in the middle of something."""
        deadline_s = time.monotonic() + PART_S_MAX
        while not self._rig.incoming() and time.monotonic() < deadline_s:
            pause(0.01)
        pause(self._rng.uniform(0, PART_S_MAX))

    def _excuse(self, times: int) -> None:
        window = self._rig.upload_tap.window_bytes
        self.excused_bytes += times * max(window, limits.CHUNK_BYTES_MAX)

    def _corrupt(self) -> None:
        """While a file is on its way: another one is made until one was caught there."""
        rig = self._rig
        deadline_s = time.monotonic() + CORRUPT_S_MAX
        while time.monotonic() < deadline_s:
            made = rig.make(2_000 * KIB)
            while made.name not in rig.receipted() and time.monotonic() < deadline_s:
                if any(_is_half(path, made.size) for path in rig.incoming()):
                    before = {path.stem for path in rig.incoming()}
                    rig.corrupt(self._rng)
                    self.spoiled |= before
                    self.excused_bytes += sum(8 * limits.CHUNK_BYTES_MAX for _ in before)
                    return
                pause(0.005)
        raise AssertionError(f"no file was caught on its way within {CORRUPT_S_MAX} s")

    def _fill(self) -> None:
        disk = self._rig.evidence_disk
        assert disk is not None
        self._excuse(2)
        disk.fill()
        pause(FAULT_S)
        disk.free()

    def _fail(self) -> None:
        self._excuse(2)
        self._rig.fail_disk(on=True)
        pause(FAULT_S)
        self._rig.fail_disk(on=False)

    def drain(self) -> None:
        """Everything heals, and every file gets its receipt."""
        rig = self._rig
        rig.fail_disk(on=False)
        rig.close_recordings()
        if not rig.server.running:
            rig.server.kill()
            rig.server.start()
        rig.wait(lambda: rig.api.linked, "the server serves", rig.server, rig.agent)
        rig.wait(rig.uploaded, "every file is receipted", rig.agent, rig.server, seconds_max=DRAIN_S_MAX)
        rig.wait(rig.entered, "every file is entered", rig.agent, rig.server)


def run(
    directory: Path,
    *,
    seed: int,
    kills: int,
    control: Control | None = None,
    disks: bool = True,
    verbose: bool = False,
) -> Report:
    """Lay out a system in *directory*, let everything happen, and judge what is left."""
    skipped = {}
    faults = [Disk.CORRUPTED, Disk.FAILING]
    if disks and (why := why_no_disks()) is None:
        faults.append(Disk.FULL)
    elif disks and why:
        skipped[Disk.FULL.value] = why
    settings = SETTINGS
    if control is not None:
        faults, settings = [Disk.CORRUPTED], settings_of(MODULES[control])
    steps = plan(seed, kills, faults)
    if control is Control.EARLY_STATES:
        settings = replace(settings, link_bytes_s=CONTROL_LINK_BYTES_S)
        steps = [Step(Kind.KILL, (Target.SERVER,), pause_s=0.3) for _ in range(kills)]
    began_s = time.monotonic()
    with UploadRig(directory, settings, disks=Disk.FULL in faults, seed=seed, kills=kills) as rig:
        rig.run()
        doing = Run(rig, seed)
        for at, step in enumerate(steps, start=1):
            if verbose:
                name = step.name if isinstance(step, Step) else step.value
                print(f"{time.monotonic() - began_s:7.1f} s  {at}/{len(steps)}  {name}", flush=True)
            doing.do(step)
        doing.drain()
        verdict = judge(evidence(rig, doing))
        rejects = dict(rig.upload_tap.heard().rejects)
    return Report(
        seed=seed,
        control=None if control is None else control.value,
        seconds=time.monotonic() - began_s,
        kills=doing.kills,
        faults=dict(Counter(step.value for step in steps if not isinstance(step, Step))),
        spoiled_files=len(doing.spoiled),
        rejects=rejects,
        skipped=skipped,
        verdict=verdict,
        passed=verdict.good if control is None else not verdict.good,
    )


def evidence(rig: UploadRig, doing: Run) -> Evidence:
    """What the run left behind."""
    heard = rig.upload_tap.heard()
    return Evidence(
        made=rig.made,
        kept={made.sha256: _digest(rig.stored(made.sha256)) for made in rig.made},
        entered=rig.pieces(),
        receipted=rig.receipted(),
        taken_back=dict(heard.taken_back),
        damaged=doing.spoiled,
        again_bytes=heard.bytes_again,
        excused_bytes=doing.excused_bytes,
    )


def _is_half(path: Path, size: int) -> bool:
    """Whether it is the file of that size, and half of it has come."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return found.st_size == size and size // 2 < found.st_blocks * 512


def _digest(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12, help="processes killed in all")
    parser.add_argument("--seed", type=int, help="of every choice; printed; random if not given")
    parser.add_argument("--report", type=Path, help="a file for the JSON")
    parser.add_argument("--control", type=Control, choices=list(Control), help="a server that must be caught")
    parser.add_argument("--keep", type=Path, help="a directory for the system's files, which then stay")
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    seed = told.seed if told.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch:
        directory = told.keep or Path(scratch) / "rig"
        report = run(directory, seed=seed, kills=told.kills, control=told.control, verbose=True)
    print(report.as_text())
    if told.report is not None:
        told.report.write_text(report.as_json() + "\n", encoding="utf-8")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
