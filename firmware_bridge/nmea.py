"""NMEA 0183: lines out of bytes, and what of a position each sentence tells.

RMC tells place, speed and date, GGA place, height and precision, GSA how the fix was made. Every sentence needs its
checksum.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from typing import Final

from firmware_bridge.left_out import left_out
from firmware_bridge.position import NOTHING, Part

# sentences of single makers, 0.3 MB, of which none tells a position here
with left_out("pynmea2.types.proprietary"):
    import pynmea2  # type: ignore[import-untyped]

LINE_BYTES_MAX: Final = 256
"""The standard says 82; receivers say more in sentences of their own."""
DEGREES_DIGITS: Final = 7
"""A centimetre."""
MPS_PER_KNOT: Final = 1852 / 3600
_DEGREES: Final = re.compile(r"(\d{1,3})([0-5]\d(?:\.\d+)?)")


class Lines:
    """Cuts bytes into lines. What precedes a ``$``, and a line that is too long, is thrown away."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The whole lines that *data* completes, without their ends."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= LINE_BYTES_MAX else b""
        for line in lines:
            start = line.rfind(b"$")
            if start >= 0 and len(line) - start <= LINE_BYTES_MAX:
                yield line[start:].rstrip(b"\r").decode("ascii", "replace")

    def clear(self) -> None:
        """Forget the line that has begun."""
        self._rest = b""


def parse(line: str) -> Part | None:
    """Read one sentence; None: it is not whole, or damaged, or not what it says. NOTHING: it is of no use here."""
    if not line.startswith("$"):
        return None
    try:
        sentence = pynmea2.parse(line, check=True)
    except (pynmea2.ParseError, ValueError, IndexError):  # the last two come from odd talkers
        return None
    match getattr(sentence, "sentence_type", ""):
        case "RMC":
            return _rmc(sentence)
        case "GGA":
            return _gga(sentence)
        case "GSA":
            return _gsa(sentence)
        case _:
            return NOTHING


def _rmc(told: pynmea2.NMEASentence) -> Part | None:
    if _text(told, "status") != "A":
        return Part(valid=False, values={}, utc_ms=None)
    place = _place(told)
    if place is None:
        return None
    knots = _number(_text(told, "spd_over_grnd"), 0, 2000)
    if knots is not None:
        place["speed_mps"] = round(knots * MPS_PER_KNOT, 3)
    return Part(valid=True, values=place, utc_ms=_utc_ms(told))


def _gga(told: pynmea2.NMEASentence) -> Part | None:
    quality = _number(_text(told, "gps_qual"), 0, 9)
    if quality is None:
        return None
    if quality == 0:
        return Part(valid=False, values={}, utc_ms=None)
    values = _place(told)
    if values is None:
        return None
    for name, field, low, high in (("alt_m", "altitude", -1000, 100_000), ("hdop", "horizontal_dil", 0, 99.99)):
        value = _number(_text(told, field), low, high)
        if value is not None:
            values[name] = value
    return Part(valid=True, values=values, utc_ms=None)


def _gsa(told: pynmea2.NMEASentence) -> Part | None:
    mode = _number(_text(told, "mode_fix_type"), 1, 3)
    if mode is None:
        return None
    values = {"fix": 0.0 if mode == 1 else mode}
    hdop = _number(_text(told, "hdop"), 0, 99.99)
    if hdop is not None and mode > 1:
        values["hdop"] = hdop
    return Part(valid=None, values=values, utc_ms=None)


def _text(told: pynmea2.NMEASentence, name: str) -> str:
    """A field as text; the library leaves as text what it cannot convert, and None what is empty."""
    value = getattr(told, name, None)
    return "" if value is None else str(value)


def _number(text: str, low: float, high: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if low <= value <= high else None


def _place(told: pynmea2.NMEASentence) -> dict[str, float] | None:
    lat = _angle(_text(told, "lat"), _text(told, "lat_dir"), "NS", 90)
    lon = _angle(_text(told, "lon"), _text(told, "lon_dir"), "EW", 180)
    return None if lat is None or lon is None else {"lat": lat, "lon": lon}


def _angle(text: str, direction: str, directions: str, degrees_max: int) -> float | None:
    """Degrees and minutes run together, as ``4916.45``."""
    found = _DEGREES.fullmatch(text)
    if found is None or len(direction) != 1 or direction not in directions:
        return None
    degrees = int(found[1]) + float(found[2]) / 60
    if degrees > degrees_max:
        return None
    return round(degrees if direction == directions[0] else -degrees, DEGREES_DIGITS)


def _utc_ms(told: pynmea2.NMEASentence) -> int | None:
    day, moment = getattr(told, "datestamp", None), getattr(told, "timestamp", None)
    if not isinstance(day, date) or not isinstance(moment, time_of_day):
        return None
    return int(datetime.combine(day, moment.replace(tzinfo=None), UTC).timestamp() * 1000)
