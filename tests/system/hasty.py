"""``fleet-server`` whose clock a test moves, and which does at once some of what it does now and then.

``FIELDFLEET_DRILL_CLOCK=FILE python -m tests.system.hasty run --config FILE``. Only clocks that tell the time of day
are moved; those that measure how long something takes are not.
"""

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

from fleet_server import __main__ as program
from fleet_server.adapters import sqlite_schema
from fleet_server.evidence import overdue, service
from fleet_server.standing import fitness, measures

CLOCK: Final = "FIELDFLEET_DRILL_CLOCK"
_AHEAD: Final = struct.Struct("<q")
SOON_S: Final = 0.5
HASTY: Final = ("-m", "tests.system.hasty")
"""How Python runs it."""


class MovedClock:
    """Of all processes that have *file*."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(_AHEAD.pack(0))
        with file.open("r+b") as shared:
            self._shared = mmap.mmap(shared.fileno(), _AHEAD.size)
        self._true_ns = time.time_ns

    def say(self, ahead_s: int) -> None:
        """From now on it is so far ahead of the truth."""
        _AHEAD.pack_into(self._shared, 0, ahead_s * 10**9)

    def time_ns(self) -> int:
        """As :func:`time.time_ns`."""
        ahead_ns: int = _AHEAD.unpack_from(self._shared)[0]
        return self._true_ns() + ahead_ns


def hurry() -> None:
    """This process believes that clock, and waits less."""
    setattr(time, "time_ns", MovedClock(Path(os.environ[CLOCK])).time_ns)  # noqa: B010 - what the program looks at
    setattr(sqlite_schema, "BUSY_MS", 1_000)  # noqa: B010
    setattr(overdue, "FIRST_S", SOON_S)  # noqa: B010
    setattr(overdue, "LOOK_S", SOON_S)  # noqa: B010
    setattr(overdue.OverdueLooker.look, "__kwdefaults__", {"pause_s": 0.0})  # noqa: B010
    object.__setattr__(measures.RECORDINGS, "every_s", measures.PRESENCE.every_s)
    setattr(fitness, "CERTIFICATES_EVERY_MS", int(1_000 * SOON_S))  # noqa: B010
    setattr(service, "REPLICATE_AGAIN_S", SOON_S)  # noqa: B010


if __name__ == "__main__":
    hurry()
    program.main()
