"""Deletes files that may go, and says stop where nothing may go and the disk is short.

A deletion is decided (a row), told (the journal), done (the file), and forgotten (the row), in this order; a power
cut repeats a step and skips none.
"""

import logging
from pathlib import Path
from typing import Final

from broker_config.device_classes import Priority
from broker_config.text import shown
from broker_config.transfer import StorageClass
from edge_agent import clock, outbox
from edge_agent.adapters import folder
from edge_agent.adapters.sqlite_outbox import SqliteOutbox
from edge_agent.adapters.system import System
from edge_agent.config import Settings
from edge_agent.folders import STOP_NAME
from edge_agent.journal import Kind
from edge_agent.keeper import Keeper
from edge_agent.lost import Lost
from edge_agent.outbox import HOUR_MS, Kept, Row
from edge_agent.watching import Watcher

logger = logging.getLogger(__name__)

AT_ONCE_MAX: Final = 32
"""Files deleted in one turn of a folder."""


class Releaser:
    """Calls come one after the other."""

    def __init__(
        self,
        settings: Settings,
        system: System,
        keeper: Keeper,
        rows: SqliteOutbox,
        watcher: Watcher,
        lost: Lost | None = None,
    ) -> None:
        """*lost*: while it is, nothing is deleted, whatever was decided before."""
        assert settings.uploads is not None, "nothing else loads this"
        self._settings = settings
        self._uploads = settings.uploads
        self._system = system
        self._keeper = keeper
        self._outbox = rows
        self._watcher = watcher
        self._lost = lost
        self.stopped: frozenset[Priority] = frozenset()
        self._said: set[str] = set()

    def turn(self) -> bool:
        """Whatever is due; returns whether there is more to delete. Raises OutboxError."""
        for row in () if self._lost else self._outbox.deleting():
            self._finish(row)
        room_bytes = self._room()
        if room_bytes is None:
            return False
        reserve = self._uploads.table.reserve_bytes
        freed = 0 if self._lost else self._release(short_bytes=reserve - room_bytes)
        self.stopped = outbox.stopped(room_bytes + freed, reserve, self.stopped)
        self._say(room_bytes + freed)
        return freed > 0

    def _room(self) -> int | None:
        """Of the fullest disk, or of the quota; None if no folder is there."""
        rooms: list[int] = []
        for path in self._uploads.paths.values():
            try:
                rooms.append(folder.room(path))
            except OSError as error:
                logger.warning("no room known", extra={"why": shown(error)})
        quota = self._uploads.table.bytes_max
        if quota:
            rooms.append(quota - self._outbox.bytes_here())
        return min(rooms, default=None)

    # Deletion ---------------------------------------------------------------------------------------------------

    def _release(self, *, short_bytes: int) -> int:
        """Returns the bytes freed."""
        uploads = self._uploads.table
        now_ms = clock.trusted_ms(self._keeper.clock, self._system.facts())
        freed = 0
        for file_class, told in uploads.folders.items():
            wanted = StorageClass(told.receipt_class)
            for row in self._outbox.receipted_of(file_class, wanted, AT_ONCE_MAX):
                hold_ms = int(uploads.hold_h * HOUR_MS)
                short = freed < short_bytes
                if outbox.deletable(row, wanted, now_ms=now_ms, hold_ms=hold_ms, short=short):
                    freed += self._delete(row)
        return freed

    def _delete(self, row: Row) -> int:
        path = self._uploads.paths[row.file_class]
        found = folder.look_at(path, row.name)
        if found is not None and found != (row.inode, row.size, row.mtime_ns):
            self.changed(row, "it is not what the receipt is for")
            return 0
        self._outbox.becomes(row.upload, Kept.DELETING)
        return self._finish(row)

    def _finish(self, row: Row) -> int:
        """Tell it, do it, forget it. Whoever restarts here tells it again."""
        path = self._uploads.paths.get(row.file_class)
        if path is None:
            return 0  # a folder that is not configured any more is left alone
        self._keeper.note(
            Kind.FILE_DELETED,
            {"upload": row.upload, "sha256": row.sha256, "file_class": row.file_class, "name": shown(row.name)},
        )
        self._keeper.seal()
        found = folder.look_at(path, row.name)
        if found == (row.inode, row.size, row.mtime_ns):
            try:
                folder.remove(path, row.name)
            except OSError as error:
                logger.warning("file not deleted", extra={"file": shown(row.name), "why": shown(error)})
                return 0
        logger.info("file deleted", extra={"upload": row.upload, "file": shown(row.name)})
        if self._keeper.disk_ok:  # else it is not yet durable that it was told
            self._outbox.deleted(row.upload)
            self._watcher.forget(row.file_class, row.name, row.inode)
        return row.size

    def changed(self, row: Row, why: str) -> None:
        """It is neither sent nor deleted from now on. Raises OutboxError."""
        logger.error("file changed", extra={"upload": row.upload, "file": shown(row.name), "why": why})
        self._outbox.becomes(row.upload, Kept.CHANGED)
        told = {"upload": row.upload, "file_class": row.file_class, "name": shown(row.name), "why": why}
        self._keeper.note(Kind.FILE_CHANGED, told)
        self._keeper.seal()

    # A full device ----------------------------------------------------------------------------------------------

    def _say(self, room_bytes: int) -> None:
        for file_class, path in self._uploads.paths.items():
            stop = self._settings.device_class.files[file_class].priority in self.stopped
            if stop == (file_class in self._said):
                continue
            try:
                if stop:
                    self._say_stop(path)
                else:
                    folder.say_go(path)
            except OSError as error:
                logger.warning("not said", extra={"file_class": file_class, "why": shown(error)})
                continue
            (self._said.add if stop else self._said.discard)(file_class)
            log = logger.error if stop else logger.info
            log("files full" if stop else "files ok", extra={"file_class": file_class, "room_bytes": room_bytes})
            kind = Kind.FILES_FULL if stop else Kind.FILES_OK
            self._keeper.note(kind, {"file_class": file_class, "room_bytes": room_bytes})

    @staticmethod
    def _say_stop(path: Path) -> None:
        folder.say_stop(path, "the disk is short, and what is on it has no receipt")

    def found_stopped(self) -> None:
        """What an earlier run said still lies there."""
        self._said = {name for name, path in self._uploads.paths.items() if (path / STOP_NAME).exists()}
