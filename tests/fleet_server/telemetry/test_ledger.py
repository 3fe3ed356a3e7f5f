"""A stream's ledger against plain sets and lists of numbers, whatever the order in which they come."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.ranges import from_numbers
from broker_config.telemetry import Batch, Clock
from fleet_server.telemetry.ledger import EDGES_MAX, NO_EDGE, StreamLedger, Verdict
from fleet_server.telemetry.store import Silence, StreamKey

KEY = StreamKey("car-7", "cpu", "9f0c2b1a77d3e458")
BOOT, NEXT_BOOT = "5c1d7a90be2f4436", "5c1d7a90be2f4437"
T0 = 1_767_254_400_000
NUMBER_MAX = 12
QUIET_MS = 1_000


def batch(seq: int, *, boot: str = BOOT, mono: int | None = None, t0: int | None = None, span_ms: int = 0) -> Batch:
    mono = 1_000 * seq if mono is None else mono
    t0 = T0 + mono if t0 is None else t0
    rows: list[list[float | None]] = [[0.0], [0.0]]
    return Batch(1, KEY.stream, KEY.life, seq, boot, t0, mono, Clock("ntp", 0, 5), ("cpu_pct",), [0, span_ms], rows)


def crc(seq: int) -> int:
    return 1_000 + seq


class Step(NamedTuple):
    """Something that happens to a ledger, as ingest would do it."""

    what: Literal["arrive", "other bytes", "poison", "gone", "seal", "ask"]
    seq: int
    more: int


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(("arrive", "arrive", "arrive", "other bytes", "poison", "gone", "seal", "ask")),
        st.integers(1, NUMBER_MAX),
        st.integers(0, 3),
    ),
    max_size=40,
)


@dataclass
class Model:
    """What a ledger ought to know, in plain sets."""

    stored: dict[int, int] = field(default_factory=dict)
    sealed: set[int] = field(default_factory=set)
    poisoned: dict[int, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    conflicts: dict[int, int] = field(default_factory=dict)

    @property
    def received(self) -> set[int]:
        return {*self.stored, *self.poisoned, *self.gone}

    @property
    def top(self) -> int:
        return max(self.received, default=0)

    def judge(self, seq: int, checksum: int) -> Verdict:
        if seq in self.poisoned:
            known: int | None = self.poisoned[seq]
        elif seq in self.stored:
            known = None if seq in self.sealed else self.stored[seq]
        else:
            return Verdict.NEW
        if known is None:
            return Verdict.SEALED
        return Verdict.DUPLICATE if checksum in {known, self.conflicts.get(seq)} else Verdict.CONFLICT


def carry_out(step: Step, ledger: StreamLedger, model: Model) -> None:
    seq = step.seq
    match step.what:
        case "arrive" | "other bytes" | "poison":
            checksum = crc(seq) + (100 if step.what == "other bytes" else 0)
            verdict = ledger.judge(seq, checksum)
            assert verdict is model.judge(seq, checksum)
            if verdict is Verdict.CONFLICT:
                ledger.conflict(seq, checksum)
                model.conflicts[seq] = checksum
            elif verdict is Verdict.NEW and step.what == "poison":
                ledger.quarantine(seq, checksum)
                model.poisoned[seq] = checksum
                model.gone.discard(seq)
            elif verdict is Verdict.NEW:
                ledger.hold(seq, checksum, batch(seq))
                model.stored[seq] = checksum
                model.gone.discard(seq)
        case "gone":
            told = set(range(seq, seq + step.more + 1))
            news = ledger.declare_gone(((seq, seq + step.more),))
            assert news == from_numbers(told - model.received)
            model.gone |= told - model.received
        case "seal":
            # the store seals in the order of arrival: the first so many of what is not sealed yet
            waiting = [number for number in model.stored if number not in model.sealed][: 2 * step.more]
            ledger.sealed(from_numbers(waiting))
            model.sealed |= set(waiting)
        case "ask":
            assert ledger.received.ranges() == from_numbers(model.received)


@given(STEPS)
def test_numbers_are_those_of_plain_sets_in_any_order(steps: list[Step]) -> None:
    ledger, model = StreamLedger(KEY), Model()
    for step in steps:
        carry_out(step, ledger, model)
        assert ledger.top == model.top
        assert ledger.last == model.top
        assert ledger.seen() == from_numbers(model.received)
        assert ledger.unseen() == from_numbers(set(range(1, model.top + 1)) - model.received)
    for seq in range(1, NUMBER_MAX + 5):
        for checksum in (crc(seq), crc(seq) + 100, 7):
            assert ledger.judge(seq, checksum) is model.judge(seq, checksum), seq
    assert ledger.received.ranges() == from_numbers(model.received)
    assert ledger.missing() == ledger.unseen()
    assert ledger.gone.ranges() == from_numbers(model.gone)
    assert ledger.quarantined.ranges() == from_numbers(model.poisoned)
    assert ledger.conflicts == model.conflicts


@given(STEPS, st.sets(st.integers(1, NUMBER_MAX)))
def test_what_was_sealed_before_a_restart_counts_as_held(steps: list[Step], before: set[int]) -> None:
    ledger, model = StreamLedger(KEY), Model()
    ledger.restore(from_numbers(before), max(before, default=0), (BOOT, 1, 1) if before else NO_EDGE, 0)
    for seq in before:
        model.stored[seq] = crc(seq)
    model.sealed |= before
    for step in steps:
        carry_out(step, ledger, model)
    assert ledger.received.ranges() == from_numbers(model.received)
    assert ledger.top == ledger.last == model.top
    for seq in range(1, NUMBER_MAX + 5):
        assert ledger.judge(seq, crc(seq)) is model.judge(seq, crc(seq)), seq


def test_a_gone_number_that_comes_all_the_same_is_new_once() -> None:
    ledger = StreamLedger(KEY)
    ledger.declare_gone(((1, 3),))
    assert ledger.judge(2, crc(2)) is Verdict.NEW
    ledger.hold(2, crc(2), batch(2))
    assert ledger.judge(2, crc(2)) is Verdict.DUPLICATE
    assert ledger.gone.ranges() == ((1, 1), (3, 3))


def test_a_gone_number_that_comes_as_poison_is_new_once() -> None:
    ledger = StreamLedger(KEY)
    ledger.declare_gone(((1, 3),))
    assert ledger.judge(2, 9) is Verdict.NEW
    ledger.quarantine(2, 9)
    assert ledger.judge(2, 9) is Verdict.DUPLICATE
    assert ledger.gone.ranges() == ((1, 1), (3, 3))


def test_other_bytes_a_second_time_are_a_duplicate_of_the_conflict() -> None:
    ledger = StreamLedger(KEY)
    ledger.hold(1, crc(1), batch(1))
    assert ledger.judge(1, 7) is Verdict.CONFLICT
    ledger.conflict(1, 7)
    assert ledger.judge(1, 7) is Verdict.DUPLICATE
    assert ledger.judge(1, 8) is Verdict.CONFLICT


def test_who_reads_from_another_thread_changes_nothing() -> None:
    ledger = StreamLedger(KEY)
    for seq in (1, 2, 3, 5, 6):
        ledger.hold(seq, crc(seq), batch(seq))
    entered = ledger._received.ranges()
    assert ledger.seen() == ((1, 3), (5, 6))
    assert ledger.unseen() == ((4, 4),)
    assert ledger._received.ranges() == entered != ledger.seen()


# silences

Plan = dict[int, Batch]
SPANS = st.tuples(
    st.sampled_from((0, QUIET_MS // 2, QUIET_MS, QUIET_MS + 1, 5 * QUIET_MS)),  # before it
    st.sampled_from((0, QUIET_MS)),  # its own
    st.sampled_from(("same", "same", "same", "boot", "clock jumps", "both")),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A stream's life: batches that follow each other after a while, boots, and a clock that is set meanwhile."""
    boots, mono, offset, made = 0, 10_000, T0, {}
    for seq, (before_ms, span_ms, change) in enumerate(draw(st.lists(SPANS, min_size=1, max_size=9)), start=1):
        mono += before_ms
        if change in {"boot", "both"}:
            boots, offset, mono = boots + 1, offset + mono, 0
        if change in {"clock jumps", "both"}:
            offset += draw(st.sampled_from((-86_400_000, 86_400_000)))
        made[seq] = batch(seq, boot=f"{boots:016x}", mono=mono, t0=mono + offset, span_ms=span_ms)
        mono += span_ms
    return made


def falls_silent(before: Batch, after: Batch) -> bool:
    """Beyond the quiet that a cadence allows: by the boot's own clock within a boot, by the wall clock across."""
    if before.boot == after.boot:
        length_ms = after.mono - (before.mono + before.dt[-1])
    else:
        length_ms = after.t0 - (before.t0 + before.dt[-1])
    return not 0 <= length_ms <= QUIET_MS


@given(plans(), st.data())
def test_each_silence_is_found_just_once_whatever_the_order(plan: Plan, data: st.DataObject) -> None:
    order = data.draw(st.permutations(sorted(plan)))
    arriving = order[: data.draw(st.integers(0, len(order)))]
    holes = data.draw(st.sets(st.sampled_from(sorted(plan)), max_size=2))
    ledger = StreamLedger(KEY)
    ledger.silence_ms = QUIET_MS
    found: list[Silence] = []
    for seq in arriving:
        if seq in holes:
            ledger.quarantine(seq, 1)
        else:
            found += ledger.hold(seq, 1, plan[seq])
    stored = sorted(set(arriving) - holes)
    silent = {b for a, b in pairwise(stored) if b == a + 1 and falls_silent(plan[a], plan[b])}
    assert sorted(silence.seq for silence in found) == sorted(silent)
    for silence in found:
        before, after = plan[silence.seq - 1], plan[silence.seq]
        assert (silence.from_boot, silence.from_mono) == (before.boot, before.mono + before.dt[-1])
        assert (silence.to_boot, silence.to_mono) == (after.boot, after.mono)
        assert (silence.from_ms, silence.to_ms) == (before.t0 + before.dt[-1], after.t0)


@pytest.mark.parametrize("hole", ["missing", "gone", "quarantined"])
def test_a_hole_has_its_own_reason_and_no_silence_beside_it(hole: str) -> None:
    ledger = StreamLedger(KEY)
    ledger.silence_ms = QUIET_MS
    found = ledger.hold(1, 1, batch(1, mono=0))
    if hole == "gone":
        ledger.declare_gone(((2, 2),))
    elif hole == "quarantined":
        ledger.quarantine(2, 1)
    found += ledger.hold(3, 1, batch(3, mono=100_000))
    assert found == ()


def test_a_replayed_number_shows_the_silences_on_both_its_sides() -> None:
    ledger = StreamLedger(KEY)
    ledger.silence_ms = QUIET_MS
    ledger.hold(1, 1, batch(1, mono=0))
    ledger.quarantine(2, 1)
    ledger.hold(3, 1, batch(3, mono=100_000))
    ledger.quarantined.remove(2)
    assert [silence.seq for silence in ledger.hold(2, 1, batch(2, mono=50_000))] == [2, 3]


def test_the_first_batch_after_a_restart_ends_a_silence() -> None:
    ledger = StreamLedger(KEY)
    ledger.silence_ms = QUIET_MS
    ledger.restore(((1, 4),), 4, (BOOT, 4_000, T0 + 4_000), 0)
    (silence,) = ledger.hold(5, 1, batch(5, boot=NEXT_BOOT, mono=5, t0=T0 + 9_000))
    assert (silence.from_ms, silence.to_ms, silence.from_boot, silence.to_boot) == (
        *(T0 + 4_000, T0 + 9_000),
        *(BOOT, NEXT_BOOT),
    )


def test_without_a_cadence_nothing_is_silent() -> None:
    ledger = StreamLedger(KEY)
    assert ledger.hold(1, 1, batch(1)) == ()
    assert ledger.hold(2, 1, batch(2, mono=1_000_000)) == ()


def test_ends_beside_holes_are_bounded() -> None:
    ledger = StreamLedger(KEY)
    ledger.silence_ms = QUIET_MS
    for seq in range(1, 4 * EDGES_MAX, 2):
        ledger.hold(seq, 1, batch(seq))
    assert len(ledger._ends) == len(ledger._starts) == EDGES_MAX
    # the newest are kept: what fills the last hole still finds its neighbours
    last = 4 * EDGES_MAX - 1
    assert [s.seq for s in ledger.hold(last - 1, 1, batch(last - 1, mono=0))] == [last - 1, last]
