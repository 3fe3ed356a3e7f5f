"""Wires releases: the directory that the devices' listener gives them from, and a thread that keeps what the server
signs fresh and records what was published.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from broker_config.ids import ContractError
from broker_config.text import shown
from fleet_server.access.audit import Draft
from fleet_server.access.auditor import own_fact
from fleet_server.access.signing import SignerError
from fleet_server.adapters.files import write_durably
from fleet_server.adapters.release_directory import ReleaseDirectory
from fleet_server.adapters.signing_key import FileKey
from fleet_server.config import ReleasesTable
from fleet_server.releases.metadata import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from fleet_server.releases.publishing import Publisher, ending
from fleet_server.threads import Resumed

LOOK_S: Final = 5.0
FRESHEN_S: Final = 3_600.0
"""What is signed is good for days."""
NOTED_FILE: Final = "releases.noted"
"""What was recorded last: after a restart only what is new is recorded."""
ROOT_CHANGE: Final = "releases.root"
LIST_CHANGE: Final = "releases.list"

logger = logging.getLogger(__name__)

Record = Callable[[Draft], object]


class ReleaseEnds:
    """When what is published ends: looked at for the measures, read only when it has changed."""

    def __init__(self, table: ReleasesTable) -> None:
        self._store = ReleaseDirectory(table.directory)
        self._publisher = Publisher(self._store, lambda: datetime.now(UTC))
        self._changed_ns = 0
        self._ends: tuple[int | None, int | None] = (None, None)

    def look(self) -> tuple[int | None, int | None]:
        """Of what persons signed and of what the server signed, the sooner each, ms; None: there is none, or it
        cannot be read.
        """
        try:
            changed_ns = self._store.changed_ns()
            if changed_ns != self._changed_ns:
                ends = self._publisher.standing().ends
                self._ends = _soonest_ms(ends, ROOT, TARGETS), _soonest_ms(ends, SNAPSHOT, TIMESTAMP)
                self._changed_ns = changed_ns
        except (ContractError, OSError):
            return None, None
        return self._ends


def _soonest_ms(ends: Mapping[str, datetime], *roles: str) -> int | None:
    return min((int(ends[role].timestamp() * 1000) for role in roles if role in ends), default=None)


class Releasing:
    """Made, started, stopped, in this order. ``releases``: the port of the listener."""

    def __init__(self, table: ReleasesTable, state_dir: Path) -> None:
        self.releases = ReleaseDirectory(table.directory)
        self._key_file = table.key_file
        self._noted = state_dir / NOTED_FILE
        self._publisher = Publisher(self.releases, lambda: datetime.now(UTC))
        self._record: Record = lambda _draft: None
        self._thread = Resumed("releases", self._run)

    def start(self, record: Record) -> None:
        """From now on; *record* enters a fact into the audit log."""
        self._record = record
        self._thread.start()

    def stop(self) -> None:
        """In order."""
        self._thread.stop()

    def _run(self, stopping: threading.Event) -> None:
        due_s = time.monotonic()
        while not stopping.is_set():
            if time.monotonic() >= due_s:
                self.refresh()
                due_s = time.monotonic() + FRESHEN_S
            try:
                self.note(self._record)
            except Exception as error:  # noqa: BLE001 - a log that takes nothing now is asked again
                logger.warning("not recorded yet: a release", extra={"why": shown(error, 300)})
            stopping.wait(LOOK_S)

    def refresh(self) -> None:
        """Sign what is due, and tell of what persons have to; what cannot be signed is logged."""
        try:
            if self._publisher.root() is None:
                return
            if self._key_file is not None:
                self._publisher.refresh(FileKey.read(self._key_file))
            for role, end in ending(self._publisher.standing(), datetime.now(UTC)):
                logger.warning("persons have to sign anew", extra={"role": role, "ends": f"{end:%Y-%m-%d}"})
        except (ContractError, SignerError, OSError) as error:
            logger.warning("releases cannot be signed: %s", shown(error, 300))

    def note(self, record: Record) -> None:
        """*record* each root and each list that is new. Facts may be told twice, never less.

        Raises what *record* does, ReleaseError, OSError, msgspec.MsgspecError.
        """
        noted = msgspec.json.decode(self._noted.read_bytes(), type=dict[str, int]) if self._noted.is_file() else {}
        for role, action in ((ROOT, ROOT_CHANGE), (TARGETS, LIST_CHANGE)):
            for version in self.releases.versions(role):
                if version > noted.get(role, 0):
                    at_ms = time.time_ns() // 1_000_000
                    record(own_fact(action, str(version), at_ms=at_ms, data=self._publisher.told(role, version)))
                    noted[role] = version
                    write_durably(self._noted, msgspec.json.encode(noted))
