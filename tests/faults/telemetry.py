"""The fault run: a whole system, killed again and again, and a far end that knows what must have come through.

``python -m tests.faults.telemetry --kills 200 --seed 1 --report run.json``

Exit code 0: nothing that was receipted is lost, nothing is there twice, and every silence has its reason, but those
that the run seeded without one, all of which were seen. With ``--control receipt-before-commit`` the server breaks
the first promise, and 0 means that this was caught.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import msgspec

from broker_config.telemetry import BadBatchError, decode
from tests.faults.api import Json
from tests.faults.carry_out import TEN_YEARS_S, TRIMS_EARLY, Faults
from tests.faults.early_receipts import LATE_S
from tests.faults.programs import why_no_clocks, why_no_disks
from tests.faults.report import Report
from tests.faults.rig import DEVICE, Rig, RigSettings, epoch_ms
from tests.faults.schedule import CLOCKS, DISKS, USUAL, Kind, Step, Target, plan
from tests.faults.tap import numbers
from tests.faults.verdict import Evidence, Gap, Row, judge
from tests.faults.witness import CARRIERS

CONTROL: Final = "receipt-before-commit"
HALF_DAY_MS: Final = 12 * 3_600_000
DRAIN_TRIES_MAX: Final = 5
DRAIN_S_MAX: Final = 60.0


def run(
    directory: Path,
    *,
    seed: int,
    kills: int,
    kinds: Collection[Kind],
    control: str | None = None,
    verbose: bool = False,
) -> Report:
    """Lay out a system in *directory*, let everything happen, and judge what is left."""
    why_not = dict.fromkeys(DISKS, why_no_disks()) | dict.fromkeys(CLOCKS, why_no_clocks())
    skipped = {str(kind): why for kind in sorted(kinds) if (why := why_not.get(kind))}
    if control is None:
        steps = plan(seed, kills, [kind for kind in kinds if kind not in skipped])
        settings = RigSettings()
    else:
        steps = [Step(Kind.KILL, (Target.SERVER,), pause_s=LATE_S) for _ in range(kills)]
        settings = replace(TRIMS_EARLY, server_module="tests.faults.early_receipts")
    began_s = time.monotonic()
    with Rig(directory, settings, disks=bool(DISKS & set(kinds))) as rig:
        rig.run()
        faults = Faults(rig)
        for at, step in enumerate(steps, start=1):
            if verbose:
                print(f"{time.monotonic() - began_s:7.1f} s  {at}/{len(steps)}  {step.name}", flush=True)
            _carry_out(faults, step, seed, at)
        drain(rig, faults)
        found = evidence(rig, faults)
        verdict = judge(found)
        if not verdict.good:
            (directory / "evidence.json").write_bytes(msgspec.json.encode(found))
        heard = rig.tap.heard()
    caught = verdict.lost_receipted > 0
    return Report(
        seed=seed,
        control=control,
        seconds=time.monotonic() - began_s,
        kills=faults.kills,
        faults=Counter(step.name for step in steps),
        skipped=skipped,
        verdict=verdict,
        messages=heard.messages,
        messages_again=heard.messages_again,
        receipts=len(heard.told),
        backlog_batches_max=heard.backlog_max,
        recovery_s=faults.recovery_s,
        passed=verdict.good if control is None else caught,
    )


def _carry_out(faults: Faults, step: Step, seed: int, at: int) -> None:
    try:
        faults.do(step)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, step {at}, {step}: {error}") from error


def drain(rig: Rig, faults: Faults) -> None:
    """Let everything heal, stop the agent, and make sure that the server has all that the spool had."""
    if not rig.server.running:
        rig.server.kill()
        rig.start_server()
    for _ in range(DRAIN_TRIES_MAX):
        rig.settle()
        rig.wait(rig.drained, "the backlog is drained", rig.agent, rig.server, seconds_max=DRAIN_S_MAX)
        faults.stop_agent()
        if rig.drained():
            break
        rig.agent.start()
    else:
        raise AssertionError(f"not drained at the stop in {DRAIN_TRIES_MAX} tries")
    rig.server.stop()  # what is judged is what a server finds, not what one remembers
    rig.start_server()


def evidence(rig: Rig, faults: Faults) -> Evidence:
    """Everything that the run left behind: the store's side through the API, the rest from outside."""
    spans = _spans()
    heard = rig.tap.heard()
    gaps = {
        _gap(row) for from_ms, to_ms in spans for row in rig.gaps(from_ms=from_ms, to_ms=to_ms) if not row["open"]
    }
    return Evidence(
        emitted=rig.emitted(),
        stored={stream: [row for span in spans for row in rows(rig, stream, *span)] for stream in CARRIERS},
        quarantined=quarantined(rig),
        gaps=sorted(gaps, key=lambda gap: (gap.stream, gap.life, gap.first_seq, gap.from_ms or 0)),
        sent=list(heard.sent.values()),
        told=list(heard.told),
        holes=faults.holes,
        seeded=faults.seeded,
    )


def _spans() -> Sequence[tuple[int, int]]:
    """The days on which the run's clocks can have been."""
    now_ms = epoch_ms()
    ahead_ms = now_ms + 1000 * TEN_YEARS_S
    return ((0, 2 * HALF_DAY_MS), *((at - HALF_DAY_MS, at + HALF_DAY_MS) for at in (now_ms, ahead_ms)))


def rows(rig: Rig, stream: str, from_ms: int, to_ms: int) -> list[Row]:
    """Raw rows of the store, oldest first."""
    series = rig.api.get(f"/v1/devices/{DEVICE}/series/{stream}", **{"from": from_ms, "to": to_ms})
    columns = cast("dict[str, list[float | None]]", series["columns"])
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def quarantined(rig: Rig) -> frozenset[tuple[str, int]]:
    """The witness's numbers in batches that are kept raw."""
    found: set[tuple[str, int]] = set()
    for row in rig.api.pages("/v1/quarantine", "quarantined"):
        payload = rig.api.bytes_of(f"/v1/quarantine/{row['id']}")
        try:
            record = decode(payload, str(row["content_type"]) or None)
        except BadBatchError:
            continue
        found |= {(record.stream, n) for n in numbers(record)}
    return frozenset(found)


def _gap(row: Json) -> Gap:
    return Gap(
        stream=str(row["stream"]),
        life=str(row["life"]),
        reason=str(row["reason"]),
        first_seq=cast("int | None", row["first_seq"]) or 0,
        last_seq=cast("int | None", row["last_seq"]) or 0,
        from_ms=cast("int | None", row["from_ms"]),
        to_ms=cast("int | None", row["to_ms"]),
    )


def _kinds(text: str) -> list[Kind]:
    return [Kind(name) for name in text.split(",")]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12, help="processes killed in all")
    parser.add_argument("--seed", type=int, help="of every choice; printed; random if not given")
    parser.add_argument("--report", type=Path, help="a file for the JSON")
    parser.add_argument("--control", choices=[CONTROL], help="a server that must be caught")
    parser.add_argument("--faults", type=_kinds, default=USUAL, metavar="A,B", help=f"of {', '.join(Kind)}")
    parser.add_argument("--keep", type=Path, help="a directory for the system's files, which then stay")
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    seed = told.seed if told.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch:
        directory = told.keep or Path(scratch) / "rig"
        report = run(directory, seed=seed, kills=told.kills, kinds=told.faults, control=told.control, verbose=True)
    print(report.as_text())
    if told.report is not None:
        report.write(told.report)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
