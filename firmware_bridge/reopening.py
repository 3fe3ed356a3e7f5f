"""When a port that went away is opened again."""

from collections.abc import Callable
from typing import Final

S_MIN: Final = 0.5
S_CAP: Final = 10.0
"""Opening a path costs nothing, and who has just plugged a cable in is looking at it."""
S_FLOOR: Final = 0.05
LOOK_S: Final = 0.25
"""So often it is looked whether a port that is away is there again."""
STABLE_S: Final = 60.0
"""A port that has carried traffic for so long has earned quick attempts again."""


def delay_s(failures: int, uniform: Callable[[float, float], float]) -> float:
    """How long to wait after so many failures in a row (from 1), with full jitter."""
    return max(S_FLOOR, uniform(0.0, min(S_CAP, S_MIN * 2.0 ** min(failures - 1, 16))))
