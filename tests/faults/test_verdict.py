"""The verdict sees each way in which a store can be wrong, and is content with what a run itself explains."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker_config.messages import Receipt
from broker_config.telemetry import GENESIS, Key
from tests.faults.tap import Sent, Told
from tests.faults.verdict import Cause, Evidence, Gap, Hole, Row, Seeded, judge
from tests.faults.witness import CARRIERS, Emitted, values

LIFE = "9f0c2b1a77d3e458"
EMITTED = [Emitted(stream, n, float(n)) for stream in CARRIERS for n in range(1, 11)]
STORED: dict[str, list[Row]] = {stream: [dict(values(stream, n)) for n in range(1, 11)] for stream in CARRIERS}


def sent(stream: str, seq: int, *ns: int, digest: str = "", prev: str = "") -> Sent:
    return Sent(Key(stream, LIFE, seq), digest or f"{stream}{seq}", ns, prev)


def told(stream: str, up_to: int, *missing: tuple[int, int]) -> Told:
    return Told(0.0, Receipt(1, stream, LIFE, up_to, missing, (), 1))


SENT = [sent(stream, seq, 2 * seq - 1, 2 * seq) for stream in CARRIERS for seq in range(1, 6)]
GOOD = Evidence(
    emitted=EMITTED,
    stored=STORED,
    quarantined=frozenset(),
    gaps=(),
    sent=SENT,
    told=[told(stream, 5) for stream in CARRIERS],
    holes=(),
    seeded=(),
)


def without(*ns: int) -> dict[str, list[Row]]:
    """Those of ``cpu`` are not there."""
    carrier = CARRIERS["cpu"]
    return {**STORED, "cpu": [row for row in STORED["cpu"] if row[carrier] not in ns]}


def gap(reason: str, first: int = 0, last: int = 0, from_ms: int = 1000, to_ms: int = 4000) -> Gap:
    return Gap("cpu", LIFE, reason, first, last, from_ms, to_ms)


def test_a_run_that_lost_nothing_is_good() -> None:
    verdict = judge(GOOD)
    assert verdict.wrong == []
    assert (verdict.emitted, verdict.stored, verdict.receipted) == (40, 40, 40)


def altered(row: Row) -> Row:
    name = next(name for name in row if name != CARRIERS["cpu"])
    return {**row, name: (row[name] or 0.0) + 1e-9}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda e: replace(e, stored=without(3)), "receipted and lost"),
        (lambda e: replace(e, stored=without(3), told=()), "nothing explains it"),
        (lambda e: replace(e, stored={**STORED, "cpu": [*STORED["cpu"], STORED["cpu"][0]]}), "more than once"),
        (lambda e: replace(e, stored={**STORED, "cpu": [altered(STORED["cpu"][0]), *STORED["cpu"][1:]]}), "expected"),
        (lambda e: replace(e, stored={**STORED, "cpu": [*STORED["cpu"], values("cpu", 99)]}), "nobody emitted"),
        (lambda e: replace(e, gaps=[gap("unexplained")]), "not seeded"),
        (lambda e: replace(e, seeded=[Seeded(1000, 4000)]), "not seen"),
        (lambda e: replace(e, seeded=[Seeded(5000, 9000)], gaps=[gap("unexplained")]), "not seeded"),
        (lambda e: replace(e, gaps=[gap("lost", 1, 2)]), "lost numbers"),
        (lambda e: replace(e, gaps=[gap("waiting", 1, 2)]), "still waited for"),
        (lambda e: replace(e, sent=[*SENT, sent("journal", 1, prev="00")]), "prev"),
        (
            lambda e: replace(
                e, sent=[*SENT, sent("journal", 1, digest="aa", prev=GENESIS), sent("journal", 2, prev="bb")]
            ),
            "prev",
        ),
    ],
)
def test_what_is_wrong_is_seen(change: Callable[[Evidence], Evidence], complaint: str) -> None:
    assert complaint in " ".join(judge(change(GOOD)).wrong)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        # emitted at 3.0 s; the agent died at 4.0 s
        (lambda e: replace(e, holes=[Hole(Cause.AGENT_DIED, 2.5, 4.0)]), Cause.AGENT_DIED),
        (lambda e: replace(e, holes=[Hole(Cause.ANSWER_UNDER_WAY, 2.5, 4.0, each_max=1)]), Cause.ANSWER_UNDER_WAY),
        (lambda e: replace(e, sent=[sent("cpu", 9, 3)], gaps=[gap("evicted", 9, 9)]), "evicted"),
    ],
)
def test_what_the_run_itself_explains_is_not_wrong(change: Callable[[Evidence], Evidence], cause: str) -> None:
    verdict = judge(change(replace(GOOD, stored=without(3), told=(), sent=())))
    assert verdict.wrong == []
    assert verdict.explained == {cause: 1}


@pytest.mark.parametrize(
    "holes",
    [
        [Hole(Cause.AGENT_DIED, 4.5, 5.0)],  # later than what is missing
        [Hole(Cause.ANSWER_UNDER_WAY, 2.5, 4.5, each_max=1)],  # explains one of the two
    ],
)
def test_an_explanation_does_not_stretch(holes: list[Hole]) -> None:
    verdict = judge(replace(GOOD, stored=without(3, 4), told=(), sent=(), holes=holes))
    assert "nothing explains it" in " ".join(verdict.wrong)


def test_what_is_in_quarantine_is_not_lost() -> None:
    verdict = judge(replace(GOOD, stored=without(3), quarantined=frozenset({("cpu", 3)})))
    assert verdict.wrong == []
    assert verdict.quarantined == 1


def test_a_number_that_a_receipt_misses_is_not_receipted() -> None:
    verdict = judge(replace(GOOD, told=[told("cpu", 5, (2, 3))]))
    assert verdict.receipted == 6
