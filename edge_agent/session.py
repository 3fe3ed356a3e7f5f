"""Decides what the agent does about its connection.

Rule 1: everything that moves a session between states is in TRANSITIONS; any other pair is refused.
Rule 2: nothing here reads a clock or opens a socket. Facts come in as events; intentions go out as effects, and
``agent.py`` carries them out in their order.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Protocol

EXPONENT_MAX: Final = 16
"""Beyond this many failures the back-off grows no more, whatever its cap."""


class State(StrEnum):
    """``draining``: asked to stop, and what is spooled still goes out."""

    OFFLINE = "offline"
    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DRAINING = "draining"


class Event(StrEnum):
    """What happens to a session. ``stable``: connected for ``stable_s``; ``silent``: nothing sent for
    ``keep_alive_s``; ``dates_refused``: the handshake failed on validity dates alone.
    """

    START = "start"
    RETRY = "retry"
    UP = "up"
    FAILED = "failed"
    DATES_REFUSED = "dates_refused"
    LOST = "lost"
    STABLE = "stable"
    SILENT = "silent"
    STOP = "stop"
    DRAINED = "drained"


class Effect(StrEnum):
    """What is to be done. ``hand_over``: the connection goes to those who speak for themselves."""

    CONNECT = "connect"
    RETURN_LATER = "return_later"
    RETRY_LATER = "retry_later"
    HAND_OVER = "hand_over"
    BIRTH = "birth"
    OFFER_AGAIN = "offer_again"
    ASK_TIME = "ask_time"
    FORGET_FAILURES = "forget_failures"
    DISTRUST_CLOCK = "distrust_clock"
    NOTE_UP = "note_up"
    NOTE_DOWN = "note_down"
    DRAIN = "drain"
    FAREWELL = "farewell"
    LEAVE = "leave"


class RefusedEventError(Exception):
    """An event that cannot happen in that state: a mistake of ours."""


S, E, F = State, Event, Effect

TRANSITIONS: Final[Mapping[tuple[State, Event], tuple[State, tuple[Effect, ...]]]] = {
    (S.OFFLINE, E.START): (S.CONNECTING, (F.CONNECT,)),
    (S.OFFLINE, E.STOP): (S.OFFLINE, (F.LEAVE,)),
    (S.CONNECTING, E.UP): (S.CONNECTED, (F.NOTE_UP, F.BIRTH, F.ASK_TIME, F.OFFER_AGAIN, F.HAND_OVER)),
    (S.CONNECTING, E.FAILED): (S.WAITING, (F.RETRY_LATER,)),
    (S.CONNECTING, E.DATES_REFUSED): (S.WAITING, (F.DISTRUST_CLOCK, F.RETRY_LATER)),
    (S.CONNECTING, E.STOP): (S.OFFLINE, (F.LEAVE,)),
    (S.WAITING, E.RETRY): (S.CONNECTING, (F.CONNECT,)),
    (S.WAITING, E.STOP): (S.OFFLINE, (F.LEAVE,)),
    (S.CONNECTED, E.STABLE): (S.CONNECTED, (F.FORGET_FAILURES,)),
    (S.CONNECTED, E.SILENT): (S.CONNECTED, (F.BIRTH,)),
    (S.CONNECTED, E.LOST): (S.WAITING, (F.NOTE_DOWN, F.RETURN_LATER)),
    (S.CONNECTED, E.STOP): (S.DRAINING, (F.DRAIN,)),
    (S.DRAINING, E.DRAINED): (S.OFFLINE, (F.FAREWELL, F.LEAVE)),
    (S.DRAINING, E.LOST): (S.OFFLINE, (F.LEAVE,)),
}


def step(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """The next state and what to do on the way. Raises RefusedEventError."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise RefusedEventError(f"{event} in state {state}") from None


class Wait(Protocol):
    """:func:`return_s` or :func:`retry_s`."""

    def __call__(self, bound: float, *, spread_s: float, uniform: Callable[[float, float], float]) -> float: ...


def bound_s(failures: int, *, s_min: float, s_cap: float) -> float:
    """The back-off's bound, which doubles with each failure after the first up to *s_cap*."""
    return min(s_cap, s_min * 2.0 ** min(max(0, failures - 1), EXPONENT_MAX))


def return_s(bound: float, *, spread_s: float, uniform: Callable[[float, float], float]) -> float:
    """When to come back after a connection was lost: full jitter, over the server's spread where that is longer, so
    that a fleet that lost its broker at once does not come back at once.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return uniform(0.0, max(bound, spread_s))


def retry_s(bound: float, *, spread_s: float, uniform: Callable[[float, float], float]) -> float:
    """When to try again after a connection could not be made: full jitter, a whole spread later.

    Nobody tries twice within one spread. So a fleet whose first tries fill one spread evenly never tries more often
    than that, however long the broker is away; jitter over the spread alone would come to e times as many.
    """
    return spread_s + uniform(0.0, bound)
