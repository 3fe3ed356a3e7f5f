"""``fleet-server rebuild``, ``backup``, ``restore``, ``begin-audit-log``: what is done to the stores by hand."""

from pathlib import Path
from typing import Annotated, Final

import typer

from fleet_server import parts
from fleet_server.access.auditor import BEGIN, own_fact
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sqlite_backup import backup as copy
from fleet_server.adapters.sqlite_backup import copy_back
from fleet_server.adapters.sqlite_store import SqliteStore, restore_backup, set_aside
from fleet_server.cli import moments
from fleet_server.cli.config_file import EXIT_FAILED, ConfigFile, exit_code, fail, loaded
from fleet_server.config import Config
from fleet_server.parts import DATABASE_FILE, INFLUX_SINK, STORE_FILE, PartError, now_ms
from fleet_server.projection.feed import UnknownSinkError
from fleet_server.telemetry.store import StoreError

RESTORED: Final = "restored from a backup"


def add_commands(app: typer.Typer) -> None:
    """Mount them on the program's command line."""
    config = "--config site/server/fleet-server.toml"
    app.command("rebuild", epilog=f"Example: fleet-server rebuild {config} --from -7d")(rebuild)
    app.command("backup", epilog=f"Example: fleet-server backup {config} telemetry.backup")(backup)
    app.command("restore", epilog=f"Example: fleet-server restore {config} telemetry.backup")(restore)
    app.command("begin-audit-log", epilog=f'Example: fleet-server begin-audit-log {config} --why "see case 12"')(
        begin_audit_log
    )


def rebuild(
    config: ConfigFile,
    since: Annotated[str, typer.Option("--from", help="such as -90s, -15m, -1h, -7d, or RFC 3339")],
    sink: Annotated[str, typer.Option(help="which projection")] = INFLUX_SINK,
) -> None:
    """Have a projection written again from the batch store. One that runs begins at once."""
    settings, at_ms = loaded(config), now_ms()
    path = settings.state_dir / STORE_FILE
    if not path.is_file():
        fail(f"{path}: no such file", EXIT_FAILED)
    try:
        from_ms = moments.parse(since, now_ms=at_ms)
        store = SqliteStore(path, now_ms=at_ms)
        places = store.feed.mark_stale(sink, from_ms=from_ms, now_ms=at_ms)
        store.close()
    except (StoreError, UnknownSinkError, ValueError) as error:
        fail(error, EXIT_FAILED)
    print(f"{sink}: {places} hours of streams will be written again")


def backup(config: ConfigFile, to: Annotated[Path, typer.Argument(help="a file that is not there yet")]) -> None:
    """Copy the store, consistent and durable, while the server runs; beside it, as TO.operators, what operators said.

    Operators' data in PostgreSQL is copied by PostgreSQL's own means. The whole site, with keys and files of devices:
    fieldfleet backup.
    """
    settings = loaded(config)
    operators = settings.state_dir / DATABASE_FILE
    try:
        store = SqliteStore(settings.state_dir / STORE_FILE, now_ms=now_ms())
        store.backup(to)
        store.close()
        if not settings.database.url and operators.exists():
            copy(operators, _beside(to))
    except StoreError as error:
        fail(error, EXIT_FAILED)
    for path in (to, _beside(to)):
        if path.exists():
            print(f"{path}: {path.stat().st_size} bytes")
    if settings.database.url:
        print("operators' data is in PostgreSQL: copy it with pg_dump")


def restore(config: ConfigFile, source: Annotated[Path, typer.Argument(help="what backup wrote")]) -> None:
    """Put a backup in the store's place and begin a new store epoch, so that devices offer again what it lacks.

    What operators said comes back from SOURCE.operators if it is there, and a new audit log begins. The server must
    be stopped; what was there is kept beside it. After PostgreSQL was restored: fleet-server begin-audit-log.
    """
    settings = loaded(config)
    path, operators = settings.state_dir / STORE_FILE, settings.state_dir / DATABASE_FILE
    if not source.is_file():
        fail(f"{source}: no such file", EXIT_FAILED)
    try:
        aside = set_aside(path, now_ms=now_ms())
        epoch = restore_backup(source, path, now_ms=now_ms())
        if not settings.database.url and _beside(source).is_file():
            set_aside(operators, now_ms=now_ms())
            copy_back(_beside(source), operators)
            _begin_log(settings, RESTORED)  # the old one goes on elsewhere, as its witnesses saw
    except StoreError as error:
        fail(error, EXIT_FAILED)
    kept = f"; the store that was there is {aside.name} now" if aside is not None else ""
    print(f"restored; store epoch {epoch}{kept}")
    if settings.device_ca is not None:
        print("devices that renewed since the backup: let them, with renew_unknown = true in [device_ca] for a month")


def begin_audit_log(
    config: ConfigFile, why: Annotated[str, typer.Option(help="What was found; the new log's first entry says it.")]
) -> None:
    """Begin a new audit log, because the one there is not what was signed; that one stays as it is.

    Every witness refuses the new log until somebody there has been told of it, too. The server may run.
    """
    try:
        number = _begin_log(loaded(config), why)
    except StoreError as error:
        fail(f"database: {error}", EXIT_FAILED)
    print(f"audit log {number} has begun; the ones before it: fieldfleet audit export --log NUMBER")


def _begin_log(config: Config, why: str) -> int:
    try:
        engine, _ = parts.database_of(config)
    except PartError as error:
        fail(error, exit_code(error))
    try:
        return SqlAudit(engine).begin(own_fact(BEGIN, why, at_ms=now_ms())).log
    finally:
        engine.dispose()


def _beside(backup_file: Path) -> Path:
    """Where the copy of the operators' database is."""
    return backup_file.with_name(backup_file.name + ".operators")
