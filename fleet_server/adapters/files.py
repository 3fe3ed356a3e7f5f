"""Files that are whole or not there, also after the power was cut."""

import os
import secrets
from pathlib import Path
from typing import Final

PRIVATE_FILE: Final = 0o600
PRIVATE_DIRECTORY: Final = 0o700


def write_durably(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace *path* by *data*; durable once it returns, and no reader ever sees a part.

    *mode* holds from the first byte on, whatever the umask. After an error *path* is what it was before.

    Raises:
        OSError: the directory does not exist or takes nothing.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Take *path* away; one that is not there is no fault. Raises OSError."""
    if path.exists():
        path.unlink()
        sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """Make *path* and its missing parents, each entered by its owner only; one that exists is left as it is."""
    for missing in reversed([step for step in (path, *path.parents) if not step.exists()]):
        missing.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)


def sync_directory(path: Path) -> None:
    """What is called how there is durable once it returns. Raises OSError."""
    # The rename is an entry of the directory: it is not durable before the directory is.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
