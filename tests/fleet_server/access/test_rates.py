"""Who tries often waits; who waits may again; and nobody fills the memory."""

from fleet_server.access.rates import Buckets, Rate

RATE = Rate(burst=3, every_s=30)


def test_a_burst_then_one_each_tenth_of_the_time() -> None:
    buckets = Buckets(RATE)
    assert [buckets.take(b"a", now_s=0) for _ in range(4)] == [0, 0, 0, 10]
    assert buckets.take(b"a", now_s=9) > 0
    assert buckets.take(b"a", now_s=10) == 0
    assert buckets.take(b"a", now_s=10) == 10


def test_names_do_not_share() -> None:
    buckets = Buckets(RATE)
    for _ in range(4):
        buckets.take(b"a", now_s=0)
    assert buckets.take(b"b", now_s=0) == 0


def test_a_clock_that_stands_still_or_waits_long_gives_no_more_than_a_burst() -> None:
    buckets = Buckets(RATE)
    assert [buckets.take(b"a", now_s=1_000_000) for _ in range(4)] == [0, 0, 0, 10]


def test_only_so_many_names_are_remembered() -> None:
    buckets = Buckets(RATE, names_max=10)
    for n in range(1_000):
        buckets.take(b"%d" % n, now_s=0)
    assert len(buckets._held) == 10
