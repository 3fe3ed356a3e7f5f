"""``fleet-server backup`` and ``restore`` bring back what devices sent and what operators said."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet_server.__main__ import app
from fleet_server.access.auditor import own_fact
from fleet_server.adapters import site_directory
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.config import API_PORT
from fleet_server.parts import DATABASE_FILE, STORE_FILE
from fleet_server.registry.model import Registration
from fleet_server.site import DEVICE_PORT, SERVER_CONFIG, SERVER_PORT

CAR = Registration("car-7", "in_car_terminal", "SN-1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a site whose server has run once."""
    site_directory.create(
        tmp_path / "site",
        hosts=("localhost",),
        device_port=DEVICE_PORT,
        server_port=SERVER_PORT,
        api_port=API_PORT,
        broker_user=None,
        now=datetime.now(UTC),
    )
    config = tmp_path / "site" / SERVER_CONFIG
    state = config.parent / "state"
    state.mkdir()
    SqliteStore(state / STORE_FILE, now_ms=1_000).close()
    registry_of(config).register(CAR, expected=0, create=True, now_ms=1_000)
    return config


def registry_of(config: Path) -> SqlRegistry:
    engine = database.connect(database.sqlite_url(config.parent / "state" / DATABASE_FILE))
    database.migrate(engine)
    return SqlRegistry(engine)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_operators_said_comes_back(config: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert run("backup", "--config", str(config), str(copy)).count("bytes") == 2
    registry_of(config).forget("car-7", expected=None, now_ms=2_000)
    assert "restored; store epoch" in run("restore", "--config", str(config), str(copy))
    found = registry_of(config).device("car-7")
    assert found is not None
    assert found.registration == CAR
    kept = [path.name for path in (config.parent / "state").iterdir() if ".until-" in path.name]
    assert sorted(name.partition(".until-")[0] for name in kept if not name.endswith(("-wal", "-shm"))) == [
        DATABASE_FILE,
        STORE_FILE,
    ]


def test_a_restored_audit_log_is_a_new_one(config: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    store = SqlAudit(database.connect(database.sqlite_url(config.parent / "state" / DATABASE_FILE)))
    before = store.begin(own_fact("audit.begin", "", at_ms=1_000))
    run("backup", "--config", str(config), str(copy))
    store.append([own_fact("server.start", "", at_ms=2_000)])
    run("restore", "--config", str(config), str(copy))
    store = SqlAudit(database.connect(database.sqlite_url(config.parent / "state" / DATABASE_FILE)))
    head = store.head()
    assert head is not None
    assert head.log > before.log
    assert store.end_of(before.log) == before
    assert b"restored from a backup" in store.entries(head.log, from_index=0, rows_max=1)[0]


def test_a_new_audit_log_begins_on_demand(config: Path) -> None:
    said = run("begin-audit-log", "--config", str(config), "--why", "case 12")
    store = SqlAudit(database.connect(database.sqlite_url(config.parent / "state" / DATABASE_FILE)))
    head = store.head()
    assert head is not None
    assert str(head.log) in said
