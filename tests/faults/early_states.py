"""The negative control: a server that says a chunk is durable before it is on the disk.

``python -m tests.faults.early_states run --config FILE``. What it writes waits in its memory until the file is read
again, as it waits in the kernel's until it is synced: what is killed in between is gone. A harness that misses
that proves nothing about a server that syncs first.
"""

import threading
from pathlib import Path

from fleet_server import __main__ as program
from fleet_server import uploads
from fleet_server.adapters.incoming_files import IncomingDirectory


class LateDirectory(IncomingDirectory):
    """Promises, and writes when somebody looks."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._late: dict[str, list[tuple[int, bytes]]] = {}
        self._lock = threading.Lock()

    def write(self, upload: str, offset: int, data: bytes | memoryview) -> None:
        """Promise it."""
        with self._lock:
            self._late.setdefault(upload, []).append((offset, bytes(data)))

    def sync(self, upload: str) -> None:
        """Say that it is done."""

    def path(self, upload: str) -> Path | None:
        """Somebody looks."""
        path = super().path(upload)
        with self._lock:
            late = self._late.pop(upload, [])
        if path is not None and late:
            with path.open("r+b") as file:
                for offset, data in late:
                    file.seek(offset)
                    file.write(data)
        return path


if __name__ == "__main__":
    setattr(uploads, "IncomingDirectory", LateDirectory)  # noqa: B010 - what the program takes its directory from
    program.main()
