"""What a device was at a time, beside its twin. This is the port: other rooms know it, and the wiring asks them."""

from typing import NamedTuple, Protocol


class Clock(NamedTuple):
    """How a device's clock stood, as it knew itself: who set it, what it was off, how much more it may have been."""

    source: str
    off_ms: int | None
    unc_ms: int | None


class Given(NamedTuple):
    """To whom a device was given; empty is nobody. ``path``: of its organisation node then."""

    path: str
    officer: str = ""
    vehicle: str = ""
    shift: str = ""
    unit: str = ""


class Circumstances(NamedTuple):
    """Empty, or None: not known of that time. ``path``: of its organisation node."""

    device_class: str = ""
    path: str = ""
    agent: str = ""
    hardware: str = ""
    profile: str = ""
    profile_digest: str = ""
    clock: Clock | None = None
    given: Given | None = None


class CircumstancesOf(Protocol):
    """Any thread; raises StoreError."""

    def __call__(self, device: str, at_ms: int) -> Circumstances:
        """Of a device that the registry knows."""
