"""Compares what a recorder wrote with what the server keeps and what the device was told. Pure.

What must hold:

1. every file that was made is kept, byte for byte, and entered once;
2. the device has a receipt of a file if and only if it is kept;
3. a chunk that a device was told is durable is never missing again, but for files that the run itself damaged;
4. what went over the broker in vain is at most a window for each process that died, besides what the run damaged.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.upload_rig import Made

EXAMPLES_MAX = 10


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a run leaves behind. ``kept``: SHA-256 as it was made -> that of the bytes in the store, None if they
    are not there. ``entered``, ``receipted``: name -> SHA-256. ``damaged``: uploads that the run spoiled under the
    server's feet. ``again_bytes``: that went over the broker more than once; ``excused_bytes``: of them, at most so
    many are what the run's faults may cost.
    """

    made: Sequence[Made]
    kept: Mapping[str, str | None]
    entered: Mapping[str, str]
    receipted: Mapping[str, str]
    taken_back: Mapping[str, int]
    damaged: Collection[str]
    again_bytes: int
    excused_bytes: int


@dataclass(slots=True)
class Verdict:
    """The figures of a run, and what is wrong with it."""

    files: int = 0
    bytes: int = 0
    kept: int = 0
    receipted: int = 0
    wasted_bytes: int = 0
    excused_bytes: int = 0
    taken_back: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return not self.wrong


def judge(evidence: Evidence) -> Verdict:
    """Everything above, about one run."""
    verdict = Verdict(files=len(evidence.made), bytes=sum(made.size for made in evidence.made))
    wrong = verdict.wrong
    for made in evidence.made:
        seen = evidence.kept.get(made.sha256)
        if seen == made.sha256:
            verdict.kept += 1
        if evidence.entered.get(made.name) != made.sha256:
            wrong.append(f"{made.name}: custody has {evidence.entered.get(made.name)}, expected {made.sha256}")
        receipt = evidence.receipted.get(made.name)
        if receipt is None:
            wrong.append(f"{made.name}: no receipt")
            continue
        verdict.receipted += 1
        if (receipt, seen) != (made.sha256, made.sha256):
            wrong.append(f"{made.name}: receipted as {receipt}, and the store has {seen}")
    names = {made.name for made in evidence.made}
    if strangers := sorted((evidence.entered.keys() | evidence.receipted.keys()) - names):
        wrong.append(f"nobody made: {', '.join(strangers[:EXAMPLES_MAX])}")
    lost = {
        upload: count for upload, count in evidence.taken_back.items() if count and upload not in evidence.damaged
    }
    verdict.taken_back = sum(lost.values())
    if lost:
        wrong.append(f"told durable, and missing later: {verdict.taken_back} chunks of {len(lost)} files")
    verdict.wasted_bytes, verdict.excused_bytes = evidence.again_bytes, evidence.excused_bytes
    if evidence.again_bytes > evidence.excused_bytes:
        wrong.append(f"sent in vain: {evidence.again_bytes} bytes, at most {evidence.excused_bytes} are excused")
    return verdict
