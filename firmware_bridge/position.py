"""One position out of what a receiver tells in parts, whatever language it speaks.

Each part keeps the time at which it was heard, so that a receiver that falls silent, or loses the sky, is never taken
for a car that stands still.
"""

from typing import Final, NamedTuple

from firmware_bridge.readings import Failed, Quality, Reading, Result

POINTS: Final = ("lat", "lon", "alt_m", "speed_mps", "hdop", "fix", "age_s")
NO_FIX: Final = 0.0


class Heard(NamedTuple):
    """A value and when (monotonic, ms) it was heard."""

    value: float
    at_ms: int


class Part(NamedTuple):
    """What one sentence tells. ``valid`` None: it does not say. ``values`` are in the class's units."""

    valid: bool | None
    values: dict[str, float]
    utc_ms: int | None


NOTHING: Final = Part(None, {}, None)


class Position:
    """What is known of the receiver's place, part by part."""

    def __init__(self) -> None:
        self.known: dict[str, Heard] = {}
        self.utc_ms: int | None = None
        self.heard_ms: int | None = None
        """The last good sentence of any kind."""
        self.no_fix_ms: int | None = None
        """When the receiver last said that it has no fix; None while it has one."""

    def take(self, part: Part, at_ms: int) -> None:
        """Add what a sentence told."""
        self.heard_ms = at_ms
        if part.valid is False:
            self.no_fix_ms = at_ms
        elif part.valid:
            self.no_fix_ms = None
        if part.utc_ms is not None:
            self.utc_ms = part.utc_ms
        for name, value in part.values.items():
            self.known[name] = Heard(value, at_ms)

    def value(self, point: str, now_ms: int) -> Heard | None:
        """The newest of *point*, however old; None if it was never heard."""
        if point == "age_s":
            lat = self.known.get("lat")
            return None if lat is None else Heard((now_ms - lat.at_ms) / 1000, now_ms)
        if point == "fix":
            return self._fix()
        return self.known.get(point)

    def _fix(self) -> Heard | None:
        """Without a GSA sentence nobody knows about the height: a fix counts as one without it."""
        told, lat = self.known.get("fix"), self.known.get("lat")
        if self.no_fix_ms is not None:
            return Heard(0.0, self.no_fix_ms)
        if lat is not None and (told is None or told.value == 0):
            return Heard(2.0, lat.at_ms)
        return told


class Ages(NamedTuple):
    """A part older than ``stale_ms`` is stale, and it is absent when older than ``absent_ms``."""

    stale_ms: int
    absent_ms: int


def result(position: Position, point: str, now_ms: int, ages: Ages, why_silent: str) -> Result:
    """*point* as it is known now; *why_silent*: what is wrong, if nothing has been heard for long."""
    silent = position.heard_ms is None or now_ms - position.heard_ms > ages.absent_ms
    found = position.value(point, now_ms)
    if point == "age_s":  # is as old as the position, but true as long as somebody is there to ask
        if found is None or silent:
            return Failed(why_silent) if silent else Reading(0.0, Quality.BAD, None, now_ms)
        return Reading(found.value, Quality.GOOD, position.utc_ms, found.at_ms)
    if found is not None and now_ms - found.at_ms <= ages.stale_ms:
        return Reading(found.value, Quality.GOOD, position.utc_ms, found.at_ms)
    if found is not None and now_ms - found.at_ms <= ages.absent_ms:
        return Reading(found.value, Quality.STALE, position.utc_ms, found.at_ms)
    if silent:
        return Failed(why_silent)
    if position.no_fix_ms is not None:  # that there is no value is what the receiver says, and no fault of its
        return Reading(found.value if found else NO_FIX, Quality.BAD, None, now_ms)
    return Failed("nothing that was heard tells it")
