"""What becomes of a delivery, what a receiver may ask for, and where one may be."""

import random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.outbound import retries, targets
from fleet_server.outbound.retries import GIVE_UP_MS, RETRY_MS_CAP, Attempt, Decision, State

NOW: Final = 1_767_254_400_000
"""2026-01-01T08:00:00Z."""


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_two_hundred_and_more_is_delivered(status: int) -> None:
    assert retries.decide(Attempt(status), attempts=9, since_ms=0, now_ms=NOW, jitter=0.5) == Decision(
        State.DELIVERED
    )


@pytest.mark.parametrize("status", [0, 100, 301, 302, 307, 400, 401, 404, 408, 422, 429, 500, 502, 503, 599])
def test_everything_else_is_tried_again_and_parked_after_three_days(status: int) -> None:
    young = retries.decide(Attempt(status), attempts=3, since_ms=NOW - GIVE_UP_MS + 1, now_ms=NOW, jitter=0.5)
    assert young.state is State.PENDING
    assert NOW + 1_000 <= young.next_ms <= NOW + RETRY_MS_CAP
    old = retries.decide(Attempt(status), attempts=3, since_ms=NOW - GIVE_UP_MS, now_ms=NOW, jitter=0.5)
    assert old == Decision(State.PARKED)


def test_gone_ends_the_subscription() -> None:
    assert retries.decide(Attempt(410), attempts=1, since_ms=NOW, now_ms=NOW, jitter=0.5) == Decision(
        State.PARKED, disables=True
    )


@pytest.mark.parametrize(
    ("status", "value", "asked_ms"),
    [
        (429, "120", 120_000),
        (503, "120", 120_000),
        (500, "120", 0),  # only those two may ask
        (429, "Thu, 01 Jan 2026 08:10:00 GMT", 600_000),
        (429, "Thu, 01 Jan 2026 07:00:00 GMT", 0),
        (429, "99999999999999999999", retries.RETRY_AFTER_MS_MAX),
        (429, "-5", 0),
        (429, "soon", 0),
        (429, "", 0),
        (429, "١٢", 0),
        (429, "Thu, 99 Foo 2026", 0),
    ],
)
def test_a_receiver_is_left_alone_for_as_long_as_it_asks(status: int, value: str, asked_ms: int) -> None:
    decision = retries.decide(Attempt(status, retry_after=value), attempts=1, since_ms=NOW, now_ms=NOW, jitter=0.0)
    assert decision.next_ms - NOW == asked_ms + 1_000


@given(st.one_of(st.text(max_size=60), st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT"))))
def test_whatever_a_receiver_asks_for_is_between_nothing_and_a_day(value: str) -> None:
    assert 0 <= retries.retry_after_ms(value, NOW) <= retries.RETRY_AFTER_MS_MAX


def test_waits_grow_to_a_cap_and_are_spread() -> None:
    ceilings = [retries.backoff_ms(attempts, 1.0) for attempts in range(1, 40)]
    assert ceilings[:4] == [5_000, 10_000, 20_000, 40_000]
    assert ceilings == sorted(ceilings)
    assert ceilings[-1] == RETRY_MS_CAP
    rng = random.Random(1)
    spread = [retries.backoff_ms(8, rng.random()) for _ in range(1_000)]
    assert min(spread) < ceilings[7] / 10 < ceilings[7] * 0.9 < max(spread)


def test_three_days_are_some_eighty_attempts() -> None:
    rng, now_ms, attempts = random.Random(2), NOW, 0
    while True:
        attempts += 1
        decision = retries.decide(Attempt(500), attempts=attempts, since_ms=NOW, now_ms=now_ms, jitter=rng.random())
        if decision.state is State.PARKED:
            break
        now_ms = decision.next_ms
    assert 72 <= attempts <= 200


def test_a_subscription_that_fails_rests_for_longer_and_longer_but_never_long() -> None:
    rests = [retries.rest_ms(failures) for failures in range(40)]
    assert rests[:3] == [0, 0, 0]
    assert rests == sorted(rests)
    assert rests[-1] == retries.REST_MS_CAP


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/fieldfleet?key=1",
        "https://hooks.example.org:8443",
        "https://10.1.2.3/hook",  # a site's own network
        "https://[fd12:3456::1]/hook",
        "http://127.0.0.1:9000/hook",
        "http://localhost/hook",
        "http://[::1]:9000/",
        "https://127.0.0.1/",
    ],
)
def test_targets_that_are_taken(url: str) -> None:
    assert targets.parse(url).host in url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.org",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "http://hooks.example.org/",  # readable by everybody on the way
        "http://10.1.2.3/",
        "http://localhost.example.org/",
        "https://user:pass@hooks.example.org/",
        "https://@hooks.example.org/",
        "https://hooks.example.org/#part",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:99999/",
        "https://hooks.example.org:x/",
        "https:///path",
        "https://ho oks.example.org/",
        "https://hooks.example.org/\r\nHost: other",
        "https://hooks.example.org/\x00",
        "https://hooks.exämple.org/",
        "https://" + "a" * 3_000,
        "https://-hooks.example.org/",
        "https://[::1",
        # where clouds keep their instances' credentials
        "https://169.254.169.254/latest/meta-data/",
        "http://169.254.169.254/latest/meta-data/",
        "https://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:a9fe:a9fe::]/",
        "https://[fd00:ec2::254]/",
        "https://100.100.100.200/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "http://[::ffff:10.0.0.1]/",
    ],
)
def test_targets_that_are_refused(url: str) -> None:
    with pytest.raises(targets.TargetError, match=r"expected|never sent to|reserved"):
        targets.parse(url)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
def test_a_number_that_a_resolver_may_take_for_an_address_is_asked_as_a_name(host: str) -> None:
    # plain http to it is refused; over https the resolver's answer is what is checked
    assert targets.address_of(host) is None
    with pytest.raises(targets.TargetError):
        targets.parse(f"http://{host}/")
