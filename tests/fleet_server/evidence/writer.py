"""Enters pieces, and acts on them, until it is killed; says after each act how many events its piece has."""

import sys
from pathlib import Path

from fleet_server.adapters.sql import database
from tests.fleet_server.evidence.rig import Custody


def main() -> None:
    custody = Custody(database.connect(database.sqlite_url(Path(sys.argv[1]))), Path(sys.argv[2]))
    number = 0
    while True:
        piece = custody.entered()
        print(piece, 2, flush=True)
        for events in range(3, 6):
            number += 1
            custody.keeping.hold(piece, f"case-{number}", "seen", by="ann", now_ms=custody.now_ms)
            print(piece, events, flush=True)


if __name__ == "__main__":
    main()
