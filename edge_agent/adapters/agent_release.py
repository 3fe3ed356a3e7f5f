"""The agent's own release, as a setting: fetched, put into the free place, tried, and committed or given up.

What is decided is :mod:`edge_agent.launch`; the agent that is started next goes on with the same change.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker_config.ids import ContractError
from broker_config.releases import ImageKind, hardware, target_path
from broker_config.text import shown
from edge_agent import launch
from edge_agent.adapters import child
from edge_agent.adapters.applying import RestartError
from edge_agent.adapters.child import ChildError
from edge_agent.adapters.fetching import Relay, fetched_at_last
from edge_agent.config import Settings
from edge_agent.launch import Places
from edge_agent.releases import Wanted

logger = logging.getLogger(__name__)

INSTALL_S_MAX: Final = 600.0
UNDONE: Final = "its change did not prove itself"


class AgentRelease:
    """All calls are the agent's loop's."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        not_before_ms: Callable[[], int],
        relay: Relay | None = None,
        *,
        prefix: str = sys.prefix,
    ) -> None:
        """*directory*: the places'. *not_before_ms*: a time that is known to have been. *relay*: releases come over
        MQTT. *prefix*: this interpreter's.

        Raises ContractError: the board is not named as hardware can be.
        """
        table = settings.file.releases
        own = "" if table is None else table.hardware
        self._hw = hardware(own or settings.device_class.name)
        self._config_file = settings.config_file
        self._directory = directory
        self._not_before_ms = not_before_ms
        self._relay = relay
        self._prefix = prefix

    def in_force(self) -> str:
        """The release that was committed; empty: as installed, or nobody can tell."""
        try:
            return launch.read(self._directory).in_force.name
        except (OSError, ValueError) as error:
            logger.warning("releases not read", extra={"why": shown(error)})
            return ""

    def running(self) -> str:
        """The release that this agent is of; empty: as installed."""
        try:
            return launch.running(launch.read(self._directory), self._directory, self._prefix).name
        except (OSError, ValueError):
            return ""

    def check(self, name: str) -> str:
        """Why *name* is not in force; empty: it is."""
        running = self.running()
        return "" if running == name else f"expected {name or 'the installed agent'}, {running or 'that'} runs"

    def commit(self) -> str:
        """What runs has proved itself; why that could not be stored, if so."""
        try:
            places = launch.read(self._directory)
            if places.trial is not None and places.trial == launch.running(places, self._directory, self._prefix):
                launch.write(self._directory, launch.committed(places))
        except (OSError, ValueError) as error:
            return shown(error)
        return ""

    async def put(self, name: str) -> str:
        """Have *name* run; why it cannot, if so. Raises RestartError: another agent goes on with it."""
        try:
            places = launch.read(self._directory)
            if name == places.in_force.name:  # going back; what is to be tried has failed
                launch.write(self._directory, launch.given_up(places, UNDONE))
                raise RestartError
            if why := places.why_given_up(name):
                return f"given up before: {why}"
            if places.trial is None or places.trial.name != name:
                fault = await self._prepare(places, target_path(name))
                if fault:
                    return fault
        except (OSError, ValueError, ContractError) as error:
            return shown(error)
        raise RestartError

    async def _prepare(self, places: Places, name: str) -> str:
        wanted = Wanted(name, self._hw, ImageKind.AGENT, places.in_force.counter, self._not_before_ms())
        image, fault = await fetched_at_last(self._config_file, wanted, self._relay)
        if image is None:
            return fault
        place = self._directory / places.free
        try:
            ended = await child.ask(
                "edge_agent.install_release", b"", seconds_max=INSTALL_S_MAX, arguments=(image.file, str(place))
            )
        except ChildError as error:
            return f"not installed: {shown(error)}"
        if ended.code:
            return f"not installed: {shown(ended.said.decode(errors='replace').strip(), 300)}"
        launch.write(self._directory, launch.tried(places, name, image.counter))
        return ""
