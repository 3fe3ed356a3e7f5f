"""What a run found, as JSON for machines and a table for people."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """``faults``: name -> how often; ``recovery_s``: name -> from healed until receipted anew, each time."""

    seed: int
    control: str | None
    seconds: float
    kills: int
    faults: Mapping[str, int]
    skipped: Mapping[str, str]
    verdict: Verdict
    messages: int
    messages_again: int
    receipts: int
    backlog_batches_max: int
    recovery_s: Mapping[str, Sequence[float]]
    passed: bool

    def as_json(self) -> str:
        """Everything."""
        verdict = self.verdict
        recovered = [seconds for each in self.recovery_s.values() for seconds in each]
        return json.dumps(
            {
                "seed": self.seed,
                "control": self.control,
                "passed": self.passed,
                "seconds": round(self.seconds, 1),
                "kills": self.kills,
                "faults": dict(sorted(self.faults.items())),
                "skipped": dict(self.skipped),
                "emitted": verdict.emitted,
                "stored": verdict.stored,
                "quarantined": verdict.quarantined,
                "receipted": verdict.receipted,
                "lost_receipted": verdict.lost_receipted,
                "lost_unexplained": verdict.lost_unexplained,
                "lost_explained": dict(sorted(verdict.explained.items())),
                "duplicates": verdict.duplicates,
                "foreign": verdict.foreign,
                "altered": verdict.altered,
                "wire_messages": self.messages,
                "wire_messages_again": self.messages_again,
                "receipts": self.receipts,
                "backlog_batches_max": self.backlog_batches_max,
                "gaps": dict(sorted(verdict.gaps.items())),
                "seeded_unexplained": verdict.seeded,
                "seeded_unexplained_seen": verdict.seeded_seen,
                "unexplained_not_seeded": verdict.unexplained_gaps,
                "journal_links_checked": verdict.journal_links,
                "journal_links_broken": verdict.journal_breaks,
                "recovery_s": {
                    "all": _quantiles(recovered),
                    **{name: _quantiles(each) for name, each in sorted(self.recovery_s.items())},
                },
                "wrong": verdict.wrong,
            },
            indent=2,
        )

    def as_text(self) -> str:
        """The same, to be read in a terminal."""
        verdict = self.verdict
        rows: list[tuple[str, object]] = [
            ("seed", self.seed),
            ("seconds", round(self.seconds)),
            ("processes killed", self.kills),
            ("faults", sum(self.faults.values())),
            ("readings emitted", verdict.emitted),
            ("readings stored", verdict.stored),
            ("readings in quarantine", verdict.quarantined),
            ("readings known receipted", verdict.receipted),
            ("receipted and lost", verdict.lost_receipted),
            ("lost without explanation", verdict.lost_unexplained),
            *((f"lost to {cause}", count) for cause, count in sorted(verdict.explained.items())),
            ("stored twice", verdict.duplicates),
            ("rows nobody emitted", verdict.foreign),
            ("rows altered", verdict.altered),
            ("messages on the wire", self.messages),
            ("of them sent again", self.messages_again),
            ("receipts heard", self.receipts),
            ("backlog at most, batches", self.backlog_batches_max),
            *((f"gaps {reason}", count) for reason, count in sorted(verdict.gaps.items())),
            ("seeded silences seen", f"{verdict.seeded_seen} of {verdict.seeded}"),
            ("silences not seeded, unexplained", verdict.unexplained_gaps),
            ("journal links broken", f"{verdict.journal_breaks} of {verdict.journal_links} checked"),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        lines += ["", f"{'recovery after':<40} {'times':>5} {'p50 s':>7} {'p99 s':>7} {'max s':>7}"]
        for name, each in sorted(self.recovery_s.items()):
            found = _quantiles(each)
            lines.append(f"{name:<40} {len(each):>5} {found['p50']:>7} {found['p99']:>7} {found['max']:>7}")
        lines += [f"skipped {name}: {why}" for name, why in self.skipped.items()]
        lines += ["", *(f"WRONG: {each}" for each in verdict.wrong)]
        lines.append("passed" if self.passed else "FAILED")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """The JSON, into a file."""
        path.write_text(self.as_json() + "\n", encoding="utf-8")


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest; empty if there are none."""
    if not seconds:
        return {}
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return {"p50": at(0.5), "p99": at(0.99), "max": round(ordered[-1], 3)}
