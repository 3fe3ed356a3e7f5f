"""Wires releases: the directory that the devices' listener gives them from, and a thread that keeps them fresh."""

import logging
import threading
from datetime import UTC, datetime
from typing import Final

from broker_config.ids import ContractError
from broker_config.text import shown
from fleet_server.access.signing import SignerError
from fleet_server.adapters.release_directory import ReleaseDirectory
from fleet_server.adapters.signing_key import FileKey
from fleet_server.config import ReleasesTable
from fleet_server.releases.publishing import Publisher
from fleet_server.threads import Resumed

LOOK_S: Final = 3_600.0
"""What is signed is good for days."""

logger = logging.getLogger(__name__)


class Releasing:
    """Made, started, stopped, in this order. ``releases``: the port of the listener."""

    def __init__(self, table: ReleasesTable) -> None:
        self.releases = ReleaseDirectory(table.directory)
        self._key_file = table.key_file
        self._publisher = Publisher(self.releases, lambda: datetime.now(UTC))
        self._thread = Resumed("releases", self._run)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def stop(self) -> None:
        """In order."""
        self._thread.stop()

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self.refresh()
            stopping.wait(LOOK_S)

    def refresh(self) -> None:
        """Sign what is due; what cannot be is logged, and devices refuse what is not signed in time."""
        if self._key_file is None:
            return
        try:
            if self._publisher.root() is not None:
                self._publisher.refresh(FileKey.read(self._key_file))
        except (ContractError, SignerError, OSError) as error:
            logger.warning("releases cannot be signed: %s", shown(error, 300))
