"""The audit log in either database: no holes, only added to, and known for another when it was changed."""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from fleet_server.access import audit, export, notes
from fleet_server.access.audit import AuditError, Head, Phase, Wanted
from fleet_server.access.auditor import WAITING_MAX, Auditor, BrokenLogError, own_fact
from fleet_server.access.notes import Signer
from fleet_server.access.refusals import MINUTE_MS
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.access.drafts import LOG, SIGNER, SITE, draft, exported

THREADS = 8
ENTRIES_A_THREAD = 25
DROP_SQLITE = "SELECT 'DROP TRIGGER ' || name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit_%'"
DROP_POSTGRESQL = "SELECT 'DROP FUNCTION audit_only_added_to CASCADE'"


@pytest.fixture
def store(engine: Engine) -> SqlAudit:
    database.migrate(engine)
    return SqlAudit(engine)


@pytest.fixture
def auditor(store: SqlAudit) -> Auditor:
    """Of a log that has begun and is signed."""
    auditor = started(store)
    for number in range(20):
        auditor.record(draft(number))
    auditor.sign()
    return auditor


def started(store: SqlAudit, signer: Signer = SIGNER) -> Auditor:
    auditor = Auditor(store, signer, SITE, now_ms=lambda: LOG)
    auditor.start()
    return auditor


def everything(store: SqlAudit) -> Sequence[bytes]:
    head = store.head()
    assert head is not None
    return store.entries(head.log, from_index=0, rows_max=10_000)


def verdict(store: SqlAudit) -> export.Verdict:
    entries = everything(store)
    note = store.checkpoint(LOG)
    assert note is not None
    return export.verify(exported(entries, note), key=SIGNER.verifier)


def changed_below(engine: Engine, *statements: str) -> None:
    """As somebody does it who owns the database: the triggers are no security."""
    with database.writing(engine) as connection:
        drop = DROP_SQLITE if connection.dialect.name == database.SQLITE else DROP_POSTGRESQL
        for statement in [*connection.execute(text(drop)).scalars(), *statements]:
            connection.execute(text(statement))


def test_writers_at_once_leave_no_hole(store: SqlAudit) -> None:
    auditor = started(store)

    def write(thread: int) -> None:
        for number in range(ENTRIES_A_THREAD):
            auditor.record(draft(1_000 * thread + number))
            if number % 5 == 0:
                auditor.sign()

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(write, thread) for thread in range(THREADS)]:
            done.result()
    auditor.sign()
    found = verdict(store)
    assert found.passed, found.findings
    assert found.entries == 2 + THREADS * ENTRIES_A_THREAD
    assert auditor.facts().fault == ""


def test_two_servers_share_a_log(store: SqlAudit, engine: Engine) -> None:
    auditors = [started(store), started(SqlAudit(engine))]
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(each.record, draft(n)) for n in range(10) for each in auditors]:
            done.result()
        for signed in [threads.submit(each.sign) for _ in range(5) for each in auditors]:
            signed.result()
    assert verdict(store).passed


def test_who_records_is_told_where(store: SqlAudit) -> None:
    auditor = started(store)
    for number in range(3):
        log, index = auditor.record(draft(number))
        (raw,) = store.entries(log, from_index=index, rows_max=1)
        assert audit.read(raw).subject == f"car-{number}"


def test_several_entries_are_entered_together_or_not_at_all(store: SqlAudit) -> None:
    started(store)
    before = store.head()
    with pytest.raises(AuditError):
        store.append([draft(1), draft(2, action="Not A Name")])
    assert store.head() == before


@pytest.mark.parametrize("table", ["audit_entry", "audit_node", "audit_checkpoint"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET log = log + 1"])
def test_accidents_are_refused(auditor: Auditor, engine: Engine, table: str, statement: str) -> None:
    with pytest.raises(StoreError, match="only added to"), database.writing(engine) as connection:
        connection.execute(text(statement.format(table)))
    assert verdict_of(auditor).passed


def verdict_of(auditor: Auditor) -> export.Verdict:
    assert isinstance(auditor.store, SqlAudit)
    return verdict(auditor.store)


OTHER_BYTES = "UPDATE audit_entry SET entry = (SELECT entry FROM audit_entry WHERE number = 3) WHERE number = {}"


@pytest.mark.parametrize(
    "statements",
    [
        [OTHER_BYTES.format(5)],
        [OTHER_BYTES.format(21)],  # the last
        ["DELETE FROM audit_entry WHERE number = 7", "UPDATE audit_entry SET number = number - 1 WHERE number > 7"],
        ["DELETE FROM audit_entry WHERE number > 17"],
        ["UPDATE audit_node SET hash = (SELECT hash FROM audit_node WHERE place = 0) WHERE place = 30"],
        ["DELETE FROM audit_node WHERE place = 37"],
        ["UPDATE audit_checkpoint SET note = 'nothing'"],
    ],
)
def test_what_was_changed_below_the_server_is_found_when_it_starts(
    auditor: Auditor, engine: Engine, statements: list[str]
) -> None:
    changed_below(engine, *statements)
    again = started(SqlAudit(engine))
    assert again.facts().fault
    with pytest.raises(BrokenLogError, match="not the one that was signed"):
        again.record(draft(99))
    if "audit_entry" in statements[0]:
        assert not verdict_of(auditor).passed


def test_what_was_changed_since_the_last_checkpoint_is_not_signed(auditor: Auditor, engine: Engine) -> None:
    auditor.record(draft(30))
    auditor.record(draft(31))
    note = auditor.store.checkpoint(LOG)
    changed_below(engine, OTHER_BYTES.format(22))
    assert auditor.sign() == note
    assert "entry 22" in auditor.facts().fault


@pytest.mark.parametrize("more", [0, 1, 3])
def test_what_was_taken_away_since_the_last_checkpoint_is_found_while_the_server_runs(
    auditor: Auditor, engine: Engine, more: int
) -> None:
    """Whoever deletes entries before they are signed has only until the next checkpoint."""
    note = auditor.store.checkpoint(LOG)
    for number in range(2):
        auditor.record(draft(number))
    changed_below(engine, "DELETE FROM audit_entry WHERE number > 21", "DELETE FROM audit_node WHERE place > 40")
    for number in range(more):
        auditor.record(draft(100 + number))
    assert auditor.sign() == note
    assert "this server has entered" in auditor.facts().fault


def test_columns_that_only_find_an_entry_say_nothing(auditor: Auditor, engine: Engine) -> None:
    changed_below(engine, "UPDATE audit_entry SET actor = 'nobody' WHERE number = 5")
    assert verdict_of(auditor).passed
    (raw,) = auditor.store.newest(Wanted(actor="nobody"), before=None, rows_max=9)
    assert audit.read(raw).actor == "token"


def test_another_s_key_takes_no_entry(auditor: Auditor, engine: Engine) -> None:
    other = Signer(SIGNER.name, bytes(32))
    assert "not signed by" in started(SqlAudit(engine), other).facts().fault


def test_a_new_log_begins_and_the_old_one_stays(auditor: Auditor, engine: Engine) -> None:
    changed_below(engine, OTHER_BYTES.format(5))
    store = SqlAudit(engine)
    again = started(store)
    old = again.facts()
    head = store.begin(own_fact("audit.begin", old.fault, at_ms=LOG))
    assert head == Head(LOG + 1, 1, head.prev)
    again.record(draft(1))
    note = again.sign()
    assert note is not None
    assert notes.checkpoint_of(note).origin == audit.origin(SITE, LOG + 1)
    assert notes.checkpoint_of(note).size == 2
    assert len(store.entries(old.log, from_index=0, rows_max=99)) == old.entries
    (_, begun) = store.newest(Wanted(), before=None, rows_max=2)
    assert audit.read(begun).subject == old.fault
    assert started(SqlAudit(engine)).facts().fault == ""


def test_filters_and_pages(store: SqlAudit) -> None:
    auditor = started(store)
    for number in range(10):
        auditor.record(draft(number, action="device.register" if number % 2 else "device.forget"))

    def found(wanted: Wanted, **more: object) -> list[str]:
        rows = store.newest(wanted, **{"before": None, "rows_max": 100, **more})  # type: ignore[arg-type]
        return [audit.read(raw).subject for raw in rows]

    assert found(Wanted(action="device.register")) == ["car-9", "car-7", "car-5", "car-3", "car-1"]
    assert found(Wanted(action="device.register"), rows_max=2) == ["car-9", "car-7"]
    assert found(Wanted(action="device.register"), before=(LOG, 9), rows_max=2) == ["car-5", "car-3"]
    assert found(Wanted(subject="car-4", actor="token")) == ["car-4"]
    assert found(Wanted(from_ms=LOG + 3, to_ms=LOG + 5)) == ["car-4", "car-3"]
    assert found(Wanted(actor="nobody")) == []


class Failing(SqlAudit):
    """Takes nothing while ``down``."""

    down = False

    def append(self, drafts: Sequence[audit.Draft]) -> Head:
        if self.down:
            raise StoreError("no space left on device")
        return super().append(drafts)


def test_an_outcome_that_the_store_did_not_take_comes_before_the_next_intent(store: SqlAudit, engine: Engine) -> None:
    failing = Failing(engine)
    auditor = started(failing)
    auditor.record(draft(1, phase=Phase.INTENT, request="a"))
    failing.down = True
    auditor.finish(draft(2, phase=Phase.OUTCOME, request="a"))
    assert auditor.facts().waiting == 1
    with pytest.raises(StoreError):
        auditor.record(draft(3, phase=Phase.INTENT, request="b"))
    assert auditor.facts().waiting == 1
    failing.down = False
    auditor.record(draft(4, phase=Phase.INTENT, request="c"))
    assert [audit.read(raw).request for raw in everything(store)[-3:]] == ["a", "a", "c"]
    assert auditor.facts().waiting == 0


def test_what_waits_is_bounded(store: SqlAudit, engine: Engine) -> None:
    failing = Failing(engine)
    auditor = started(failing)
    failing.down = True
    for number in range(WAITING_MAX + 10):
        auditor.finish(draft(number))
    assert auditor.facts().waiting == WAITING_MAX


def test_strangers_are_recorded_when_their_minute_is_over_or_the_server_stops(store: SqlAudit) -> None:
    now_ms = [100 * MINUTE_MS]
    auditor = Auditor(store, SIGNER, SITE, now_ms=lambda: now_ms[0])
    auditor.start()
    for _ in range(3):
        auditor.refused("10.0.0.7")
    auditor.tend()
    assert store.newest(Wanted(action="auth.refused"), before=None, rows_max=9) == []
    now_ms[0] += MINUTE_MS
    auditor.tend()
    auditor.refused("10.0.0.7")
    auditor.stop()
    rows = store.newest(Wanted(action="auth.refused"), before=None, rows_max=9)
    assert [audit.read(raw).count for raw in rows] == [1, 3]
    note = store.checkpoint(100 * MINUTE_MS)
    assert note is not None
    assert notes.checkpoint_of(note).size == len(everything(store))


def test_a_server_killed_between_an_entry_and_its_checkpoint_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "operators.db"
    engine = database.connect(database.sqlite_url(path))
    database.migrate(engine)
    store, told = SqlAudit(engine), 0
    for stop_at in (9, 10, 16):
        command = [sys.executable, "-m", "tests.fleet_server.sql.audit_writer", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(stop_at):
                told = int(writer.stdout.readline())
            writer.kill()
            told = max([told, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        auditor = started(store)
        assert auditor.facts().fault == ""
        assert len(everything(store)) >= told + 1, "what was told to be durable is there"
        assert verdict(store).passed
    engine.dispose()
