"""Over how long devices that lose their broker at once come back, so that no second sees more than is stated. Pure.

A device draws its moment evenly from the spread, so the connections of a second scatter about their mean as
independent draws do: by its square root. The mean is aimed so far below the stated rate that the rate is a peak.
"""

import math
from typing import Final

from broker_config import limits

DEVIATIONS: Final = 6.0
"""The stated rate lies so many standard deviations above the mean. Any second of a minute may be the worst one, those
who tried while the broker was still away come on top, and on a busy machine they come in clumps."""
GROWING_SHARE: Final = 0.25
"""While a fleet comes, a spread that differs from what was said by less than this is no news."""
SETTLED_SHARE: Final = 0.005
"""So little from one look to the next is a fleet that is there."""
DIFFERS_SHARE: Final = 0.02
"""And then, a spread that differs from what was said by less than this is no news."""
DIFFERS_MS_MIN: Final = 100
"""Nor is one that differs by less than this: a device's own back-off begins with a second."""


def aim(a_second_max: int) -> float:
    """The mean of connections a second, whose DEVIATIONS above it reach *a_second_max*."""
    return (math.sqrt(DEVIATIONS**2 / 4 + a_second_max) - DEVIATIONS / 2) ** 2


def spread_ms(devices: int, *, a_second_max: int) -> int:
    """What to tell *devices*. At the contract's bound the rate is exceeded: see :func:`is_kept`."""
    return min(limits.RECONNECT_SPREAD_MS_MAX, _wanted_ms(devices, a_second_max))


def is_kept(devices: int, *, a_second_max: int) -> bool:
    """Whether the longest spread that the contract knows is long enough."""
    return _wanted_ms(devices, a_second_max) <= limits.RECONNECT_SPREAD_MS_MAX


def is_news(said_ms: int, before_ms: int, now_ms: int) -> bool:
    """Whether a spread differs enough from the one that was said to be said to every device.

    Args:
        said_ms: the spread that devices know.
        before_ms: what it would have been at the look before.
        now_ms: what it would be now.
    """
    settled = abs(now_ms - before_ms) <= SETTLED_SHARE * now_ms
    return abs(now_ms - said_ms) > max(DIFFERS_MS_MIN, said_ms * (DIFFERS_SHARE if settled else GROWING_SHARE))


def _wanted_ms(devices: int, a_second_max: int) -> int:
    return math.ceil(1000 * devices / aim(a_second_max))
