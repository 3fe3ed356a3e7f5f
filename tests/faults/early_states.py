"""The negative control: a server that says a chunk is durable before it is on the disk.

``python -m tests.faults.early_states run --config FILE``. What it writes gets to the file a moment later, as after a
power cut it might never have. A harness that does not catch it proves nothing about a server that syncs first.
"""

import threading
import time
from typing import Final

from fleet_server import __main__ as program
from fleet_server.adapters.incoming_files import IncomingDirectory

LATE_S: Final = 1.0


class LateDirectory(IncomingDirectory):
    """Promises, and writes later."""

    def write(self, upload: str, offset: int, data: bytes | memoryview) -> None:
        """Promise it."""
        kept = bytes(data)

        def late() -> None:
            time.sleep(LATE_S)
            path = self.path(upload)
            if path is not None:
                with path.open("r+b") as file:
                    file.seek(offset)
                    file.write(kept)

        threading.Thread(target=late, daemon=True).start()

    def sync(self, upload: str) -> None:
        """Say that it is done."""


if __name__ == "__main__":
    from fleet_server import uploads

    setattr(uploads, "IncomingDirectory", LateDirectory)  # noqa: B010 - what the program takes its directory from
    program.main()
