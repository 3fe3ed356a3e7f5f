"""NTCIP 1202 (actuated signal controllers) and 1201 (global objects): which objects to ask for, what they mean, and
which may be written.

The object identifiers are the standards' numbers; their MIB files are not needed and not here. A controller that is
asked for an object it lacks costs only the points that need it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from firmware_bridge.readings import Failed

Oid: TypeAlias = tuple[int, ...]
Known: TypeAlias = Mapping[Oid, "int | Failed"]
"""What was answered so far."""

_ASC: Final[Oid] = (1, 3, 6, 1, 4, 1, 1206, 4, 2, 1)
_GLOBAL: Final[Oid] = (1, 3, 6, 1, 4, 1, 1206, 4, 2, 6)

# 1202 section 2.2: a bit a phase, the lowest is the group's first; a row a group of eight
_PHASE_STATUS: Final[Oid] = (*_ASC, 1, 4, 1)
_COLOURS: Final = {"reds": 2, "yellows": 3, "greens": 4}
PHASES_A_GROUP: Final = 8
# section 2.3
VOLUME_PERIOD_S: Final[Oid] = (*_ASC, 2, 5, 2, 0)
_VOLUME: Final[Oid] = (*_ASC, 2, 5, 4, 1, 1)
_OCCUPANCY: Final[Oid] = (*_ASC, 2, 5, 4, 1, 2)
OCCUPANCY_MAX: Final = 200
"""Half percents; above it are codes of faults."""
# section 2.4
CONTROL_STATUS: Final[Oid] = (*_ASC, 3, 5, 0)
FLASH_STATUS: Final[Oid] = (*_ASC, 3, 6, 0)
ALARM_STATUS_1: Final[Oid] = (*_ASC, 3, 8, 0)
CONTROL_MANUAL: Final = 5
NOT_FLASH: Final = 2
CONFLICT_FLASH: Final = frozenset({5, 6})
"""Flash by the fault monitor, and by the MMU (malfunction management unit)."""
MMU_FLASH_BIT: Final = 4
# section 2.5
PATTERN_STATUS: Final[Oid] = (*_ASC, 4, 10, 0)
PATTERN_CONTROL: Final[Oid] = (*_ASC, 4, 14, 0)
_PATTERN_CYCLE_S: Final[Oid] = (*_ASC, 4, 7, 1, 2)
_PATTERN_OFFSET_S: Final[Oid] = (*_ASC, 4, 7, 1, 3)
PATTERN_MAX: Final = 253
FREE: Final = 254
FLASH: Final = 255
# 1201 section 2.4: seconds since 1970, UTC
GLOBAL_TIME: Final[Oid] = (*_GLOBAL, 3, 1, 0)

MODE_FLASH: Final = 1.0
MODE_PATTERN: Final = 2.0
MODE_FREE: Final = 3.0
MODE_MANUAL: Final = 4.0

POINTS: Final = (
    "plan",
    "mode",
    "cycle_s",
    "phase",
    "offset_s",
    "conflict_ok",
    "volume_vph",
    "occupancy_pct",
    "reds",
    "yellows",
    "greens",
    "time_s",
)
"""``phase``: the lowest that has green, 0 is none. ``reds`` and so on: a bit a phase, the lowest is phase 1.
``plan``: 0 is none. ``mode``: the class's, where a pattern counts as fixed time and running free as actuated.
``conflict_ok``: 0 while the controller says that its monitor holds the crossing in flash.
"""


class Layout(NamedTuple):
    """What this controller has: groups of eight phases, and the numbers of the detectors that count."""

    phase_groups: int
    detectors: tuple[int, ...]


class Setting(NamedTuple):
    """An object that may be written, and the values that it takes."""

    oid: Oid
    low: int
    high: int
    counter: bool = False


SETTINGS: Final = {
    # 0 standby, a pattern, 254 free, 255 flash
    "plan": Setting(PATTERN_CONTROL, 0, 255),
    "time_s": Setting(GLOBAL_TIME, 0, 0xFFFF_FFFF, counter=True),
}


class _NoValueError(Exception):
    """Of this point; the message says why."""


def dotted(oid: Oid) -> str:
    """As people write it."""
    return ".".join(map(str, oid))


def needs(points: Sequence[str], layout: Layout, known: Known) -> tuple[Oid, ...]:
    """The objects that *points* need and that are not known yet, each once. Some are only known to be needed once
    others are: ask again until there are none.
    """
    wanted = dict.fromkeys(oid for point in points for oid in _needs(point, layout, known))
    return tuple(oid for oid in wanted if oid not in known)


def _needs(point: str, layout: Layout, known: Known) -> tuple[Oid, ...]:
    groups = range(1, layout.phase_groups + 1)
    match point:
        case "plan":
            return (PATTERN_STATUS,)
        case "mode":
            return (FLASH_STATUS, CONTROL_STATUS, PATTERN_STATUS)
        case "cycle_s" | "offset_s":
            return (PATTERN_STATUS, *_of_pattern(point, known.get(PATTERN_STATUS)))
        case "phase":
            return tuple(_colour("greens", group) for group in groups)
        case "reds" | "yellows" | "greens":
            return tuple(_colour(point, group) for group in groups)
        case "conflict_ok":
            return (FLASH_STATUS, ALARM_STATUS_1)
        case "volume_vph":
            return (VOLUME_PERIOD_S, *((*_VOLUME, number) for number in layout.detectors))
        case "occupancy_pct":
            return tuple((*_OCCUPANCY, number) for number in layout.detectors)
        case "time_s":
            return (GLOBAL_TIME,)
        case _:
            return ()


def value(point: str, layout: Layout, known: Known) -> float | Failed:
    """What *known* says of *point*."""
    try:
        return float(_value(point, layout, known))
    except _NoValueError as error:
        return Failed(str(error))


def _value(point: str, layout: Layout, known: Known) -> float:
    match point:
        case "plan":
            pattern = _byte(known, PATTERN_STATUS)
            return pattern if pattern <= PATTERN_MAX else 0
        case "mode":
            return _mode(known)
        case "cycle_s" | "offset_s":
            pattern = _byte(known, PATTERN_STATUS)
            return sum(_byte(known, oid) for oid in _of_pattern(point, pattern))
        case "phase":
            greens = _bits("greens", layout, known)
            return (greens & -greens).bit_length()
        case "reds" | "yellows" | "greens":
            return _bits(point, layout, known)
        case "conflict_ok":
            return float(not conflict(known))
        case "volume_vph":
            return _volume_vph(layout, known)
        case "occupancy_pct":
            return _occupancy_pct(layout, known)
        case "time_s":
            return _number(known, GLOBAL_TIME, 0xFFFF_FFFF)
        case _:
            raise _NoValueError(f"expected one of {', '.join(POINTS)}, got {point[:40]!r}")


def device_ms(known: Known) -> int | None:
    """The controller's own time, ms since the epoch; None if it told none."""
    told = known.get(GLOBAL_TIME)
    return told * 1000 if isinstance(told, int) and told > 0 else None


def conflict(known: Known) -> bool:
    """Whether the controller says that its conflict monitor holds the crossing in flash.

    Raises:
        _NoValueError: it does not say.
    """
    flash, alarms = _byte(known, FLASH_STATUS), _byte(known, ALARM_STATUS_1)
    return flash in CONFLICT_FLASH or bool(alarms >> MMU_FLASH_BIT & 1)


GUARD: Final = (FLASH_STATUS, ALARM_STATUS_1)
"""What is asked before anything is written."""


def why_not_write(
    setting: str, asked: float, allowed: Mapping[str, tuple[int, ...]], known: Known | None
) -> str | None:
    """Why *setting* is not to be written as *asked*; None: it may be. *allowed*: setting -> values, none is each that
    the object takes. *known*: the answers to GUARD; None: only the list is looked at.
    """
    if setting not in allowed or setting not in SETTINGS:
        return f"not on the list of what may be written: {', '.join(allowed) or 'nothing is'}"
    found = SETTINGS[setting]
    if not found.low <= asked <= found.high or asked != int(asked):
        return f"expected a whole number from {found.low} to {found.high}, got {asked:g}"
    if allowed[setting] and asked not in allowed[setting]:
        return f"expected one of {', '.join(map(str, allowed[setting]))}, got {asked:g}"
    if known is None:
        return None
    try:
        return "the conflict monitor holds the crossing in flash" if conflict(known) else None
    except _NoValueError as error:
        return f"the conflict monitor cannot be read: {error}"


def _colour(name: str, group: int) -> Oid:
    return (*_PHASE_STATUS, _COLOURS[name], group)


def _of_pattern(point: str, pattern: int | Failed | None) -> tuple[Oid, ...]:
    """Empty while no pattern runs: then there is no cycle."""
    if not isinstance(pattern, int) or not 1 <= pattern <= PATTERN_MAX:
        return ()
    return ((*(_PATTERN_CYCLE_S if point == "cycle_s" else _PATTERN_OFFSET_S), pattern),)


def _mode(known: Known) -> float:
    if _byte(known, FLASH_STATUS) != NOT_FLASH:
        return MODE_FLASH
    if _byte(known, CONTROL_STATUS) == CONTROL_MANUAL:
        return MODE_MANUAL
    pattern = _byte(known, PATTERN_STATUS)
    if pattern == FLASH:
        return MODE_FLASH
    return MODE_PATTERN if 1 <= pattern <= PATTERN_MAX else MODE_FREE


def _bits(colour: str, layout: Layout, known: Known) -> int:
    return sum(
        _byte(known, _colour(colour, group)) << PHASES_A_GROUP * (group - 1)
        for group in range(1, layout.phase_groups + 1)
    )


def _volume_vph(layout: Layout, known: Known) -> float:
    _check_detectors(layout)
    period_s = _byte(known, VOLUME_PERIOD_S)
    if not period_s:
        raise _NoValueError("the controller counts over no period")
    return sum(_byte(known, (*_VOLUME, number)) for number in layout.detectors) * 3600 / period_s


def _check_detectors(layout: Layout) -> None:
    if not layout.detectors:
        raise _NoValueError("no detectors are named in the options")


def _occupancy_pct(layout: Layout, known: Known) -> float:
    _check_detectors(layout)
    told = [_byte(known, (*_OCCUPANCY, number)) for number in layout.detectors]
    good = [each for each in told if each <= OCCUPANCY_MAX]
    if not good:
        raise _NoValueError(f"no detector without a fault among {len(told)}")
    return sum(good) / len(good) / 2


def _byte(known: Known, oid: Oid) -> int:
    return _number(known, oid, 255)


def _number(known: Known, oid: Oid, high: int) -> int:
    found = known.get(oid)
    if found is None:
        raise _NoValueError(f"{dotted(oid)}: not asked")
    if isinstance(found, Failed):
        raise _NoValueError(found.why)
    if not 0 <= found <= high:
        raise _NoValueError(f"{dotted(oid)}: expected 0 to {high}, got {found}")
    return found
