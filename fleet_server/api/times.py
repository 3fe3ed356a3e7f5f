"""Times in requests and answers.

In: RFC 3339 with an offset (``2026-01-01T08:00:00Z``), or ms since the epoch. Out: ms since the epoch in fields
that end in ``_ms``, and beside them the same as RFC 3339 in UTC, in fields that end in ``_at``. Devices' clocks
can be anything, so a time that has no date (before year 1, after 9999) is null in ``_at``.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NamedTuple, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema

from broker_config import limits
from fleet_server.api.problems import bad_request

Clock: TypeAlias = Callable[[], int]
"""Ms since the epoch, now."""

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
SPAN_MS_MAX: Final = 400 * DAY_MS
"""No request spans more."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_MS_TEXT: Final = re.compile(r"-?\d{1,16}\Z", re.ASCII)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)


def parse_time(text: object) -> int:
    """Ms since the epoch; a fraction of a ms is cut off. Raises ValueError."""
    if isinstance(text, str) and _MS_TEXT.match(text) and abs(int(text)) <= limits.TIME_MS_MAX:
        return int(text)
    if isinstance(text, str) and _RFC3339.match(text):
        try:
            return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MS
        except (ValueError, OverflowError):  # the 30th of February
            pass
    raise ValueError("expected RFC 3339 with an offset (a + in a URL is written %2B), or ms since the epoch")


def rfc3339(time_ms: int | None) -> str | None:
    """``2026-01-01T08:00:00.000Z``; None of None, and of what has no date."""
    if time_ms is None:
        return None
    try:
        return (_EPOCH + time_ms * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return None


_SCHEMA: Final[dict[str, object]] = {
    "oneOf": [
        {"type": "string", "format": "date-time", "example": "2026-01-01T08:00:00Z"},
        {"type": "integer", "minimum": -limits.TIME_MS_MAX, "maximum": limits.TIME_MS_MAX, "example": 1767254400000},
    ]
}
TimeIn: TypeAlias = Annotated[int, BeforeValidator(parse_time), WithJsonSchema(_SCHEMA)]
TimeMs: TypeAlias = Annotated[int, Field(description="Ms since the epoch.", examples=[1767254400000])]
TimeAt: TypeAlias = Annotated[
    str | None, Field(description="The same, RFC 3339 in UTC.", examples=["2026-01-01T08:00:00.000Z"])
]


class Span(NamedTuple):
    """``from_ms <= time < to_ms``."""

    from_ms: int
    to_ms: int


def span(from_ms: int | None, to_ms: int | None, *, now_ms: int, default_ms: int, span_ms_max: int) -> Span:
    """The range that a request means: to now, and *default_ms* long, unless it says otherwise.

    Raises:
        ProblemError: it ends before it begins, or is longer than *span_ms_max*.
    """
    end = now_ms if to_ms is None else to_ms
    begin = end - default_ms if from_ms is None else from_ms
    if begin >= end:
        raise bad_request("query.from", expected=f"a time before query.to, {rfc3339(end) or end}", got=str(begin))
    if end - begin > span_ms_max:
        expected = f"at most {span_ms_max // HOUR_MS} h between query.from and query.to"
        raise bad_request("query.from", expected=expected, got=f"{(end - begin) // HOUR_MS} h")
    return Span(begin, end)
