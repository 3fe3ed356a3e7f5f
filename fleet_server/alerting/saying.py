"""A value with its unit, for people."""

from typing import Final

from fleet_server.texts import Texts, marked

_TIMES: Final = (
    (86_400.0, 2.0, marked("{count} d")),
    (3_600.0, 2.0, marked("{count} h")),
    (60.0, 2.0, marked("{count} min")),
    (0.0, 0.0, marked("{count} s")),
)
"""Seconds of each, how many of them there must be, and how they are said."""
_BYTES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_KIB: Final = 1024.0


def said(text: Texts, value: str | float, unit: str) -> str:
    """*unit* as SenML names it; a length of time without its sign, for the words around it say which way."""
    if isinstance(value, str):
        return value
    match unit:
        case "s":
            return _time(text, abs(value))
        case "ms" if abs(value) >= 10_000:
            return _time(text, abs(value) / 1_000)
        case "ms":
            return f"{abs(value):.0f} ms"
        case "/":
            return f"{100 * value:.0f} %"
        case "B" | "B/s":
            return _bytes(value) + unit[1:]
        case "count" | "1":
            return f"{value:g}"
        case _:
            return f"{value:g} {unit}"


def _time(text: Texts, seconds: float) -> str:
    for each, least, key in _TIMES:
        if seconds >= each * least:
            return text(key, count=round(seconds / (each or 1)))
    raise AssertionError(seconds)


def _bytes(value: float) -> str:
    for unit in _BYTES[:-1]:
        if abs(value) < _KIB:
            return f"{value:.3g} {unit}"
        value /= _KIB
    return f"{value:.3g} {_BYTES[-1]}"
