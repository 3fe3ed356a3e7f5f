"""The negative control: ``fleet-server`` with a store that says "durable" before it is.

``python -m tests.faults.early_receipts run --config FILE``. A commit returns at once and happens a moment later, so
receipts go out first. A harness that does not catch this server losing receipted data proves nothing about the other.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from fleet_server import __main__ as program
from fleet_server import parts
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.telemetry.store import Group

LATE_S: Final = 10.0
"""Longer than :data:`tests.faults.carry_out.TRIMS_EARLY` lets a device hold what was receipted."""


class EarlyStore(SqliteStore):
    """Commits in their order, each :data:`LATE_S` after it was promised."""

    def __init__(self, path: Path, *, now_ms: int) -> None:
        super().__init__(path, now_ms=now_ms)
        self._late = ThreadPoolExecutor(1, "late")

    def commit(self, group: Group, *, token: int) -> None:
        """Promise it."""
        due_s = time.monotonic() + LATE_S

        def keep() -> None:
            time.sleep(max(0.0, due_s - time.monotonic()))
            super(EarlyStore, self).commit(group, token=token)

        self._late.submit(keep)

    def drop_lease(self, *, token: int) -> None:
        """An orderly end loses nothing: only a kill shows what this server is."""
        self._late.shutdown(wait=True)
        super().drop_lease(token=token)


if __name__ == "__main__":
    setattr(parts, "SqliteStore", EarlyStore)  # noqa: B010 - what the program takes its store from
    program.main()
