"""Times as operators write them: ``now``, ``-90s``, ``-15m``, ``-1h``, ``-7d``, RFC 3339, or ms since the epoch."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from broker_config.text import shown

_RELATIVE: Final = re.compile(r"-(\d{1,9})([smhd])\Z", re.ASCII)
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def for_api(text: str, *, now_ms: int) -> str:
    """*text* as the API takes it; what is not relative is the API's to judge."""
    if text == "now":
        return str(now_ms)
    relative = _RELATIVE.match(text)
    if relative is None:
        return text
    return str(now_ms - int(relative[1]) * _UNIT_MS[relative[2]])


def parse(text: str, *, now_ms: int) -> int:
    """*text* as ms since the epoch. Raises ValueError: none of these, or RFC 3339 without an offset."""
    plain = for_api(text, now_ms=now_ms)
    if plain.isascii() and plain.isdigit():
        return int(plain)
    with suppress(ValueError):
        at = datetime.fromisoformat(plain)
        if at.tzinfo is not None:
            return round(at.timestamp() * 1000)
    raise ValueError(f"expected a time such as -7d or 2026-01-01T08:00:00Z, got {shown(text)!r}")


def utc(time_ms: int | None) -> str:
    """``2026-01-01 08:00:00Z``; empty if not known, the number itself if it has no date."""
    if time_ms is None:
        return ""
    try:
        return (_EPOCH + timedelta(milliseconds=time_ms)).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError):
        return f"{time_ms} ms"


def ago(time_ms: int | None, *, now_ms: int) -> str:
    """How long ago, in its largest unit: ``4 s ago``, ``12 min ago``; or ``never``."""
    if time_ms is None:
        return "never"
    seconds = max(0, now_ms - time_ms) // 1_000
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s} {unit} ago"
    return f"{seconds} s ago"
