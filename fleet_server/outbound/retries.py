"""What becomes of a delivery after an attempt. Pure: what came back, its age and the time in, a decision out."""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final

RETRY_MS_MIN: Final = 5_000
RETRY_MS_CAP: Final = 3_600_000
GIVE_UP_MS: Final = 72 * 3_600_000
"""A delivery that is older than this is parked when an attempt fails."""
RETRY_AFTER_MS_MAX: Final = 24 * 3_600_000
RETRY_AFTER_DIGITS_MAX: Final = 9
DOUBLINGS_MAX: Final = 16
FAILURES_TOLD: Final = 5
"""Failures in a row after which operators are told that a subscription fails."""
REST_FAILURES_MIN: Final = 3
"""After so many failures in a row a subscription is tried with one delivery at a time, and rests between."""
REST_MS_CAP: Final = 300_000


class State(StrEnum):
    """Of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    PARKED = "parked"
    """Not tried again unless an operator says so."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came back. ``status``: of HTTP or SMTP, 0 if there was no answer; then ``error`` says why."""

    status: int
    error: str = ""
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """``next_ms``: when it is tried again, if it is pending; ``disables``: the subscription is not to be served."""

    state: State
    next_ms: int = 0
    disables: bool = False


def decide(attempt: Attempt, *, attempts: int, since_ms: int, now_ms: int, jitter: float) -> Decision:
    """What to do after an attempt at a webhook.

    Args:
        attempt: what came back.
        attempts: made so far, this one included.
        since_ms: when the delivery became due for the first time, or an operator asked for it again.
        now_ms: the server's clock.
        jitter: 0 to 1, evenly; full jitter, so that receivers that come back are not met by all at once.
    """
    if 200 <= attempt.status < 300:
        return Decision(State.DELIVERED)
    if attempt.status == HTTPStatus.GONE:
        return Decision(State.PARKED, disables=True)
    if now_ms - since_ms >= GIVE_UP_MS:
        return Decision(State.PARKED)
    asked_ms = 0
    if attempt.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        asked_ms = retry_after_ms(attempt.retry_after, now_ms)
    return Decision(State.PENDING, now_ms + asked_ms + backoff_ms(attempts, jitter))


def backoff_ms(attempts: int, jitter: float) -> int:
    """How long to wait after so many failures: at least one second, so that a jitter of 0 is no hammer."""
    ceiling = min(RETRY_MS_CAP, RETRY_MS_MIN * 2 ** min(DOUBLINGS_MAX, max(0, attempts - 1)))
    return 1_000 + int(jitter * (ceiling - 1_000))


def rest_ms(failures: int) -> int:
    """How long a subscription that failed so often in a row is left alone."""
    return 0 if failures < REST_FAILURES_MIN else min(REST_MS_CAP, RETRY_MS_MIN * 2 ** min(DOUBLINGS_MAX, failures))


def retry_after_ms(value: str, now_ms: int) -> int:
    """How long a receiver asks to be left alone: seconds or a date; 0 if it says neither, never more than a day."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        wait_ms = int(text[:RETRY_AFTER_DIGITS_MAX]) * 1000
    else:
        try:
            at = parsedate_to_datetime(text)
            wait_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000) - now_ms
        except (ValueError, OverflowError, TypeError, IndexError):  # whatever a receiver may write
            return 0
    return max(0, min(RETRY_AFTER_MS_MAX, wait_ms))
