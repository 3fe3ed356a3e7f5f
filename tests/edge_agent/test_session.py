import itertools
import random
from collections import Counter

import pytest

from edge_agent import session
from edge_agent.session import TRANSITIONS, Effect, Event, State


@pytest.mark.parametrize(("state", "event"), sorted(set(itertools.product(State, Event)) - set(TRANSITIONS)))
def test_what_is_not_in_the_table_is_refused(state: State, event: Event) -> None:
    with pytest.raises(session.RefusedEventError, match=f"{event} in state {state}"):
        session.step(state, event)


@pytest.mark.parametrize(("state", "event"), sorted(TRANSITIONS))
def test_every_state_can_be_stopped(state: State, event: Event) -> None:
    after, _ = session.step(state, event)
    if after is State.DRAINING:
        after, effects = session.step(after, Event.DRAINED)
        assert effects == (Effect.FAREWELL, Effect.LEAVE)
    else:
        after, effects = session.step(after, Event.STOP)
        assert after is State.DRAINING or Effect.LEAVE in effects


def test_a_connection_begins_with_a_birth_then_offers_again() -> None:
    _, effects = session.step(State.CONNECTING, Event.UP)
    assert effects.index(Effect.BIRTH) < effects.index(Effect.OFFER_AGAIN)


def test_only_a_stable_connection_forgets_failures() -> None:
    assert [event for (_, event), (_, effects) in TRANSITIONS.items() if Effect.FORGET_FAILURES in effects] == [
        Event.STABLE
    ]


@pytest.mark.parametrize(
    ("failures", "bound"),
    [
        (1, 1.0),
        (2, 2.0),
        (5, 16.0),
        (7, 60.0),  # 64, but for the cap
        (10_000, 60.0),  # no overflow after a year without a broker
    ],
)
def test_the_bound_doubles_with_each_failure(failures: int, bound: float) -> None:
    assert session.bound_s(failures, s_min=1.0, s_cap=60.0) == bound


def earliest(low: float, high: float) -> float:
    return low


def latest(low: float, high: float) -> float:
    return high


@pytest.mark.parametrize(
    ("wait", "bound", "spread_s", "from_s", "to_s"),
    [
        (session.return_s, 1.0, 0.0, 0.0, 1.0),
        (session.return_s, 1.0, 0.02, 0.0, 1.0),  # a small site is as quick as without a spread
        (session.return_s, 1.0, 44.0, 0.0, 44.0),
        (session.return_s, 60.0, 44.0, 0.0, 60.0),
        (session.retry_s, 2.0, 0.0, 0.0, 2.0),
        (session.retry_s, 2.0, 44.0, 44.0, 46.0),
        (session.retry_s, 60.0, 44.0, 44.0, 104.0),
    ],
)
def test_a_wait_is_anywhere_between(
    wait: session.Wait, bound: float, spread_s: float, from_s: float, to_s: float
) -> None:
    assert wait(bound, spread_s=spread_s, uniform=earliest) == from_s
    assert wait(bound, spread_s=spread_s, uniform=latest) == to_s


def tries_s(rng: random.Random, *, spread_s: float, away_s: float) -> list[float]:
    """When one device of a fleet tries whose broker went away at 0, the try that succeeds included."""
    failures, at_s = 1, session.return_s(1.0, spread_s=spread_s, uniform=rng.uniform)
    tries = [at_s]
    while at_s < away_s:
        failures += 1
        bound = session.bound_s(failures, s_min=1.0, s_cap=60.0)
        at_s += session.retry_s(bound, spread_s=spread_s, uniform=rng.uniform)
        tries.append(at_s)
    return tries


@pytest.mark.parametrize("away_s", [0.0, 2.0, 30.0, 300.0])
def test_however_long_the_broker_is_away_no_second_sees_more_tries_than_the_spread_means(away_s: float) -> None:
    rng, devices, spread_s = random.Random(1), 4_000, 20.0
    seconds = Counter(int(at_s) for _ in range(devices) for at_s in tries_s(rng, spread_s=spread_s, away_s=away_s))
    mean = devices / spread_s
    assert max(seconds.values()) <= mean + 5 * mean**0.5
