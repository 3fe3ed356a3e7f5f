"""A car on a drive through a town: the same drive for the same seed, as a function of time."""

import math
import random
from dataclasses import dataclass
from typing import Final

# a round through the middle of Greenwich; latitude, longitude
ROUTE: Final = (
    (51.4779, -0.0015),
    (51.4812, -0.0098),
    (51.4836, -0.0057),
    (51.4868, 0.0021),
    (51.4842, 0.0124),
    (51.4795, 0.0152),
    (51.4754, 0.0091),
    (51.4748, 0.0004),
)
SPEED_MPS: Final = 11.0
STOP_EVERY_S: Final = 90.0
STOP_S: Final = 15.0
M_PER_DEGREE: Final = 111_320.0


@dataclass(frozen=True, slots=True)
class Moment:
    """``course_deg``: from north, clockwise."""

    lat: float
    lon: float
    alt_m: float
    speed_mps: float
    course_deg: float
    driven_m: float


def _leg_m(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Metres to the north and to the east."""
    return (
        (end[0] - start[0]) * M_PER_DEGREE,
        (end[1] - start[1]) * M_PER_DEGREE * math.cos(math.radians(start[0])),
    )


_LEGS: Final = tuple(_leg_m(ROUTE[at], ROUTE[(at + 1) % len(ROUTE)]) for at in range(len(ROUTE)))
_ROUND_M: Final = sum(math.hypot(*leg) for leg in _LEGS)


class Drive:
    """Where the car is so many seconds after it started."""

    def __init__(self, seed: int) -> None:
        self._start_m = random.Random(seed).uniform(0, _ROUND_M)  # noqa: S311  # a play

    def at(self, seconds: float) -> Moment:
        """It drives, stops at a light, and drives on."""
        rounds, within = divmod(seconds, STOP_EVERY_S)
        driving_s = STOP_EVERY_S - STOP_S
        driven_m = SPEED_MPS * (rounds * driving_s + min(within, driving_s))
        at_m = (self._start_m + driven_m) % _ROUND_M
        leg = 0
        while at_m > math.hypot(*_LEGS[leg]) and leg < len(_LEGS) - 1:
            at_m -= math.hypot(*_LEGS[leg])
            leg += 1
        north, east = _LEGS[leg]
        share = min(1.0, at_m / math.hypot(north, east))
        start, end = ROUTE[leg], ROUTE[(leg + 1) % len(ROUTE)]
        return Moment(
            lat=start[0] + (end[0] - start[0]) * share,
            lon=start[1] + (end[1] - start[1]) * share,
            alt_m=25.0 + 8.0 * math.sin(driven_m / 400),
            speed_mps=SPEED_MPS if within < driving_s else 0.0,
            course_deg=math.degrees(math.atan2(east, north)) % 360,
            driven_m=driven_m,
        )
