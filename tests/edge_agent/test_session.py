import itertools

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
def test_backoff_is_anywhere_up_to_a_bound_that_doubles(failures: int, bound: float) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    assert session.backoff_s(failures, s_min=1.0, s_cap=60.0, uniform=uniform) == bound
    assert asked == [(0.0, bound)]
