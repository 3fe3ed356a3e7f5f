"""What was measured, of whom, when: what is projected, what alerts are made of, what pages show."""

from typing import NamedTuple, Protocol

from fleet_server.standing.measures import Measure


class Sample(NamedTuple):
    """``values``: in the order of the measure's fields; None: not known. What the measure is not of is empty."""

    measure: Measure
    at_ms: int
    values: tuple[float | None, ...]
    device: str = ""
    device_class: str = ""
    org: str = ""

    def value(self, field: str) -> float | None:
        """Raises ValueError: the measure has no such field."""
        return self.values[self.measure.names.index(field)]


class Standing(Protocol):
    """The port: how the fleet stands now."""

    def samples(self, now_ms: int) -> list[Sample]:
        """Of each measure the newest for each device, node, or the site; at most as old as twice its ``every_s``."""
