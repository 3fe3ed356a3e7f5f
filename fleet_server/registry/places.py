"""Where each device was when, and of what class: what time series are filed under. Pure.

Only ever added to. A change counts from the moment it was made, so the labels of a reading do not change when the
series are built again, and a backlog that comes in late is filed where the device was when it measured.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from fleet_server.projection.labels import CLASS_UNKNOWN, ORG_UNASSIGNED, Labels


class Place(NamedTuple):
    """From ``from_ms`` on; an empty ``path`` is no place, an empty class one that nobody knows."""

    device: str
    from_ms: int
    device_class: str
    path: str


class Places:
    """A :class:`fleet_server.projection.labels.LabelsOf`. One thread adds, any thread asks."""

    def __init__(self, history: Iterable[Place] = ()) -> None:
        """*history*: of each device in the order of time."""
        self._of: dict[str, tuple[list[int], list[Labels]]] = {}
        for place in history:
            self.add(place)

    def add(self, place: Place) -> None:
        """Add a change, the latest of its device."""
        labels = Labels(place.device_class or CLASS_UNKNOWN, place.path or ORG_UNASSIGNED)
        times, held = self._of.get(place.device, ([], []))
        # new lists: whoever is asking holds the old ones
        self._of[place.device] = ([*times, place.from_ms], [*held, labels])

    def labels(self, device: str, at_ms: int) -> Labels:
        """See the port."""
        found = self._of.get(device)
        if found is None:
            return Labels(CLASS_UNKNOWN, ORG_UNASSIGNED)
        times, held = found
        return held[max(0, bisect_right(times, at_ms) - 1)]

    def newest_ms(self, device: str) -> int | None:
        """From when on its latest place counts; None if it has none."""
        found = self._of.get(device)
        return None if found is None else found[0][-1]
