"""The negative control: a server that receipts a file without having read it again.

``python -m tests.faults.early_evidence_receipts run --config FILE``. It believes that the disk has what
came.
"""

from pathlib import Path

from broker_config.manifest import Manifest
from fleet_server import __main__ as program
from fleet_server import uploads
from fleet_server.evidence import finishing
from fleet_server.evidence.inspection import Seen


def unread(_path: Path, _chunk_bytes: int) -> Seen:
    """Nothing is read."""
    return Seen(0, "", ())


def believed(_told: Manifest, _seen: Seen) -> bool:
    """Whatever was seen."""
    return True


if __name__ == "__main__":
    setattr(uploads, "read_again", unread)  # noqa: B010 - what the program finishes with
    setattr(finishing, "is_file_of", believed)  # noqa: B010
    program.main()
