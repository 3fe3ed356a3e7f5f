"""Labels until there is a registry: the class that a device says it is, and no place in any organisation.

A device that has not said it yet is ``unknown``, and what is projected by then stays under that label.
"""

from collections.abc import Iterable
from typing import Final

from fleet_server.projection.labels import CLASS_UNKNOWN, ORG_UNASSIGNED, Labels
from fleet_server.telemetry.view import DeviceSummary, TelemetryView

UNKNOWN: Final = Labels(CLASS_UNKNOWN, ORG_UNASSIGNED)


class ReportedLabels:
    """A :class:`fleet_server.projection.labels.LabelsOf` of what devices report."""

    def __init__(self, view: TelemetryView) -> None:
        self._view = view
        self._known: dict[str, Labels] = {}

    def labels(self, device: str, at_ms: int) -> Labels:  # noqa: ARG002 - there is no history
        """See the port."""
        found = self._known.get(device)
        if found is None:
            summary = self._view.device(device)
            self.note(() if summary is None else (summary,))
            found = self._known.get(device, UNKNOWN)
        return found

    def note(self, devices: Iterable[DeviceSummary]) -> None:
        """Remember what they say they are."""
        for summary in devices:
            if summary.device_class and summary.device not in self._known:
                self._known[summary.device] = Labels(summary.device_class, ORG_UNASSIGNED)
