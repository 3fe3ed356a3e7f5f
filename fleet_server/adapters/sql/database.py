"""Opens the operator's database and brings it to this version's shape.

Any thread may use an engine. SQLite's writers queue for ``BUSY_S``, those of one process for a lock of their own:
SQLite only looks again now and then, and whoever writes often would be there first each time. PostgreSQL's migrations
queue for an advisory lock, so that two servers that start at once do not both make the tables.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as TooLateError

from broker_config.text import shown
from fleet_server.telemetry.store import StoreError

BUSY_S: Final = 10.0
CONNECTIONS_MAX: Final = 16
SCRIPTS: Final = Path(__file__).parent / "migrations"
MIGRATION_LOCK: Final = 0x6666_6D67
SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql+psycopg"
DRIVERS: Final = (SQLITE, POSTGRESQL)
VALUES_A_QUERY_MAX: Final = 500
"""Databases bound how many values a statement may have."""

T = TypeVar("T")

_turns: Final[WeakKeyDictionary[Engine, Lock]] = WeakKeyDictionary()
"""Whose turn it is to write to a SQLite file, among the threads that use one engine."""


class DatabaseError(Exception):
    """The database cannot be opened, or is not one that this version can use."""


class UnavailableError(DatabaseError):
    """The database does not answer; it may later."""


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return str(URL.create(SQLITE, database=str(path)))


def checked_url(text_: str, password: str | None = None) -> URL:
    """Read a database's URL, and put the password in.

    Raises:
        DatabaseError: not a URL, of another kind of database, or with a password in it, which belongs into a file.
    """
    try:
        url = make_url(text_)
    except (ArgumentError, ValueError) as error:
        raise DatabaseError(f"expected a URL such as {POSTGRESQL}://fleet@db/fleet, got {shown(text_)!r}") from error
    if url.drivername not in DRIVERS:
        raise DatabaseError(f"expected {' or '.join(DRIVERS)}, got {shown(url.drivername)!r}")
    if url.password is not None:
        raise DatabaseError("the URL has a password in it; give it in password_file")
    return url if password is None else url.set(password=password)


def connect(url: str | URL) -> Engine:
    """An engine, with SQLite told to keep its promises; nothing is opened yet."""
    parsed = make_url(url)
    if parsed.drivername != SQLITE:
        return create_engine(parsed, pool_size=CONNECTIONS_MAX, pool_pre_ping=True)
    # a transaction begins when we say so: the driver's own way takes a read for none and upgrades it too late
    engine = create_engine(
        parsed, pool_size=CONNECTIONS_MAX, connect_args={"timeout": BUSY_S, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare)
    _turns[engine] = Lock()
    return engine


def _prepare(connection: DBAPIConnection, _record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own type is private
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def writing(engine: Engine, *, lock: int | None = None) -> Iterator[Connection]:
    """One transaction that may write, committed at the end and rolled back at any error.

    *lock*: on PostgreSQL, whoever gives the same number waits until this one has ended; SQLite has one writer anyway.

    Raises:
        StoreError: the database could not do it; nothing of it was stored.
    """
    try:
        with _begun(engine, lock) as connection:
            yield connection
    except SQLAlchemyError as error:
        raise StoreError(shown(error)) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One snapshot. Raises StoreError."""
    try:
        with engine.connect() as connection:
            if connection.dialect.name == SQLITE:
                connection.exec_driver_sql("BEGIN")
            yield connection
    except SQLAlchemyError as error:
        raise StoreError(shown(error)) from error


@contextmanager
def _begun(engine: Engine, lock: int | None) -> Iterator[Connection]:
    with _turn(engine), engine.connect() as connection:
        if connection.dialect.name == SQLITE:
            # deferred, a read that turns into a write fails at once when another wrote in between
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif lock is not None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock})
        yield connection
        connection.commit()  # at an error it is closed without, which rolls back


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    turn = _turns.get(engine)
    if turn is None:
        yield
        return
    if not turn.acquire(timeout=BUSY_S):
        raise TooLateError(f"the database is locked: other threads have written for {BUSY_S:.0f} s")
    try:
        yield
    finally:
        turn.release()


def migrate(engine: Engine) -> None:
    """Bring the database to this version's shape; a no-op if it has it.

    Raises:
        UnavailableError: it does not answer.
        DatabaseError: it is none, or a newer version has changed it.
    """
    try:
        with _begun(engine, MIGRATION_LOCK) as connection:
            command.upgrade(_alembic(connection), "head")
    except CommandError as error:
        newest = ScriptDirectory(str(SCRIPTS)).get_current_head()
        raise DatabaseError(f"the database is not of this version, whose newest is {newest}: {error}") from error
    except OperationalError as error:
        raise UnavailableError(f"{engine.url.render_as_string()}: {shown(error)}") from error
    except SQLAlchemyError as error:
        raise DatabaseError(f"{engine.url.render_as_string()}: {shown(error)}") from error


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """*values* in parts that one statement takes."""
    return (values[start : start + VALUES_A_QUERY_MAX] for start in range(0, len(values), VALUES_A_QUERY_MAX))
