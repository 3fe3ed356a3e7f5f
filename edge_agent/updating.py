"""Whose firmware is being replaced: meanwhile nobody else speaks to it, and its silence has that reason."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from firmware_bridge.driver import Resource

WHY: Final = "its firmware is being replaced"


class Updating:
    """Ports, by their names as wires and updates have them. All calls are the agent's loop's."""

    def __init__(self) -> None:
        self._ports: Counter[str] = Counter()

    @contextmanager
    def of(self, port: str) -> Iterator[None]:
        """Within the block *port* is the update's."""
        self._ports[port] += 1
        try:
            yield
        finally:
            self._ports[port] -= 1

    def has(self, resource: Resource | None) -> bool:
        """Whether what is behind *resource* is not to be spoken to."""
        return resource is not None and self._ports[resource[0]] > 0
