"""Operators' data in PostgreSQL, copied and put back by its own programs."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from broker_config.text import shown
from fleet_server.adapters.files import PRIVATE_FILE
from fleet_server.backup.manifest import BackupError

HOURS_S_MAX: Final = 6 * 3_600
TOLD_CHARS_MAX: Final = 600


def dump(url: URL, to: Path) -> None:
    """All of it as it is at one moment, in the custom format. Raises BackupError."""
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    _run(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={to}"], url)


def put_back(url: URL, source: Path) -> None:
    """Into an empty database; all of it or nothing. Raises BackupError: also if there are tables already."""
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    _run(["pg_restore", *options, "--dbname", url.database or "", str(source)], url)


def is_dump(path: Path) -> bool:
    """Whether its own program can list it. Raises BackupError: there is no such program."""
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            ["pg_restore", "--list", str(path)],  # noqa: S607 - wherever the machine has it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise BackupError(f"pg_restore: {error.strerror}; install PostgreSQL's client") from error
    return done.returncode == 0


def _run(command: Sequence[str], url: URL) -> None:
    """The password is in the environment, which only this user and root can read, and never on a command line."""
    told = {
        "PGHOST": url.host,
        "PGPORT": None if url.port is None else str(url.port),
        "PGUSER": url.username,
        "PGPASSWORD": None if url.password is None else str(url.password),
        "PGDATABASE": url.database,
        "PGCONNECT_TIMEOUT": "10",
    }
    environment = {**os.environ, **{name: value for name, value in told.items() if value is not None}}
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HOURS_S_MAX,
            check=False,
        )
    except OSError as error:
        raise BackupError(f"{command[0]}: {error.strerror}; install PostgreSQL's client") from error
    except subprocess.TimeoutExpired as error:
        raise BackupError(f"{command[0]}: not within {HOURS_S_MAX} s") from error
    if done.returncode:
        raise BackupError(f"{command[0]}: {shown(done.stderr.strip(), chars_max=TOLD_CHARS_MAX)}")
