"""Compares what is in the store with what the far end gave away. Pure: a run's evidence in, a verdict out.

What must hold:

1. every stored row is one that the witness emitted, bit by bit, and is stored once;
2. what a receipt covered is stored, or kept raw in quarantine, after everything that happened since;
3. what is missing was emitted while something that the run itself did explains its loss;
4. a silence without a reason is one that the run seeded, and every seeded one is seen;
5. the journal's records are chained without a break.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from broker_config.ranges import Range, Ranges, normal
from broker_config.telemetry import GENESIS, JOURNAL, Key
from tests.faults.tap import Sent, Told
from tests.faults.witness import CARRIERS, Emitted, values

Row = Mapping[str, float | None]
EXAMPLES_MAX: Final = 20


class Cause(StrEnum):
    """What a reading may be lost to before it is sealed."""

    AGENT_DIED = "agent_died"
    """Not sealed yet: at most ``seal_s``."""
    ANSWER_UNDER_WAY = "answer_under_way"
    """Given away by the far end to an agent that was just then stopped or frozen: one a stream."""
    SPOOL_REPLACED = "spool_replaced"
    """Spooled since the image was taken that replaced the spool."""
    DISK_FULL = "disk_full"
    """The spool's disk took nothing; a tombstone tells."""


class Hole(NamedTuple):
    """Readings emitted between two times (CLOCK_MONOTONIC, s) may be missing; at most *each_max* of each stream."""

    cause: Cause
    from_s: float
    to_s: float
    each_max: int | None = None


class Seeded(NamedTuple):
    """The agent was frozen until each stream fell silent, and its journal cannot say why; ms since the epoch."""

    from_ms: int
    to_ms: int


class Gap(NamedTuple):
    """As the server tells it; ``first_seq`` 0 is a silence."""

    stream: str
    life: str
    reason: str
    first_seq: int
    last_seq: int
    from_ms: int | None
    to_ms: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a run leaves behind. ``quarantined``: (stream, N) that are kept raw."""

    emitted: Sequence[Emitted]
    stored: Mapping[str, Sequence[Row]]
    quarantined: frozenset[tuple[str, int]]
    gaps: Sequence[Gap]
    sent: Sequence[Sent]
    told: Sequence[Told]
    holes: Sequence[Hole]
    seeded: Sequence[Seeded]


@dataclass(slots=True)
class Verdict:
    """The figures of a run, and what is wrong with it, a sentence each."""

    emitted: int = 0
    stored: int = 0
    quarantined: int = 0
    receipted: int = 0
    lost_receipted: int = 0
    lost_unexplained: int = 0
    duplicates: int = 0
    foreign: int = 0
    altered: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    seeded: int = 0
    seeded_seen: int = 0
    unexplained_gaps: int = 0
    journal_links: int = 0
    journal_breaks: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing is wrong."""
        return not self.wrong


def judge(evidence: Evidence) -> Verdict:
    """Everything above, about one run."""
    verdict = Verdict(emitted=len(evidence.emitted))
    held = _judge_rows(evidence, verdict)
    evicted = _evicted(evidence.gaps)
    _judge_receipts(evidence, held, evicted, verdict)
    _judge_missing(evidence, held, evicted, verdict)
    _judge_gaps(evidence, verdict)
    _judge_journal(evidence.sent, verdict)
    return verdict


def _judge_rows(evidence: Evidence, verdict: Verdict) -> frozenset[tuple[str, int]]:
    """Return (stream, N) of everything that is stored or in quarantine."""
    emitted = {(each.stream, each.n) for each in evidence.emitted}
    seen: Counter[tuple[str, int]] = Counter()
    for stream, rows in evidence.stored.items():
        carrier = CARRIERS[stream]
        for row in rows:
            carried = row.get(carrier)
            if carried is None:
                continue  # the driver could not read, and says so by a null
            at = (stream, int(carried))
            if at not in emitted:
                verdict.foreign += 1
                verdict.wrong.append(f"{stream} has a row that nobody emitted: {dict(row)}")
            elif row != values(stream, at[1]):
                verdict.altered += 1
                verdict.wrong.append(f"{stream} {at[1]}: expected {values(stream, at[1])}, got {dict(row)}")
            seen[at] += 1
    doubled = {at: count for at, count in seen.items() if count > 1}
    verdict.duplicates = sum(doubled.values()) - len(doubled)
    if doubled:
        verdict.wrong.append(f"stored more than once: {_some(doubled)}")
    verdict.stored = len(seen)
    verdict.quarantined = len(evidence.quarantined - seen.keys())
    return frozenset(seen) | evidence.quarantined


def _evicted(gaps: Iterable[Gap]) -> Mapping[tuple[str, str], list[Range]]:
    out: dict[tuple[str, str], list[Range]] = {}
    for gap in gaps:
        if gap.reason == "evicted":
            out.setdefault((gap.stream, gap.life), []).append((gap.first_seq, gap.last_seq))
    return out


def _judge_receipts(
    evidence: Evidence,
    held: frozenset[tuple[str, int]],
    evicted: Mapping[tuple[str, str], list[Range]],
    verdict: Verdict,
) -> None:
    covered: dict[tuple[str, str], Ranges] = {}
    for told in evidence.told:
        at = (told.receipt.stream, told.receipt.life)
        covered[at] = normal((*covered.get(at, ()), *told.covered))
    lost: list[tuple[str, int]] = []
    for sent in evidence.sent:
        at = (sent.key.stream, sent.key.life)
        if not _within(sent.key, covered.get(at, ())) or _within(sent.key, evicted.get(at, ())):
            continue
        verdict.receipted += len(sent.ns)
        lost += [(sent.key.stream, n) for n in sent.ns if (sent.key.stream, n) not in held]
    verdict.lost_receipted = len(lost)
    if lost:
        verdict.wrong.append(f"receipted and lost: {_some(lost)}")
    reported = [gap for gap in evidence.gaps if gap.reason == "lost"]
    if reported:
        verdict.wrong.append(f"the server itself reports lost numbers: {_some(reported)}")


def _judge_missing(
    evidence: Evidence,
    held: frozenset[tuple[str, int]],
    evicted: Mapping[tuple[str, str], list[Range]],
    verdict: Verdict,
) -> None:
    gone = {
        (sent.key.stream, n)
        for sent in evidence.sent
        if _within(sent.key, evicted.get((sent.key.stream, sent.key.life), ()))
        for n in sent.ns
    }
    used: Counter[tuple[Hole, str]] = Counter()
    lost = []
    for each in evidence.emitted:
        if (each.stream, each.n) in held:
            continue
        if (each.stream, each.n) in gone:
            verdict.explained["evicted"] += 1
            continue
        for hole in evidence.holes:
            room = hole.each_max is None or used[hole, each.stream] < hole.each_max
            if room and hole.from_s <= each.at_s <= hole.to_s:
                used[hole, each.stream] += 1
                verdict.explained[hole.cause] += 1
                break
        else:
            lost.append(each)
    verdict.lost_unexplained = len(lost)
    if lost:
        verdict.wrong.append(f"emitted, not stored, and nothing explains it: {_some(lost)}")


def _judge_gaps(evidence: Evidence, verdict: Verdict) -> None:
    verdict.gaps = Counter(gap.reason for gap in evidence.gaps)
    unexplained = [gap for gap in evidence.gaps if gap.reason == "unexplained"]
    unseen = {(seeded, stream) for seeded in evidence.seeded for stream in CARRIERS}
    verdict.seeded = len(unseen)
    stray = []
    for gap in unexplained:
        found = next(((s, stream) for s, stream in unseen if stream == gap.stream and _overlap(s, gap)), None)
        if found is None:
            stray.append(gap)
        else:
            unseen.discard(found)
    verdict.seeded_seen = verdict.seeded - len(unseen)
    verdict.unexplained_gaps = len(stray)
    if stray:
        verdict.wrong.append(f"unexplained, and not seeded: {_some(stray)}")
    if unseen:
        verdict.wrong.append(f"seeded, and not seen: {_some(sorted(unseen))}")
    waiting = [gap for gap in evidence.gaps if gap.reason == "waiting"]
    if waiting:
        verdict.wrong.append(f"drained, and still waited for: {_some(waiting)}")


def _overlap(seeded: Seeded, gap: Gap) -> bool:
    return (
        gap.from_ms is not None
        and gap.to_ms is not None
        and gap.from_ms < seeded.to_ms
        and gap.to_ms > seeded.from_ms
    )


def _judge_journal(sent: Iterable[Sent], verdict: Verdict) -> None:
    """Each record against the one before, where the tap heard both."""
    records: dict[tuple[str, int], list[Sent]] = {}
    for each in sent:
        if each.key.stream == JOURNAL:
            records.setdefault((each.key.life, each.key.seq), []).append(each)
    for (life, seq), these in records.items():
        before = records.get((life, seq - 1))
        expected = {GENESIS} if seq == 1 else {each.digest for each in before} if before else None
        if expected is None:
            continue
        for each in these:
            verdict.journal_links += 1
            if each.prev not in expected:
                verdict.journal_breaks += 1
                verdict.wrong.append(f"journal {life}/{seq}: its prev is not the digest of the record before")


def _within(key: Key, ranges: Iterable[Range]) -> bool:
    return any(low <= key.seq <= high for low, high in ranges)


def _some(things: Iterable[object]) -> str:
    listed = list(things)
    more = f" and {len(listed) - EXAMPLES_MAX} more" if len(listed) > EXAMPLES_MAX else ""
    return ", ".join(map(str, listed[:EXAMPLES_MAX])) + more
