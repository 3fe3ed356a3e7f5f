"""What a driver answers: for each point a reading or a failure, never all or nothing."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias


class Quality(StrEnum):
    """How far a reading can be trusted, by the instrument's own word."""

    GOOD = "good"
    STALE = "stale"
    BAD = "bad"


class Reading(NamedTuple):
    """``device_ms``: the instrument's own time, ms since the epoch, if it tells one; ``received_ms``: ms since the
    board booted when the answer was complete.
    """

    value: float
    quality: Quality
    device_ms: int | None
    received_ms: int


class Failed(NamedTuple):
    """A point that could not be read; *why* is one line."""

    why: str


Result: TypeAlias = Reading | Failed
Results: TypeAlias = Mapping[str, Result]
"""Point -> result; every point that was asked for is in it."""


class Identity(NamedTuple):
    """Who an instrument says it is; empty: it does not tell."""

    serial: str = ""
    model: str = ""
    firmware: str = ""
