"""Looks who holds a lease: at each reading, and at the files; the journal is told when that changes."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from broker_config import limits
from broker_config.device_classes import Change
from edge_agent import leases
from edge_agent.journal import Data, Kind
from edge_agent.leases import ByFile, ByReading, Guard, Sighting, Written

logger = logging.getLogger(__name__)

LOOK_MS: Final = 1_000
"""Between two looks at the files; who asks what a change waits for has them looked at anyway."""


class Journal(Protocol):
    """Where it is written."""

    def note(self, kind: Kind, data: Data) -> None:
        """An event, as of now."""


class LeaseWatch:
    """All calls are the agent's loop's. *now_ms*: the time, if anybody vouches for it."""

    def __init__(
        self,
        guards: Sequence[Guard],
        journal: Journal,
        *,
        mono_ms: Callable[[], int],
        now_ms: Callable[[], int | None],
    ) -> None:
        self._guards = guards
        self._journal = journal
        self._mono_ms = mono_ms
        self._now_ms = now_ms
        self._sightings = leases.unseen(guards, mono_ms())
        self._marks: dict[str, tuple[int, int]] = {}
        self._told: dict[str, str] = {}
        self._looked_ms: int | None = None

    def row(self, stream: str, values: Sequence[float | None]) -> None:
        """A row of readings came."""
        for guard in self._guards:
            if isinstance(guard.source, ByReading) and guard.source.stream == stream:
                before = self._sightings.get(guard.name)
                self._see(guard.name, leases.read(guard.source, values, before, self._mono_ms()))

    def turn(self) -> None:
        """What time alone makes due."""
        mono_ms = self._mono_ms()
        if self._looked_ms is None or mono_ms - self._looked_ms >= LOOK_MS:
            self._look()

    def waits_for(self, change: Change) -> str:
        """The lease that holds off *change* now; empty if none does."""
        if self._guards:
            self._look()
        return leases.waits_for(self._guards, leases.held(self._sightings, self._mono_ms()), change)

    def _see(self, name: str, sighting: Sighting | None) -> None:
        if sighting is None:
            self._sightings.pop(name, None)
        else:
            self._sightings[name] = sighting

    def _look(self) -> None:
        self._looked_ms = self._mono_ms()
        for guard in self._guards:
            if isinstance(guard.source, ByFile):
                self._look_at(guard.name, guard.source)
        self._tell()

    def _look_at(self, name: str, source: ByFile) -> None:
        try:
            stat = os.stat(source.path)  # noqa: PTH116  # pathlib's keeps more in memory
        except OSError:
            self._marks.pop(name, None)
            self._see(name, None)
            return
        mark = (stat.st_ino, stat.st_mtime_ns)
        if self._marks.get(name) != mark:
            self._marks[name] = mark
            file = Written(mark, _owner(source.path), self._age_ms(stat.st_mtime_ns // 1_000_000))
            self._see(name, leases.written(source, file, self._mono_ms()))

    def _age_ms(self, written_ms: int) -> int | None:
        """None: written, or looked at, by a clock that nobody had set."""
        now_ms = self._now_ms()
        return None if now_ms is None or written_ms < limits.CLOCK_MS_MIN else now_ms - written_ms

    def _tell(self) -> None:
        held = leases.held(self._sightings, self._mono_ms())
        seen = {name: owner for name, owner in held.items() if owner != leases.UNSEEN}
        for name, owner in seen.items():
            if self._told.get(name) != owner:
                logger.info("lease held", extra={"lease": name, "owner": owner})
                self._journal.note(Kind.LEASE_HELD, {"lease": name, "owner": owner})
        for name in self._told.keys() - seen.keys():
            why = "expired" if name in self._sightings else "ended"
            logger.info("lease released", extra={"lease": name, "why": why})
            self._journal.note(Kind.LEASE_RELEASED, {"lease": name, "why": why})
        self._told = seen


def _owner(path: str) -> str:
    """What is in the file, as far as it is a name."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # as above
            return file.read(leases.OWNER_CHARS_MAX * 4).decode(errors="replace").strip()
    except OSError:
        return ""
