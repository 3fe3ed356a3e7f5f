"""What an answer to a write means, and how long to wait; and what is left of a body after an answer. Values only."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from fleet_server.projection.feed import Refused
from fleet_server.projection.points import Lines, halves
from fleet_server.projection.target import NO_ANSWER, Answer

BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_CAP: Final = 60.0
RETRY_AFTER_S_MAX: Final = 600.0
"""A server may ask for more; it is asked again all the same."""
REFUSED_RETRY_S: Final = 30.0
"""Between two tries at a server that will not have us: somebody has to change something first."""
_DOUBLINGS_MAX: Final = 16


class Verdict(StrEnum):
    """What to do next with a body."""

    WRITTEN = "written"
    SPLIT = "split"
    """Something in it is wrong: look for it in each half."""
    HALVE = "halve"
    """It is too large."""
    WAIT = "wait"
    """The same again, later, for ever."""
    REFUSED = "refused"
    """Nothing can be written until somebody changes something, here or there."""


VERDICTS: Final = {
    204: Verdict.WRITTEN,
    400: Verdict.SPLIT,
    422: Verdict.SPLIT,
    413: Verdict.HALVE,
    NO_ANSWER: Verdict.WAIT,
    408: Verdict.WAIT,
    425: Verdict.WAIT,
    429: Verdict.WAIT,
}
"""The rest: 5xx waits. Whatever else there is (200 and redirects too) is not what a time-series server says."""


def verdict(answer: Answer) -> Verdict:
    """What to do about *answer*."""
    found = VERDICTS.get(answer.status)
    if found is not None:
        return found
    return Verdict.WAIT if 500 <= answer.status <= 599 else Verdict.REFUSED


def wait_s(answer: Answer, found: Verdict, tries: int, rng: random.Random, now: datetime) -> float:
    """How long to wait after *answer*, which is the *tries*-th in a row that takes nothing.

    *found*: WAIT (as it asks, else doubling, with full jitter), or REFUSED.
    """
    if found is Verdict.REFUSED:
        return REFUSED_RETRY_S
    asked_s = retry_after_s(answer.retry_after, now)
    if asked_s:  # one that asks for no wait, or one that is over, is still not to be hammered
        return asked_s
    longest_s: float = min(BACKOFF_S_CAP, BACKOFF_S_MIN * 2 ** min(tries - 1, _DOUBLINGS_MAX))
    return rng.uniform(0, longest_s)


def retry_after_s(text: str, now: datetime) -> float | None:
    """``Retry-After`` as seconds from *now*, 0 to RETRY_AFTER_S_MAX; None if it is absent or means nothing."""
    if text.isascii() and text.strip().isdigit():
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max((at - now).total_seconds(), 0.0), RETRY_AFTER_S_MAX)


class Delivery:
    """One body on its way. ``body`` is what to write next, None when all of it is written or refused.

    A body that is at fault is halved until the fault stands alone: a bad point among n costs about 2 log2 n requests.
    Points that stood with it are written with their half, some of them twice.
    """

    def __init__(self, lines: Lines) -> None:
        self._waiting = [lines]
        self.written = 0
        self.refused: list[Refused] = []
        self.turned = False

    @property
    def body(self) -> Lines | None:
        return self._waiting[-1] if self._waiting else None

    def answered(self, found: Verdict, reason: str) -> None:
        """What became of ``body``; nothing changes at WAIT and REFUSED."""
        if found in (Verdict.WAIT, Verdict.REFUSED):
            return
        body = self._waiting.pop()
        if found is Verdict.WRITTEN:
            self.written += body.points
        elif body.points > 1:
            first, second = halves(body)
            self._waiting += (second, first)
        else:
            self.refused.append(Refused(body.data, reason))

    def turn(self) -> None:
        """Go on from the other end; once."""
        self._waiting.reverse()
        self.turned = True
