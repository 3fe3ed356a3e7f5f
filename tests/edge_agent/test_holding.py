from broker_config.telemetry import Clock
from edge_agent.clock import Stamp
from edge_agent.holding import Holding
from edge_agent.sampler import BatchDraft


def draft(stream: str, mono_ms: int = 0, rows: int = 1) -> BatchDraft:
    stamp = Stamp(0, mono_ms, Clock("none", 0, 0))
    return BatchDraft(stream, "b" * 16, stamp, ("x",), [0] * rows, [[1.0]] * rows)


def test_beyond_the_bound_the_oldest_go_and_are_counted() -> None:
    holding = Holding(records_max=3)
    holding.add([draft("cpu", n) for n in range(5)])
    assert [d.stamp.mono_ms for d in holding.drafts if isinstance(d, BatchDraft)] == [2, 3, 4]
    assert holding.dropped == {"cpu": 2}


def test_the_journal_goes_last() -> None:
    holding = Holding(records_max=2)
    holding.add([draft("journal"), draft("cpu"), draft("cpu")])
    assert [d.stream for d in holding.drafts] == ["journal", "cpu"]
    holding.add([draft("journal"), draft("journal")])
    assert [d.stream for d in holding.drafts] == ["journal", "journal"]
    assert holding.dropped == {"cpu": 2, "journal": 1}


def test_memory_is_bounded_by_values_too() -> None:
    holding = Holding(values_max=10)
    holding.add([draft("cpu", rows=6), draft("cpu", rows=6)])
    assert len(holding.drafts) == 1
    holding.add([draft("memory", rows=1000)])
    assert [d.stream for d in holding.drafts] == ["memory"]  # the newest is kept, however large


def test_what_the_spool_took_is_forgotten() -> None:
    holding = Holding(records_max=1)
    holding.add([draft("cpu"), draft("cpu")])
    assert holding
    holding.clear()
    assert not holding
    assert holding.drafts == ()
