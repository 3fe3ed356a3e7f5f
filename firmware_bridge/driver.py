"""The port of a driver: protocol knowledge only; cadence and retries are the caller's."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias

from msgspec import Struct

from firmware_bridge.readings import Failed, Identity, Results

MonoMs: TypeAlias = Callable[[], int]
"""Milliseconds since the board booted."""
Resource: TypeAlias = tuple[str, tuple[object, ...]]
"""What one owner at a time can use, and how: whoever names the same must use it in the same way."""


class Nothing(Struct, frozen=True):
    """Options of a driver that has none."""


class Driver(ABC):
    """One instrument. ``read`` is never called again before it returned.

    ``points`` empty: the driver reads whatever names the profile gives it.
    """

    kind: ClassVar[str]
    summary: ClassVar[str]
    points: ClassVar[tuple[str, ...]]
    options_type: ClassVar[type[Struct]] = Nothing
    shares: ClassVar[bool] = True
    """Whether several wires can use one resource."""
    example: ClassVar[str] = ""
    """Lines of TOML for ``[wires.options]``."""

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        self._options = options
        self._mono_ms = mono_ms

    @classmethod
    def points_of(cls, options: Struct) -> tuple[str, ...]:  # noqa: ARG003
        """What a driver with these *options* reads; empty: whatever it is asked for."""
        return cls.points

    @classmethod
    def resource(cls, options: Struct) -> Resource | None:  # noqa: ARG003
        """What it needs to itself; None: nothing that another wire could be in the way of."""
        return None

    @abstractmethod
    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        """Read *points* within *deadline_s*; a fault of the instrument is in the results, never raised."""

    async def write(self, settings: Mapping[str, float], deadline_s: float) -> Results:  # noqa: ARG002
        """Write each of *settings* that the options allow, read it back and compare; a setting's result is what was
        read back, or why it is not as asked.
        """
        return all_failed(tuple(settings), f"not written: {self.kind} writes nothing")

    async def identify(self, deadline_s: float) -> Identity | Failed:  # noqa: ARG002
        """Who is there, by its own word within *deadline_s*, or why nobody knows."""
        return Failed(f"{self.kind} has no way to ask who is there")

    async def present(self) -> bool:
        """Whether there is anything to read here; asked once, for wires that a profile calls optional."""
        return True

    async def close(self) -> None:
        """Let go of the instrument. Idempotent, never raises."""
        return


def all_failed(points: Sequence[str], why: str) -> Results:
    """The same failure for each point."""
    return {point: Failed(why) for point in points}
