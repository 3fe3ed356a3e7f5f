"""What a series is filed under beside its device. This is the port; the registry answers it."""

from typing import Final, NamedTuple, Protocol

CLASS_UNKNOWN: Final = "unknown"
"""``device_class`` of a device that has not said what it is and was not registered."""
ORG_UNASSIGNED: Final = "unassigned"
"""``org`` of a device that has no place in the organisation tree."""


class Labels(NamedTuple):
    """``org``: the path of the organisation node, such as ``hq/station-07/post-3``."""

    device_class: str
    org: str


class LabelsOf(Protocol):
    """Answers from a history that is only ever added to, so that a rebuild finds the labels of the first time."""

    def labels(self, device: str, at_ms: int) -> Labels:
        """What *device* was at *at_ms*, a reading's own time; any thread, a dictionary's look-up's cost.

        Before the first that is known of a device, the first.
        """
