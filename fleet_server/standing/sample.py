"""What was measured, of whom, when: what is projected, what alerts are made of, what pages show."""

from collections.abc import Mapping
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


def sampled(
    measure: Measure,
    at_ms: int,
    values: Mapping[str, float | None],
    *,
    device: str = "",
    device_class: str = "",
    org: str = "",
) -> Sample:
    """*values*: of every field, by its name."""
    assert values.keys() == set(measure.names), f"{measure.name}: expected {measure.names}, got {tuple(values)}"
    found = (values[name] for name in measure.names)
    numbers = tuple(None if value is None else float(value) for value in found)
    return Sample(measure, at_ms, numbers, device, device_class, org)


class Standing(Protocol):
    """The port: how the fleet stands now."""

    def samples(self, now_ms: int) -> list[Sample]:
        """Of each measure the newest for each device, node, or the site; at most as old as twice its ``every_s``."""


class Fresh(NamedTuple):
    """``mark``: what to ask for next; ``missed``: of those in between, how many were replaced by newer ones."""

    mark: int
    samples: list[Sample]
    missed: int


class Following(Protocol):
    """The port for who wants each sample once. Any thread."""

    def since(self, mark: int) -> Fresh:
        """What came behind *mark*, 0 is the beginning."""
