"""Migrations make the tables that the code names, once, on either database."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Event

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.assignment_tables import assignment
from fleet_server.adapters.sql.command_tables import command
from fleet_server.adapters.sql.evidence_tables import evidence_piece
from fleet_server.adapters.sql.rollout_tables import rollout
from fleet_server.adapters.sql.twin_tables import twin
from fleet_server.telemetry.store import StoreError
from tests.servers import HOST, free_port


def test_migrated_tables_are_those_of_the_code(engine: Engine) -> None:
    database.migrate(engine)
    with database.reading(engine) as connection:
        # each module adds its tables to the one
        assert all(table.metadata is evidence_piece.metadata for table in (assignment, command, rollout, twin))
        assert compare_metadata(MigrationContext.configure(connection), evidence_piece.metadata) == []


def test_servers_that_start_at_once_make_the_tables_once(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(database.migrate, engine) for _ in range(4)]:
            done.result()
    with database.reading(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1


def test_what_a_newer_version_changed_is_refused_and_left_alone(engine: Engine) -> None:
    database.migrate(engine)
    with database.writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(database.DatabaseError, match="not of this version"):
        database.migrate(engine)


def test_an_error_rolls_all_of_a_transaction_back(engine: Engine) -> None:
    database.migrate(engine)
    statements = [
        "INSERT INTO device_place VALUES ('car-7', 1, 'host', '')",
        "SELECT no_such_column FROM device_place",
    ]
    with pytest.raises(StoreError), database.writing(engine) as connection:
        any(connection.execute(text(each)) is None for each in statements)
    with database.reading(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM device_place")).scalar_one() == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("not a url", "expected a URL"),
        ("mysql://db/fleet", "expected sqlite or postgresql"),
        ("postgresql+psycopg://fleet:secret@db/fleet", "give it in password_file"),
    ],
)
def test_a_url_that_cannot_be_used_is_told(url: str, said: str) -> None:
    with pytest.raises(database.DatabaseError, match=said) as told:
        database.checked_url(url)
    assert "secret" not in str(told.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "operators.db"
    path.write_bytes(b"this is not a database, and long enough to be taken for one" * 10)
    with pytest.raises(database.DatabaseError, match="not a database"):
        database.migrate(database.connect(database.sqlite_url(path)))


def test_a_server_that_does_not_answer_may_later(tmp_path: Path) -> None:
    nobody = f"postgresql+psycopg://fleet@{HOST}:{free_port()}/fleet"
    with pytest.raises(database.UnavailableError):
        database.migrate(database.connect(database.checked_url(nobody, "secret")))


def test_who_writes_now_and_then_has_a_turn_after_one_transaction_of_who_writes_often(engine: Engine) -> None:
    database.migrate(engine)
    begun, over, turns, waited = Event(), Event(), itertools.count(1), list[int]()
    last = 0

    def write_often() -> None:
        nonlocal last
        while not over.is_set():
            with database.writing(engine, lock=7):
                last = next(turns)
                begun.set()
                over.wait(0.03)
            over.wait(0.001)

    with ThreadPoolExecutor(1) as threads:
        often = threads.submit(write_often)
        try:
            for _ in range(11):
                begun.clear()
                assert begun.wait(10)
                before = last
                with database.writing(engine, lock=7):
                    waited.append(last - before)
        finally:
            over.set()
        often.result()
    assert median(waited) <= 1, waited


def test_who_waits_too_long_for_others_to_write_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    engine = database.connect(database.sqlite_url(tmp_path / "operators.db"))

    def write() -> None:
        with database.writing(engine):
            raise AssertionError("it is another's turn")

    with ThreadPoolExecutor(1) as threads, database.writing(engine):
        found = threads.submit(write).exception()
    assert isinstance(found, StoreError), found
    with database.writing(engine):
        pass
    engine.dispose()
