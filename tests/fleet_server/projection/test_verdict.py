"""What an answer means, for how long it is waited, and what becomes of a body."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.projection.points import Lines
from fleet_server.projection.target import NO_ANSWER, Answer
from fleet_server.projection.verdict import (
    BACKOFF_S_CAP,
    BACKOFF_S_MIN,
    REFUSED_RETRY_S,
    RETRY_AFTER_S_MAX,
    Delivery,
    Verdict,
    retry_after_s,
    verdict,
    wait_s,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("statuses", "found"),
    [
        ([204], Verdict.WRITTEN),
        ([400, 422], Verdict.SPLIT),
        ([413], Verdict.HALVE),
        ([NO_ANSWER, 408, 425, 429, 500, 502, 503, 504, 599], Verdict.WAIT),
        ([401, 403, 404, 405, 415], Verdict.REFUSED),
        ([200, 201, 202, 206], Verdict.REFUSED),  # not what a time-series server says to a write: a proxy's page
        ([301, 302, 307, 308], Verdict.REFUSED),
        ([100, 600, 999], Verdict.REFUSED),
    ],
)
def test_what_an_answer_means(statuses: list[int], found: Verdict) -> None:
    assert {verdict(Answer(status)) for status in statuses} == {found}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("99999999", RETRY_AFTER_S_MAX),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Wed, 31 Dec 2025 00:00:30 GMT", 0.0),
        ("Fri, 01 Jan 2027 00:00:30 GMT", RETRY_AFTER_S_MAX),
        ("", None),
        ("-7", None),
        ("7.5", None),
        ("soon", None),
        ("Mon, 99999999999999999999 Jan 2020 00:00:00 GMT", None),
        ("\u0667", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds


@given(st.integers(1, 10**6), st.integers())
def test_a_wait_is_between_nothing_and_a_bound_that_doubles(tries: int, seed: int) -> None:
    waited_s = wait_s(Answer(503), Verdict.WAIT, tries, random.Random(seed), NOW)
    assert 0 <= waited_s <= min(BACKOFF_S_CAP, BACKOFF_S_MIN * 2 ** min(tries - 1, 20))


def test_who_asks_for_patience_gets_it_and_who_refuses_is_left_alone() -> None:
    rng = random.Random(1)
    assert wait_s(Answer(429, retry_after="7"), Verdict.WAIT, 1, rng, NOW) == 7
    assert wait_s(Answer(503, retry_after="7"), Verdict.WAIT, 30, rng, NOW) == 7
    assert wait_s(Answer(503, retry_after="0"), Verdict.WAIT, 1, rng, NOW) > 0  # nobody is hammered
    assert wait_s(Answer(401, retry_after="7"), Verdict.REFUSED, 1, rng, NOW) == REFUSED_RETRY_S


def deliver(lines: list[bytes], bad: set[bytes]) -> tuple[Delivery, int]:
    """A body at a server that refuses every body with one of *bad* in it, and how many requests that took."""
    delivery, requests = Delivery(Lines(b"\n".join(lines), len(lines))), 0
    while (body := delivery.body) is not None:
        requests += 1
        found = Verdict.SPLIT if bad & set(body.data.split(b"\n")) else Verdict.WRITTEN
        delivery.answered(found, "no")
    return delivery, requests


@given(st.sets(st.integers(0, 99)), st.integers(1, 100))
def test_exactly_the_bad_points_are_refused(bad: set[int], count: int) -> None:
    lines = [b"%d" % number for number in range(count)]
    wrong = {line for line in lines if int(line) in bad}
    delivery, requests = deliver(lines, wrong)
    assert {refused.line for refused in delivery.refused} == wrong
    assert len(delivery.refused) == len(wrong)
    assert delivery.written == count - len(wrong)
    assert requests < 2 * count


def test_one_bad_point_costs_about_twice_the_logarithm() -> None:
    lines = [b"%d" % number for number in range(4096)]
    _, requests = deliver(lines, {b"1234"})
    assert requests <= 2 * 12 + 1


def test_waiting_changes_nothing() -> None:
    delivery = Delivery(Lines(b"a\nb", 2))
    for found in (Verdict.WAIT, Verdict.REFUSED):
        delivery.answered(found, "later")
        assert delivery.body == Lines(b"a\nb", 2)


def test_what_is_too_large_alone_is_refused() -> None:
    delivery = Delivery(Lines(b"a\nb", 2))
    for _ in range(3):
        delivery.answered(Verdict.HALVE, "too large")
    assert delivery.body is None
    assert [refused.line for refused in delivery.refused] == [b"a", b"b"]
