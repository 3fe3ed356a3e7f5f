"""``fleet-server`` on a disk that fails when it is told to: its writes and syncs of files on their way give EIO while
a file is there that the environment names.

``python -m tests.faults.failing_disk run --config FILE``. Everything behind those calls is the product's own.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from fleet_server import __main__ as program
from fleet_server.adapters import incoming_files
from tests.faults.upload_rig import FAIL_FLAG

FAILS: Final = Path(os.environ.get(FAIL_FLAG, "/nonexistent"))
T = TypeVar("T")


class FailingOs:
    """The module ``os``, with a disk that may fail."""

    def __getattr__(self, name: str) -> object:
        found = getattr(os, name)
        return failing(found) if name in {"pwrite", "fdatasync", "fsync"} else found


def failing(call: Callable[..., T]) -> Callable[..., T]:
    """*call*, or EIO."""

    def tried(*arguments: object) -> T:
        if FAILS.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(*arguments)

    return tried


setattr(incoming_files, "os", FailingOs())  # noqa: B010 - what the adapter calls

if __name__ == "__main__":
    program.main()
