"""Enters into the registry what births say. The one impure part of this room: a thread that looks now and then."""

import logging
from collections.abc import Callable
from threading import Event, Lock
from typing import Final

from broker_config.text import shown
from fleet_server.projection.labels import Labels
from fleet_server.registry.model import Reported
from fleet_server.registry.store import Hearing
from fleet_server.telemetry.store import StoreError
from fleet_server.telemetry.view import Heard, TelemetryView

LOOK_S: Final = 1.0
DEVICES_A_LOOK_MAX: Final = 5_000
"""Entered in one transaction."""

logger = logging.getLogger(__name__)


class Keeper:
    """What could not be entered is tried again, with what came since."""

    def __init__(self, view: TelemetryView, registry: Hearing, *, now_ms: Callable[[], int]) -> None:
        self._view = view
        self._registry = registry
        self._now_ms = now_ms
        self._waiting: dict[str, Reported] = {}
        self._failing = False
        self._looking = Lock()

    def look(self) -> bool:
        """Enter what is new; whether there may be more. Any thread."""
        with self._looking:
            return self._look()

    def _look(self) -> bool:
        room = DEVICES_A_LOOK_MAX - len(self._waiting)
        found = self._view.news(room)
        self._waiting.update((heard.device, _reported(heard)) for heard in found)
        if not self._waiting:
            return False
        try:
            self._registry.heard(self._waiting.items(), now_ms=self._now_ms())
        except StoreError as error:
            level = logging.DEBUG if self._failing else logging.WARNING
            logger.log(level, "the registry takes nothing", extra={"error": shown(error)})
            self._failing = True
            return False
        self._waiting.clear()
        self._failing = False
        return len(found) == room

    def run(self, stop: Event) -> None:
        """Look until *stop*."""
        while not stop.is_set():
            if not self.look():
                stop.wait(LOOK_S)


class PromptLabels:
    """A :class:`fleet_server.projection.labels.LabelsOf` that has a device entered before it answers.

    What a new device measures is there as soon as its birth is, and its first label stays.
    """

    def __init__(self, registry: Hearing, keeper: Keeper) -> None:
        self._registry = registry
        self._keeper = keeper

    def labels(self, device: str, at_ms: int) -> Labels:
        """See the port."""
        if not self._registry.knows(device):
            while self._keeper.look():
                pass
        return self._registry.labels(device, at_ms)


def _reported(heard: Heard) -> Reported:
    return Reported(heard.device_class, heard.agent, heard.hardware, heard.profile, heard.profile_digest, heard.at_ms)
