"""The restore drill: a site is backed up while it runs, an hour's readings and files later all of it is lost, and the
backup is put back. What devices still hold must be there again, and what they do not must be named.

``python -m tests.faults.restore --devices 3 --report drill.json``

Real server, signer, Mosquitto and agents; the agents run through all of it. "An hour" is what the devices record
after the backup: the first one's spool is so small that it forgets some of that, as it would in days. Exit code 0:
nothing that a device held is missing, everything that no device holds is named as a gap, nobody enrolled again, and
custody verifies. With ``--control nothing-again`` the restored store goes on in its old epoch, so that devices
believe their receipts and offer no file again, and the second device lost its spool: 0 means that both were caught.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from broker_config.ranges import Ranges
from broker_config.telemetry import CONTENT_JSON, CONTENT_ZLIB, Batch, decode
from edge_agent.adapters.files import SPOOL_NAME
from edge_agent.adapters.sqlite import read_only_ledgers
from fleet_server.cli.server import Json
from tests.commands import run as ran
from tests.commands import told as told_
from tests.faults.api import Api
from tests.faults.programs import ROOT, Program
from tests.servers import accepts, wait_until
from tests.system.fleets import Fleet, is_healthy, running

CLASS: Final = "in_car_terminal"
STREAMS: Final = ("cpu", "memory", "network")
CONTROL: Final = "nothing-again"
FILES_EACH: Final = 2
FILE_BYTES: Final = 200_000
TIGHT_BYTES: Final = 65_536
"""The first device's spool; the least that an agent takes."""
BACK_S_MAX: Final = 90.0
COMMAND_S_MAX: Final = 300.0
CONTENTS: Final = (CONTENT_JSON, CONTENT_ZLIB)
HOUR_MS: Final = 3_600_000

AGENT: Final = """
[spool]
bytes_max = {bytes_max}

[backoff]
s_min = 0.1
s_cap = 1.0

[uploads]
look_s = 0.2
reserve_bytes = 0

[uploads.folders.recordings]
"""
WIRE: Final = """
[[wires]]
stream = "{stream}"
driver = "host.{stream}"
every_s = {every_s}
"""

Place = tuple[str, str, int]
"""Stream, life, number."""


@dataclass(slots=True)
class Seen:
    """What was seen in a device's spool, all the while. ``batches``: the times of each one's rows, ms."""

    batches: dict[Place, tuple[int, ...]] = field(default_factory=dict)
    held: frozenset[Place] = frozenset()
    """At the last look."""

    def look(self, spool: Path) -> None:
        """Whatever is there now."""
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as db,
        ):
            now: set[Place] = set()
            for payload, content in db.execute("SELECT payload, content FROM batch"):
                record = decode(bytes(payload), CONTENTS[content])
                if isinstance(record, Batch) and record.clock.src != "none":  # else the server places it itself
                    place = (record.stream, record.life, record.seq)
                    now.add(place)
                    self.batches[place] = tuple(record.t0 + each for each in record.dt)
            self.held = frozenset(now)


@dataclass(slots=True)
class Report:
    """``held``: batches that devices had when all was lost, and that the backup has not; ``back``: of those, what is
    there again. ``older``: batches that nobody has any more; ``named``: of those, what is named as a gap.
    """

    devices: int
    control: str | None
    backup_s: float = 0.0
    restore_s: float = 0.0
    back_s: float = 0.0
    batches: int = 0
    held: int = 0
    back: int = 0
    older: int = 0
    named: int = 0
    files: int = 0
    files_back: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Nothing is wrong; of a control: what it broke was seen."""
        caught = self.back < self.held and self.files_back < self.files
        return caught if self.control else not self.wrong


@dataclass(slots=True)
class Drill:
    """``site``: its directory, which is lost; ``devices``: their directories, which are not."""

    fleet: Fleet
    signer: Program
    scratch: Path
    names: Sequence[str]
    agents: dict[str, Program] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 -> device."""
    heard: set[str] = field(default_factory=set)
    """Who knows the new epoch."""

    @property
    def api(self) -> Api:
        token = (self.fleet.directory / "server/api-token").read_text("ascii").strip()
        return Api(self.fleet.server.place.url, token)

    def at(self, device: str) -> Path:
        return self.fleet.device_directory(device)

    # a device's life

    def enroll(self, device: str, *, tight: bool) -> None:
        said: Json = {"device_class": CLASS}
        self.fleet.server.send("PUT", f"/v1/devices/{device}/registration", json=said, headers={"If-None-Match": "*"})
        done = self.fleet.enroll(device, self.fleet.claim_again(device))
        assert done.returncode == 0, done.stderr
        file = self.at(device) / "agent.toml"
        text = file.read_text().replace(f'profile = "{CLASS}"', 'profile = "./profile.toml"\nseal_s = 0.1')
        file.write_text(text + AGENT.format(bytes_max=TIGHT_BYTES if tight else 64 * 1024 * 1024))
        wires = "".join(WIRE.format(stream=stream, every_s=0.05 if tight else 0.5) for stream in STREAMS)
        (self.at(device) / "profile.toml").write_text(f'device_class = "{CLASS}"\n{wires}')
        self.agents[device] = self.fleet.agent(device)
        self.seen[device] = Seen()

    def record(self, device: str, seed: int) -> None:
        folder = self.at(device) / "state/files/recordings"
        wait_until(folder.is_dir, f"{device} has its folder")
        rng = random.Random(f"{device} {seed}")
        for number in range(FILES_EACH):
            data = rng.randbytes(FILE_BYTES)
            self.files[hashlib.sha256(data).hexdigest()] = device
            partial = folder / f".{seed}-{number}.new"
            partial.write_bytes(data)
            partial.rename(folder / f"{seed}-{number}.mp4")

    def look(self) -> None:
        for device in self.names:
            self.seen[device].look(self.spool(device))

    def spool(self, device: str) -> Path:
        return self.at(device) / "state" / SPOOL_NAME

    def all_receipted(self) -> bool:
        """Every file that was recorded."""
        for device, files in Counter(self.files.values()).items():
            try:
                with closing(
                    sqlite3.connect(f"{(self.at(device) / 'state/uploads.db').as_uri()}?mode=ro", uri=True)
                ) as db:
                    (count,) = db.execute(
                        "SELECT count(*) FROM upload WHERE kept = 'receipted' AND storage_class = 'logged'"
                    ).fetchone()
            except sqlite3.OperationalError:
                return False
            if count < files:
                return False
        return True

    def epoch_of(self, device: str) -> int:
        return read_only_ledgers(self.spool(device))[1]

    def receipted(self, device: str) -> dict[tuple[str, str], Ranges]:
        return {(each.stream, each.life): each.receipted for each in read_only_ledgers(self.spool(device))[0]}

    # the server's

    def command(self, *arguments: str) -> Mapping[str, object]:
        # a disk that others use takes its time for each file that is to be durable
        done = subprocess.run(
            [sys.executable, "-m", "fleet_server.cli", *arguments, "--json"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{arguments[0]}: {done.stdout}{done.stderr}"
        found: Mapping[str, object] = json.loads(done.stdout)
        return found


def drill(directory: Path, *, devices: int, control: str | None = None) -> Report:
    """Lay a site out in *directory*, lose it, put it back, and judge."""
    report = Report(devices, control)
    with running(directory / "site", "mosquitto") as fleet:
        config = str(fleet.directory / "server/fleet-server.toml")
        signer = Program(
            "signer", [sys.executable, "-m", "fleet_server", "signer", "--config", config], directory / "signer.log"
        )
        signer.start()
        fleet.exit.callback(signer.kill)
        made = Drill(fleet, signer, directory, [f"car-{number}" for number in range(1, devices + 1)])
        for number, device in enumerate(made.names):
            made.enroll(device, tight=number == 0)
            made.record(device, 1)
        wait_until(made.all_receipted, "the first files are receipted", BACK_S_MAX)
        _go_through(made, report)
    return report


def _go_through(made: Drill, report: Report) -> None:
    fleet, root, key = made.fleet, made.scratch / "backups", made.scratch / "backup-key"
    site = fleet.directory
    kept_key = (site / "server/audit.pub").read_text()
    counter = int((site / "server/state/signer.counter").read_text())
    told_("fleet_server.cli", "make-backup-key", str(key))
    in_backup = {device: made.receipted(device) for device in made.names}
    began_s = time.monotonic()
    made.command("backup", str(root), "--site", str(site), "--recipient", f"{key}.pub")
    report.backup_s = time.monotonic() - began_s
    _an_hour(made)
    before = {device: made.epoch_of(device) for device in made.names}
    certificates = {device: (made.at(device) / "device.crt").read_bytes() for device in made.names}
    in_backup |= {device: {} for device in made.names if device not in in_backup}
    # everything of the server, and the broker with it; devices go on
    for program in (fleet.program, made.signer, fleet.broker):
        program.kill()
    made.look()
    shutil.rmtree(site)
    began_s = time.monotonic()
    told = made.command("restore", str(root), "--to", str(site), "--key-file", str(key))
    report.restore_s = time.monotonic() - began_s
    if report.control == CONTROL:
        forgetful = made.names[1]
        made.agents[forgetful].kill()
        for path in made.spool(forgetful).parent.glob(f"{SPOOL_NAME}*"):
            path.unlink()
        made.agents[forgetful].start()
        with closing(sqlite3.connect(site / "server/state/telemetry.db")) as db, db:
            db.execute("UPDATE meta SET value = ? WHERE name = 'store_epoch'", (min(before.values()),))
    began_s = time.monotonic()
    fleet.broker.start()
    wait_until(lambda: accepts(fleet.device_port), "the broker accepts")
    made.signer.start()
    fleet.program.start()
    wait_until(lambda: (_hear(made, before), is_healthy(fleet.server))[1], "the server is healthy", BACK_S_MAX)
    _judge_all(made, report, in_backup, told, kept_key, counter, certificates, before, began_s)


def _an_hour(made: Drill) -> None:
    """One more device, more files, and readings until the first has forgotten some that came after the backup."""
    for device in made.names:
        made.record(device, 2)
    late = f"car-{len(made.names) + 1}"
    made.enroll(late, tight=False)
    made.names = [*made.names, late]
    first = made.seen[made.names[0]]
    made.look()
    begun = set(first.batches)

    def forgotten() -> bool:
        made.look()
        return any(place not in first.held for place in first.batches.keys() - begun)

    wait_until(forgotten, "the first device forgets what came after the backup", BACK_S_MAX)
    wait_until(lambda: made.epoch_of(late) > 0, "the new device is known", BACK_S_MAX)
    wait_until(made.all_receipted, "the second files are receipted", BACK_S_MAX)
    made.look()


def _hear(made: Drill, before: Mapping[str, int]) -> bool:
    """Look at the first device until it knows the new epoch. What it holds then is what it offers: its spool is
    small, and it has meanwhile forgotten more of what it had a receipt for.
    """
    tight, seen = made.names[0], made.seen[made.names[0]]
    if made.epoch_of(tight) == before[tight]:
        seen.look(made.spool(tight))
        return False
    if tight not in made.heard:
        made.heard.add(tight)
        trimmed = {(each.stream, each.life): each.trimmed for each in read_only_ledgers(made.spool(tight))[0]}
        seen.held = frozenset(each for each in seen.held if not _is_in(each, trimmed))
    return all(made.epoch_of(device) > before[device] for device in made.names)


def _judge_all(
    made: Drill,
    report: Report,
    in_backup: Mapping[str, Mapping[tuple[str, str], Ranges]],
    told: Mapping[str, object],
    kept_key: str,
    counter: int,
    certificates: Mapping[str, bytes],
    before: Mapping[str, int],
    began_s: float,
) -> None:
    wrong = report.wrong
    if report.control is None:
        wait_until(lambda: _hear(made, before), "every device hears of the new epoch", BACK_S_MAX)
        wait_until(made.all_receipted, "every file is receipted again", BACK_S_MAX)
    with suppress(TimeoutError):
        seconds = BACK_S_MAX if report.control is None else 15.0
        wait_until(lambda: not _lacking(made, in_backup), "what devices held is there again", seconds)
    report.back_s = time.monotonic() - began_s
    for device in made.names:
        _judge_device(made, device, in_backup[device], report)
        if (made.at(device) / "device.crt").read_bytes() != certificates[device]:
            wrong.append(f"{device}: has another certificate")
        # of one that enrolled after the backup nothing is known, and its certificate is as good as before
        if made.fleet.states(device) != (["active"] if in_backup[device] else []):
            wrong.append(f"{device}: enrolled again: {made.fleet.states(device)}")
    _judge_custody(made, report, kept_key)
    after = int((made.fleet.directory / "server/state/signer.counter").read_text())
    if after <= counter:
        wrong.append(f"the signer counts on at {after}, and was at {counter}")
    if int(str(told["store_epoch"])) <= max(before.values()):
        wrong.append("the store's epoch is not a new one")


def _times(made: Drill, device: str, stream: str) -> frozenset[int]:
    found = made.api.get(f"/v1/devices/{device}/series/{stream}", **_lately())["times_ms"]
    assert isinstance(found, list)
    return frozenset(found)


def _lately() -> dict[str, int]:
    now_ms = time.time_ns() // 1_000_000
    return {"from": now_ms - HOUR_MS, "to": now_ms + HOUR_MS}


def _after(places: Iterable[Place], backup: Mapping[tuple[str, str], Ranges]) -> list[Place]:
    """Those that the backup cannot have."""
    return [
        (stream, life, seq)
        for stream, life, seq in places
        if not any(low <= seq <= high for low, high in backup.get((stream, life), ()))
    ]


def _lacking(made: Drill, in_backup: Mapping[str, Mapping[tuple[str, str], Ranges]]) -> list[Place]:
    found: list[Place] = []
    for device in made.names:
        seen, evicted = made.seen[device], _gaps(made, device, "evicted")
        there = {stream: _times(made, device, stream) for stream in STREAMS}
        found += [
            each
            for each in _after(seen.held, in_backup[device])
            if not set(seen.batches[each]) <= there[each[0]] and not _is_in(each, evicted)
        ]
    return found


def _gaps(made: Drill, device: str, *reasons: str) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Numbers that are not there for one of these *reasons*, by stream and life."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for gap in made.api.pages("/v1/gaps", "gaps", device=device, **_lately()):
        if gap["reason"] in reasons:
            at = (str(gap["stream"]), str(gap["life"]))
            found.setdefault(at, []).append((int(str(gap["first_seq"])), int(str(gap["last_seq"]))))
    return found


def _is_in(place: Place, gaps: Mapping[tuple[str, str], Sequence[tuple[int, int]]]) -> bool:
    return any(low <= place[2] <= high for low, high in gaps.get(place[:2], ()))


def _judge_device(made: Drill, device: str, backup: Mapping[tuple[str, str], Ranges], report: Report) -> None:
    seen = made.seen[device]
    there = {stream: _times(made, device, stream) for stream in STREAMS}
    lost, evicted = _gaps(made, device, "lost"), _gaps(made, device, "evicted")
    report.batches += len(seen.batches)
    later = set(_after(seen.batches, backup))
    for place in seen.batches:
        stored = set(seen.batches[place]) <= there[place[0]]
        named = _is_in(place, lost) or _is_in(place, evicted)
        if stored and named:
            report.wrong.append(f"{device} {place}: it is there, and named as a gap")
        elif place not in later and not stored:
            report.wrong.append(f"{device} {place}: it was receipted before the backup, and is not there")
        elif place in later and place in seen.held and not _is_in(place, evicted):
            report.held += 1
            report.back += stored
            if not stored:
                report.wrong.append(f"{device} {place}: the device held it, and it is not there")
        elif not stored:
            report.older += 1
            report.named += named
            if not named:
                report.wrong.append(f"{device} {place}: nobody has it, and no gap names it")


def _judge_custody(made: Drill, report: Report, kept_key: str) -> None:
    site, wrong = made.fleet.directory, report.wrong
    report.files = len(made.files)
    evidence = site / "server/state/evidence/sha256"
    report.files_back = sum((evidence / sha[:2] / sha[2:4] / sha).is_file() for sha in made.files)
    if report.files_back < report.files:
        wrong.append(f"{report.files - report.files_back} files that devices hold are not there")
    key = made.scratch / "audit.pub"
    key.write_text(kept_key)  # as a witness elsewhere keeps it
    with closing(sqlite3.connect(f"{(site / 'server/state/operators.db').as_uri()}?mode=ro", uri=True)) as db:
        logs = {number for (number,) in db.execute("SELECT DISTINCT log FROM audit_entry")}
    if len(logs) < 2:
        wrong.append(f"expected the log from before and the one from now, got {sorted(logs)}")
    for log in sorted(logs):
        exported = made.scratch / f"audit-{log}.ndjson"
        for arguments in (
            ("audit", "export", str(exported), "--log", str(log), "--site", str(site)),
            ("audit", "verify", str(exported), "--key", str(key)),
        ):
            done = ran("fleet_server.cli", *arguments)
            if done.returncode:
                wrong.append(f"{' '.join(arguments[:2])} of log {log}: {done.stdout}{done.stderr}")
    scrub = ran("fleet_server.cli", "evidence", "scrub", "--site", str(site))
    if report.control is None and scrub.returncode:
        wrong.append(f"the scrub finds: {scrub.stdout}{scrub.stderr}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=3, help="agents that run all the while")
    parser.add_argument("--control", choices=[CONTROL], help="a restore that must be caught")
    parser.add_argument("--report", type=Path, help="a file for the JSON")
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    with tempfile.TemporaryDirectory(prefix="drill-", ignore_cleanup_errors=True) as scratch:
        report = drill(Path(scratch), devices=told.devices, control=told.control)
    document = {**asdict(report), "passed": report.passed}
    print(json.dumps(document, indent=2))
    if told.report is not None:
        told.report.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
