"""A real PostgreSQL on loopback, as its own user, with a password and a directory of its own; ended by pid."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from tests.servers import HOST, ServerFailedError, free_port, program, wait_until

USERS: Final = ("postgres", "nobody")
"""It refuses to run as root."""
INIT_S_MAX: Final = 60.0


@contextmanager
def postgres() -> Iterator[URL]:
    """A running server's URL, with its password; the database is empty."""
    directory = Path(tempfile.mkdtemp(prefix="fieldfleet-pg-"))
    user = _user()
    try:
        if user is not None:
            shutil.chown(directory, user)
        password = secrets.token_hex(16)
        _init(directory, password, user)
        yield from _serve(directory, password, user)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in USERS if name in known)


def _tool(name: str) -> str:
    found = program(name)
    if found is None:
        raise ServerFailedError(f"no {name} on this machine")
    return found


def _init(directory: Path, password: str, user: str | None) -> None:
    pwfile = directory / "password"
    pwfile.write_text(password, encoding="ascii")
    pwfile.chmod(0o600)
    if user is not None:
        shutil.chown(pwfile, user)
    # the collation of the product: names are compared by their bytes
    options = ["--username=fleet", "--auth=scram-sha-256", f"--pwfile={pwfile}", "--encoding=UTF8", "--locale=C"]
    made = subprocess.run(
        [_tool("initdb"), f"--pgdata={directory / 'data'}", *options, "--no-sync"],
        user=user,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=INIT_S_MAX,
        check=False,
    )
    if made.returncode:
        raise ServerFailedError(f"initdb: {made.stderr[-2000:]}")


def _serve(directory: Path, password: str, user: str | None) -> Iterator[URL]:
    port = free_port()
    log = directory / "log"
    settings = [
        f"port={port}",
        f"listen_addresses={HOST}",
        "unix_socket_directories=",
        "fsync=off",
        "max_connections=50",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [_tool("postgres"), "-D", str(directory / "data"), *(part for each in settings for part in ("-c", each))],
            user=user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    url = URL.create("postgresql+psycopg", "fleet", password, HOST, port, "postgres")
    try:
        wait_until(lambda: _answers(url, process, log), "postgres answers", INIT_S_MAX)
        yield url
    finally:
        process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        with suppress(subprocess.TimeoutExpired):
            process.wait(INIT_S_MAX)


def _answers(url: URL, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise ServerFailedError(f"postgres ended with {process.returncode}: {log.read_text()[-2000:]}")
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except OperationalError:
        return False
    finally:
        engine.dispose()
    return True
