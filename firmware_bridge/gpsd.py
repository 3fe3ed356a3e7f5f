"""What gpsd tells of a receiver: lines of JSON, and what of a position each report is.

Source: gpsd_json(5). TPV tells place, height, speed, time and how the fix was made, SKY the precision.
"""

import math
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from broker_config.text import shown
from firmware_bridge.position import NOTHING, Part

PROTOCOL: Final = 3
MODE_2D: Final = 2
MODES: Final = frozenset({0, 1, 2, 3})
LINE_BYTES_MAX: Final = 16_384
"""Its own bound is 10,240."""
DEGREES_DIGITS: Final = 7


class Strange(NamedTuple):
    """A line that is not gpsd's; *why* is one line."""

    why: str


class Device(NamedTuple):
    """gpsd has let go of a receiver, or found one; *path* is its own name for it."""

    path: str
    there: bool


Told: TypeAlias = Part | Device | Strange


class _Report(Struct):
    """The reports that count here, in one; what a report lacks is None."""

    kind: str = msgspec.field(name="class")
    device: str | None = None
    path: str | None = None
    mode: int | None = None
    time: str | None = None
    lat: float | None = None
    lon: float | None = None
    alt_m: float | None = msgspec.field(default=None, name="altMSL")
    alt_old_m: float | None = msgspec.field(default=None, name="alt")
    speed_mps: float | None = msgspec.field(default=None, name="speed")
    hdop: float | None = None
    proto_major: int | None = None
    activated: str | float | None = None
    message: str | None = None


_decode: Final = msgspec.json.Decoder(_Report).decode
_BOUNDS: Final = {
    "lat": (-90.0, 90.0),
    "lon": (-180.0, 180.0),
    "alt_m": (-1000.0, 100_000.0),
    "speed_mps": (0.0, 2000.0),
    "hdop": (0.0, 99.99),
}


def watch(device: str) -> bytes:
    """The line that asks for reports: of *device*, or of every one if it is empty."""
    asked = {"enable": True, "json": True} | ({"device": device} if device else {})
    return b"?WATCH=" + msgspec.json.encode(asked) + b";\n"


def parse(line: bytes, device: str) -> Told:
    """Read one line; NOTHING: it is of no use here, or of another receiver than *device* (empty: any is good)."""
    try:
        report = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Strange(f"not a report of gpsd's: {shown(error, 80)}")
    if device and device != (report.path if report.kind == "DEVICE" else report.device or device):
        return NOTHING
    match report.kind:
        case "VERSION":
            if report.proto_major == PROTOCOL:
                return NOTHING
            return Strange(f"expected protocol {PROTOCOL} of gpsd, got {report.proto_major}")
        case "TPV":
            return _tpv(report)
        case "SKY":
            return Part(None, _values(report, "hdop"), None)
        case "DEVICE":
            return Device(shown(report.path or ""), report.activated not in {None, 0})
        case "ERROR":
            return Strange(f"gpsd says: {shown(report.message or 'an error', 80)}")
        case _:
            return NOTHING


def _tpv(report: _Report) -> Part:
    if report.mode not in MODES or report.mode < MODE_2D:
        return Part(valid=False, values={}, utc_ms=None)
    values = _values(report, "lat", "lon", "speed_mps")
    if "lat" not in values or "lon" not in values:
        return NOTHING
    values |= {"lat": round(values["lat"], DEGREES_DIGITS), "lon": round(values["lon"], DEGREES_DIGITS)}
    if report.mode > MODE_2D:
        values |= _values(report, "alt_m") or _values(report, "alt_old_m", as_name="alt_m")
    return Part(valid=True, values={**values, "fix": float(report.mode)}, utc_ms=_utc_ms(report.time))


def _values(report: _Report, *names: str, as_name: str = "") -> dict[str, float]:
    """Those that are there and can be."""
    out: dict[str, float] = {}
    for name in names:
        found = getattr(report, name)
        low, high = _BOUNDS[as_name or name]
        if found is not None and math.isfinite(found) and low <= found <= high:
            out[as_name or name] = float(found)
    return out


def _utc_ms(text: str | None) -> int | None:
    """A receiver whose clock is not set has none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return int(moment.timestamp() * 1000) if moment.tzinfo is not None else None
