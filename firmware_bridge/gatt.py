"""What the standard BLE services tell: environmental sensing (0x181A), battery (0x180F), device information (0x180A).

Numbers are little-endian, each with the value by which a device says that it has none. Source: Bluetooth Assigned
Numbers, and the GATT Specification Supplement, section 3.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from broker_config.text import shown
from firmware_bridge.readings import Failed

ENVIRONMENT: Final = "181a"
BATTERY: Final = "180f"
DEVICE: Final = "180a"
SERVICES: Final = (ENVIRONMENT, BATTERY, DEVICE)


class Characteristic(NamedTuple):
    """A value = raw * ``scale`` of ``size`` bytes; from ``unknown`` on a raw value (``signed``: that one alone) says
    that there is none. ``low`` and ``high`` are of the value.
    """

    service: str
    number: str
    size: int
    signed: bool
    scale: float
    unknown: int | None
    low: float
    high: float


POINTS: Final[Mapping[str, Characteristic]] = {
    "temp_c": Characteristic(ENVIRONMENT, "2a6e", 2, True, 0.01, -0x8000, -273.15, 327.67),
    "humidity_pct": Characteristic(ENVIRONMENT, "2a6f", 2, False, 0.01, 0xFFFF, 0, 100),
    "pressure_pa": Characteristic(ENVIRONMENT, "2a6d", 4, False, 0.1, None, 0, 429_496_729.5),
    "dew_point_c": Characteristic(ENVIRONMENT, "2a7b", 1, True, 1, -0x80, -127, 127),
    "illuminance_lx": Characteristic(ENVIRONMENT, "2afb", 3, False, 0.01, 0xFF_FFFF, 0, 167_772.14),
    "co2_ppm": Characteristic(ENVIRONMENT, "2b8c", 2, False, 1, 0xFFFE, 0, 65_533),
    "battery_pct": Characteristic(BATTERY, "2a19", 1, False, 1, None, 0, 100),
}


class Text(NamedTuple):
    """A characteristic that is text."""

    service: str
    number: str


SERIAL: Final = Text(DEVICE, "2a25")
MODEL: Final = Text(DEVICE, "2a24")
FIRMWARE: Final = Text(DEVICE, "2a26")
TEXT_MAX: Final = 64
SMP_SERVICE: Final = "8d53dc1d-1db7-4cd3-868b-8a527460aa84"
SMP_CHARACTERISTIC: Final = "da2e7828-fbce-4e01-ae9e-261174997c48"
"""Of a microcontroller that is managed over SMP."""


def long_uuid(number: str) -> str:
    """The 128 bits of a 16 bit number, in hex as the library writes them."""
    return f"0000{number}-0000-1000-8000-00805f9b34fb"


def value(point: Characteristic, data: bytes) -> float | Failed:
    """What *data* says of *point*."""
    if len(data) != point.size:
        return Failed(f"0x{point.number}: expected {point.size} bytes, got {len(data)}")
    raw = int.from_bytes(data, "little", signed=point.signed)
    if point.unknown is not None and (raw == point.unknown if point.signed else raw >= point.unknown):
        return Failed("the device has no value")
    # what a decimal scale means, not what binary fractions make of it
    found = float(round(raw * point.scale, 9))
    if not point.low <= found <= point.high:
        return Failed(f"0x{point.number}: expected {point.low:g} to {point.high:g}, got {found:g}")
    return found


def text(data: bytes) -> str:
    """Of a characteristic of device information, as one printable line; some devices end it with zeros."""
    return shown(data.split(b"\0", 1)[0].decode("utf-8", "replace").strip(), TEXT_MAX)


def wrong_identity(expected: str, told: str) -> str | None:
    """Why a device is not the one that is meant; None: it is, or any is good."""
    if not expected or told == expected:
        return None
    return f"expected serial number {expected}, got {told or 'none'}"
