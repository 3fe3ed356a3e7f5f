"""What a key does to the demo: which part goes down, and when it comes back. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from broker_config.ids import DeviceId


class Kind(StrEnum):
    """What can be taken away."""

    LINK = "link"
    AGENT = "agent"
    INSTRUMENTS = "instruments"
    BROKER = "broker"


KEYS: Final[Mapping[str, Kind]] = {"l": Kind.LINK, "a": Kind.AGENT, "i": Kind.INSTRUMENTS, "b": Kind.BROKER}
QUIT: Final = "q"
WORDS: Final[Mapping[Kind, str]] = {
    Kind.LINK: "link cut",
    Kind.AGENT: "agent killed",
    Kind.INSTRUMENTS: "instruments unplugged",
    Kind.BROKER: "broker killed",
}
LASTS_S: Final[Mapping[Kind, float]] = {
    # longer than the will's delay, before which nobody is said to be away
    Kind.LINK: 45.0,
    Kind.AGENT: 5.0,
    Kind.INSTRUMENTS: 15.0,
    Kind.BROKER: 5.0,
}


SCRIPT: Final = ((6.0, "1"), (6.0, "l"), (13.0, "l"), (20.0, "b"))
"""Seconds and keys of a run by itself: the first device's link is cut for a while, then the broker is killed."""


@dataclass(frozen=True, slots=True)
class Outage:
    """``device``: None is the broker. ``until_s``: of the clock that :func:`pressed` is told."""

    kind: Kind
    device: DeviceId | None
    until_s: float


@dataclass(frozen=True, slots=True)
class Outages:
    """Those of now, and the device that the keys are meant for."""

    devices: tuple[DeviceId, ...]
    chosen: int = 0
    current: tuple[Outage, ...] = ()

    @property
    def device(self) -> DeviceId:
        """The chosen one."""
        return self.devices[self.chosen]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done now."""

    began: tuple[Outage, ...] = ()
    ended: tuple[Outage, ...] = ()
    quit: bool = False


NOTHING: Final = Change()


def pressed(state: Outages, key: str, now_s: float) -> tuple[Outages, Change]:
    """A key begins an outage, or ends it early; a digit chooses a device; any other key does nothing."""
    if key == QUIT:
        return state, Change(quit=True)
    if key in {str(place) for place in range(1, len(state.devices) + 1)}:
        return replace(state, chosen=int(key) - 1), NOTHING
    kind = KEYS.get(key)
    if kind is None:
        return state, NOTHING
    device = None if kind is Kind.BROKER else state.device
    ended = tuple(outage for outage in state.current if (outage.kind, outage.device) == (kind, device))
    if ended:
        return _without(state, ended), Change(ended=ended)
    outage = Outage(kind, device, now_s + LASTS_S[kind])
    return replace(state, current=(*state.current, outage)), Change(began=(outage,))


def due(state: Outages, now_s: float) -> tuple[Outages, Change]:
    """End what has lasted long enough."""
    ended = tuple(outage for outage in state.current if now_s >= outage.until_s)
    return _without(state, ended), Change(ended=ended)


def _without(state: Outages, ended: tuple[Outage, ...]) -> Outages:
    return replace(state, current=tuple(outage for outage in state.current if outage not in ended))
