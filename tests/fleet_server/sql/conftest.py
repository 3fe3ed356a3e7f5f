"""Each claim of the operator's database holds on SQLite and on PostgreSQL."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.registry.model import NodeKind, OrgNode
from tests.postgres import postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[URL]:
    """One server for all tests of a worker."""
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server("postgres"))])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database, not yet migrated."""
    if request.param == "sqlite":
        engine = database.connect(database.sqlite_url(tmp_path / "operators.db"))
    else:
        server: URL = request.getfixturevalue("postgres_url")
        name = f"test_{next(_numbers)}"
        admin = database.connect(server).execution_options(isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        engine = database.connect(server.set(database=name))
    yield engine
    engine.dispose()


@pytest.fixture
def registry(engine: Engine) -> SqlRegistry:
    """With a centre and a station."""
    database.migrate(engine)
    registry = SqlRegistry(engine)
    for node in (OrgNode("hq", NodeKind.CENTRE, "Centre"), OrgNode("station-7", NodeKind.STATION, "Seventh", "hq")):
        registry.put_node(node, expected=None, create=True, now_ms=0)
    return registry
