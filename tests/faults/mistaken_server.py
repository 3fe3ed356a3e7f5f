"""``fleet-server`` with a mistake in it: the ledger takes a number in, and fails before the record is in a group.

``python -m tests.faults.mistaken_server run --config FILE``. A server that went on from there would receipt what it
never stored.
"""

from itertools import count
from typing import Final

from broker_config.telemetry import Record
from fleet_server import __main__ as program
from fleet_server.telemetry.ledger import StreamLedger
from fleet_server.telemetry.store import Silence

RECORDS_GOOD: Final = 40

_records = count(1)
_hold = StreamLedger.hold


def hold(ledger: StreamLedger, seq: int, crc: int, record: Record) -> tuple[Silence, ...]:
    """As it was, but for one."""
    found = _hold(ledger, seq, crc, record)
    if next(_records) == RECORDS_GOOD:
        raise AttributeError("a mistake")
    return found


if __name__ == "__main__":
    setattr(StreamLedger, "hold", hold)  # noqa: B010 - the mistake
    program.main()
