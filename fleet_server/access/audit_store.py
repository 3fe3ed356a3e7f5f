"""Where the audit log is kept. This is the port; ``adapters.sql.audit`` is it in the operators' database."""

from collections.abc import Sequence
from typing import Protocol

from fleet_server.access.audit import Draft, Head, Wanted
from fleet_server.access.tlog import Leaves
from fleet_server.telemetry.store import StoreError


class LostHashError(StoreError):
    """A hash of the tree that was kept is not there."""


class AuditStore(Protocol):
    """Entries, the hashes of the tree over them, and checkpoints; all only ever added to. Any thread may call.

    Not trusted: who can write to it can change it, and is found out by the checkpoints, which they cannot sign. A log
    that is not there is empty. Every method raises StoreError, and has changed nothing then.
    """

    def head(self) -> Head | None:
        """The newest log's; None if there is none yet."""

    def end_of(self, log: int) -> Head:
        """The head of one log, in one look."""

    def head_at(self, log: int, size: int) -> Head:
        """The head as it was when the log had *size* entries."""

    def append(self, drafts: Sequence[Draft]) -> Head:
        """Enter *drafts* at the newest log's end, in this order and with nothing between; durable once it returns.

        Raises:
            AuditError: a draft cannot be entered; nothing was.
        """

    def begin(self, draft: Draft) -> Head:
        """Begin a log with *draft*; its number is the draft's time, or one more than the last log's if larger."""

    def entries(self, log: int, *, from_index: int, rows_max: int) -> Sequence[bytes]:
        """Canonical bytes, as they are kept, by index."""

    def newest(self, wanted: Wanted, *, before: tuple[int, int] | None, rows_max: int) -> Sequence[bytes]:
        """Of all logs, the newest first, behind (log, index) *before*."""

    def hashes(self, log: int, wanted: Sequence[Leaves]) -> list[bytes]:
        """One hash for each subtree. Raises LostHashError."""

    def subtrees(self, log: int, size: int) -> tuple[bytes, ...]:
        """Of the perfect subtrees of the first *size* entries, largest first."""

    def checkpoint(self, log: int) -> str | None:
        """The largest that was kept."""

    def checkpoint_from(self, log: int, size: int) -> str | None:
        """The smallest of at least *size* entries that was kept."""

    def keep_checkpoint(self, log: int, size: int, note: str, *, now_ms: int) -> None:
        """Durable once it returns; one that is there already stays."""
