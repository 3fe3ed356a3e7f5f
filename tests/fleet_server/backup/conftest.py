"""A site whose server has run once, with evidence, on SQLite or on PostgreSQL."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert
from typer.testing import CliRunner, Result

from fleet_server.access.auditor import own_fact
from fleet_server.adapters import site_directory
from fleet_server.adapters.incoming_files import ContentDirectory
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.evidence_tables import evidence_piece
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.adapters.sqlite_uploads import SqliteUploads
from fleet_server.backup import sealing
from fleet_server.cli.__main__ import app
from fleet_server.config import API_PORT, Config, load
from fleet_server.parts import STORE_FILE, database_of
from fleet_server.registry.model import Registration
from fleet_server.site import DEVICE_PORT, ENROLMENT_PORT, SERVER_CONFIG, SERVER_PORT
from fleet_server.uploads import UPLOADS_FILE
from tests.postgres import postgres

CAR = Registration("car-7", "in_car_terminal", "SN-1")
PASSPHRASE = "correct horse battery"
TEXTS = (
    "device device_class path file_class kind name media_type manifest_sha256 recording clock holder journal_life "
    "certificate via damage"
)
NUMBERS = (
    "segment begin_ms begin_unc_ms end_ms end_unc_ms journal_first journal_last offered_ms received_ms log entry"
)
"""Columns of a piece, of which a backup looks at none."""


@dataclass
class Lab:
    """``directory``: the site's. ``elsewhere``: of this test."""

    directory: Path
    elsewhere: Path

    @property
    def config_file(self) -> Path:
        return self.directory / SERVER_CONFIG

    @property
    def config(self) -> Config:
        return load(self.config_file)

    @property
    def state(self) -> Path:
        return self.directory / "server" / "state"

    @property
    def contents(self) -> ContentDirectory:
        return ContentDirectory(self.state / "evidence")

    @property
    def root(self) -> Path:
        return self.elsewhere / "backups"

    @property
    def passphrase_file(self) -> Path:
        file = self.elsewhere / "passphrase"
        file.write_text(f"{PASSPHRASE}\n")
        file.chmod(0o600)
        return file

    def backup(self, *more: str) -> Path:
        """Made, and whole; where it is."""
        done = self.run("backup", str(self.root), "--site", str(self.directory), *self.sealed(), *more, "--json")
        assert done.exit_code == 0, done.output
        return Path(json.loads(done.stdout)["backup"])

    def sealed(self) -> tuple[str, str]:
        return "--passphrase-file", str(self.passphrase_file)

    def keep(self, data: bytes, *, named: bool = True) -> str:
        """A content of evidence; *named*: by the index."""
        sha256 = hashlib.sha256(data).hexdigest()
        file = self.state / "evidence" / "incoming" / "new"
        file.write_bytes(data)
        self.contents.keep(file, sha256)
        if named:
            self.name(sha256, len(data))
        return sha256

    def name(self, sha256: str, size: int) -> None:
        """In the index."""
        texts = dict.fromkeys(TEXTS.split(), "x")
        numbers = dict.fromkeys(NUMBERS.split(), 1)
        row = {**texts, **numbers, "piece": sha256[:32], "sha256": sha256, "size": size, "last": True}
        with self.engine() as engine, database.writing(engine) as connection:
            connection.execute(insert(evidence_piece).values({**row, "state": "kept", "envelope": b"x"}))

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        engine, _ = database_of(self.config)
        try:
            yield engine
        finally:
            engine.dispose()

    @staticmethod
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase is to be slow, and not here."""
    monkeypatch.setattr(sealing, "SCRYPT_N", 2**4)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return made(tmp_path)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server("postgres"))])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    if request.param == "sqlite":
        yield made(tmp_path)
        return
    with postgres() as url:
        password = url.password or ""
        yield made(tmp_path, f"postgresql+psycopg://{url.username}@{url.host}:{url.port}/{url.database}", password)


def made(tmp_path: Path, url: str = "", password: str = "") -> Lab:
    lab = Lab(tmp_path / "site", tmp_path)
    site_directory.create(
        lab.directory,
        hosts=("localhost",),
        device_port=DEVICE_PORT,
        server_port=SERVER_PORT,
        api_port=API_PORT,
        enrolment_port=ENROLMENT_PORT,
        broker_user=None,
        now=datetime.now(UTC),
    )
    if url:
        file = lab.directory / "server" / "database-password"
        file.write_text(password)
        file.chmod(0o600)
        text = f'\n[database]\nurl = "{url}"\npassword_file = "database-password"\n'
        lab.config_file.write_text(lab.config_file.read_text() + text)
    (lab.state / "evidence" / "incoming").mkdir(parents=True, mode=0o700)
    SqliteStore(lab.state / STORE_FILE, now_ms=1_000).close()
    SqliteUploads(lab.state / "evidence" / UPLOADS_FILE).close()
    (lab.state / "signer.counter").write_text("41\n")
    with lab.engine() as engine:
        SqlRegistry(engine).register(CAR, expected=0, create=True, now_ms=1_000)
        SqlAudit(engine).begin(own_fact("audit.begin", "", at_ms=1_000))
    return lab
