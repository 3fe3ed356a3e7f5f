"""Decides what the link may be used for at this hour: how many bytes a second of files, and how urgent they must be.

The first rule that is for this link and this hour counts; without one there is no limit.
"""

from collections.abc import Iterable
from datetime import time
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from broker_config.device_classes import Priority
from broker_config.limits import CHUNK_BYTES_MIN

ALL: Final = frozenset(Priority)
METERED: Final = frozenset({Priority.ALARM, Priority.FLAGGED})
"""What is worth money."""
LINK_CHARS_MAX: Final = 32

Link = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{0,32}\Z")]


class Limit(Struct, frozen=True, forbid_unknown_fields=True):
    """``[uploads.limits.NAME]``. ``link`` empty: any; ``hours``: local time, ``22:00-06:00``, empty: always.
    ``bytes_per_s`` 0: as many as the server takes. ``metered``: only what is flagged or an alarm, unless
    ``priorities`` says otherwise; those empty and not metered: all; ``paused``: none.
    """

    link: Link = ""
    hours: Annotated[str, Meta(pattern=r"^((([01]\d|2[0-3]):[0-5]\d)-(([01]\d|2[0-3]):[0-5]\d))?\Z")] = ""
    bytes_per_s: Annotated[int, Meta(ge=0, le=10**10)] = 0
    metered: bool = False
    priorities: tuple[Priority, ...] = ()
    paused: bool = False

    def __post_init__(self) -> None:
        """A rate below a chunk's minimum in a second would be a pause by another name."""
        if 0 < self.bytes_per_s < CHUNK_BYTES_MIN // 16:
            raise ValueError(f"bytes_per_s: expected 0 or at least {CHUNK_BYTES_MIN // 16}, got {self.bytes_per_s}")


class Allowed(NamedTuple):
    """``bytes_per_s`` None: without limit."""

    bytes_per_s: int | None
    priorities: frozenset[Priority]


NO_LIMIT: Final = Allowed(None, ALL)
EVIDENCE_ONLY: Final = Allowed(None, ALL - {Priority.LOG})
"""Of a device that is lost, whatever the hour and the price of its link."""


def allowed(limits: Iterable[Limit], link: str, now: time) -> Allowed:
    """*now*: local time."""
    for limit in limits:
        if limit.link in {"", link} and _within(limit.hours, now):
            priorities = frozenset(limit.priorities) or (METERED if limit.metered else ALL)
            return Allowed(limit.bytes_per_s or None, frozenset() if limit.paused else priorities)
    return NO_LIMIT


def _within(hours: str, now: time) -> bool:
    if not hours:
        return True
    begin, end = (time.fromisoformat(part) for part in hours.split("-"))
    return begin <= now < end if begin <= end else now >= begin or now < end
