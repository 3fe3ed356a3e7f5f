"""Plays a GNSS receiver: RMC, GGA and GSA of a drive."""

from datetime import datetime
from functools import reduce
from operator import xor
from typing import Final

from firmware_bridge.peripherals.drive import Drive, Moment

KNOTS_PER_MPS: Final = 3600 / 1852


def sentence(body: str) -> bytes:
    """With its checksum, as it goes onto the wire."""
    return f"${body}*{reduce(xor, body.encode(), 0):02X}\r\n".encode()


def _angle(degrees: float, width: int, directions: str) -> str:
    minutes_1e4 = round(abs(degrees) * 600_000)
    whole, rest = divmod(minutes_1e4, 600_000)
    return f"{whole:0{width}d}{rest / 10_000:07.4f},{directions[degrees < 0]}"


def burst(moment: Moment, utc: datetime, *, fix: bool = True) -> bytes:
    """What a receiver says of one moment."""
    clock, day = f"{utc:%H%M%S}.{utc.microsecond // 10_000:02d}", f"{utc:%d%m%y}"
    if not fix:
        return b"".join(
            sentence(body)
            for body in (
                f"GPRMC,{clock},V,,,,,,,{day},,,N",
                f"GPGGA,{clock},,,,,0,00,99.99,,,,,,",
                "GPGSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99",
            )
        )
    place = f"{_angle(moment.lat, 2, 'NS')},{_angle(moment.lon, 3, 'EW')}"
    knots = moment.speed_mps * KNOTS_PER_MPS
    return b"".join(
        sentence(body)
        for body in (
            f"GPRMC,{clock},A,{place},{knots:.2f},{moment.course_deg:.1f},{day},,,A",
            f"GPGGA,{clock},{place},1,09,0.90,{moment.alt_m:.1f},M,45.8,M,,",
            "GPGSA,A,3,04,05,09,12,24,25,29,31,32,,,,1.70,0.90,1.40",
        )
    )


class Gnss:
    """A receiver that has its fix."""

    def __init__(self, seed: int) -> None:
        self._drive = Drive(seed)

    def burst(self, seconds: float, utc: datetime) -> bytes:
        """Of the moment *seconds* after the start."""
        return burst(self._drive.at(seconds), utc)
