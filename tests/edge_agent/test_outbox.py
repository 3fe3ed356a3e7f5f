"""What is sealed stays known over any death; only a sufficient receipt lets a file go."""

import sqlite3
from pathlib import Path

import pytest

from broker_config.device_classes import Priority
from broker_config.transfer import Receipted, StorageClass
from edge_agent import link_rules, outbox
from edge_agent.adapters.sqlite_outbox import SqliteOutbox
from edge_agent.folders import Recording
from edge_agent.link_rules import METERED, Limit
from edge_agent.outbox import HOUR_MS, Kept, OutboxError, Row, Sealed

UPLOAD = "0" * 31 + "1"
SHA = "a" * 64


def sealed(n: int = 1, **changes: object) -> Sealed:
    good = Sealed(
        f"{n:032x}", "logs", f"{n}.log", n, 100, 5, SHA, 16_384, Priority.LOG, b"{}", "pem", b"\0\0\0\1\0\0\0\2"
    )
    return good._replace(**changes)  # type: ignore[arg-type]


def receipt(upload: str = UPLOAD, **changes: object) -> Receipted:
    fields: dict[str, object] = {"sha256": SHA, "size": 100, "storage_class": StorageClass.LOGGED, **changes}
    return Receipted(upload, **fields)  # type: ignore[arg-type]


@pytest.fixture
def box(tmp_path: Path) -> SqliteOutbox:
    return SqliteOutbox(tmp_path / "uploads.db")


def take(box: SqliteOutbox, *receipts: Receipted, counter: int = 9, at_ms: int = 1_000) -> list[str]:
    return [row.upload for row in box.receipted(receipts, at_ms=at_ms, counter=counter, envelope=b"proof")]


def test_what_is_sealed_is_known_after_a_restart(box: SqliteOutbox, tmp_path: Path) -> None:
    box.sealed(sealed(recording="r", number=1), Recording("r", 2, SHA, "b", 7, "why"))
    again = SqliteOutbox(tmp_path / "uploads.db")
    assert again.known("logs") == {("1.log", 1)}
    assert again.recordings("logs") == {"r": Recording("r", 2, SHA, "b", 7, "why")}
    assert again.offer(UPLOAD) == (b"{}", "pem")
    assert (again.crc(UPLOAD, 0), again.crc(UPLOAD, 1), again.crc(UPLOAD, 2)) == (b"\0\0\0\1", b"\0\0\0\2", b"")
    assert [row.upload for row in again.waiting(Priority.LOG, (), 9)] == [UPLOAD]
    assert again.waiting(Priority.LOG, {UPLOAD}, 9) == []
    assert again.backlog() == (1, 100)


@pytest.mark.parametrize("changes", [{"upload": "0" * 32}, {"sha256": "b" * 64}, {"size": 101}])
def test_a_receipt_for_something_else_changes_nothing(box: SqliteOutbox, changes: dict[str, object]) -> None:
    box.sealed(sealed(), None)
    assert take(box, receipt(**{"upload": UPLOAD, **changes})) == []  # type: ignore[arg-type]
    assert box.backlog() == (1, 100)


def test_a_receipt_never_lowers_a_class_and_the_hold_begins_with_the_first(box: SqliteOutbox) -> None:
    box.sealed(sealed(), None)
    for storage_class, at_ms in ((StorageClass.STORED, 10), (StorageClass.LOGGED, 20), (StorageClass.REPLICATED, 30)):
        take(box, receipt(storage_class=storage_class), at_ms=at_ms)
    row = box.get(UPLOAD)
    assert row is not None
    assert (row.kept, row.storage_class, row.receipted_ms) == (Kept.RECEIPTED, StorageClass.LOGGED, 10)


def test_the_proof_stays_as_long_as_a_file_of_it(box: SqliteOutbox, tmp_path: Path) -> None:
    box.sealed(sealed(1), None)
    box.sealed(sealed(2), None)
    assert len(take(box, receipt(), receipt(f"{2:032x}"))) == 2
    for left, n in ((1, 1), (0, 2)):
        box.deleted(f"{n:032x}")
        with sqlite3.connect(tmp_path / "uploads.db") as db:
            assert db.execute("SELECT count(*) FROM receipt").fetchone() == (left,)


def test_what_changed_takes_no_receipt(box: SqliteOutbox) -> None:
    box.sealed(sealed(), None)
    box.becomes(UPLOAD, Kept.CHANGED)
    assert take(box, receipt()) == []


def test_another_store_makes_everything_wait_again(box: SqliteOutbox) -> None:
    box.sealed(sealed(), None)
    take(box, receipt())
    box.offer_again()
    assert box.backlog() == (1, 100)
    assert take(box, receipt(), counter=10) == [UPLOAD]


def test_a_damaged_outbox_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "uploads.db").write_bytes(b"no database" * 500)
    box = SqliteOutbox(tmp_path / "uploads.db")
    assert box.aside
    assert box.known("logs") == set()


def test_a_disk_that_is_full_gives_up_what_was_set_aside(box: SqliteOutbox, tmp_path: Path) -> None:
    room = tmp_path / "uploads.room"
    assert room.stat().st_size > 0
    pages = box._db.execute("PRAGMA page_count").fetchone()[0]
    box._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutboxError):
        box.sealed(sealed(crcs=b"\0" * 500_000), None)
    assert not room.exists()
    box._db.execute("PRAGMA max_page_count = 1000000")
    box.sealed(sealed(77), None)
    assert ("77.log", 77) in box.known("logs")


# The rules of deletion ----------------------------------------------------------------------------------------------


def row(kept: Kept = Kept.RECEIPTED, storage_class: StorageClass | None = StorageClass.LOGGED) -> Row:
    return Row(UPLOAD, "logs", "1.log", 1, 1, 1, SHA, 1, Priority.LOG, "", 0, kept, storage_class, 0)


HOLD_MS = 168 * HOUR_MS
CLASSES = (None, *StorageClass)


@pytest.mark.parametrize("kept", list(Kept))
@pytest.mark.parametrize("has", CLASSES)
@pytest.mark.parametrize("wanted", list(StorageClass))
@pytest.mark.parametrize("now_ms", [None, HOLD_MS - 1, HOLD_MS])
@pytest.mark.parametrize("short", [False, True])
def test_nothing_goes_without_a_sufficient_receipt(
    kept: Kept, has: StorageClass | None, wanted: StorageClass, now_ms: int | None, short: bool
) -> None:
    enough = kept is Kept.RECEIPTED and has is not None and CLASSES.index(has) >= CLASSES.index(wanted)
    held = now_ms is not None and now_ms >= HOLD_MS
    expected = enough and (held or (short and has is StorageClass.LOGGED))
    assert outbox.deletable(row(kept, has), wanted, now_ms=now_ms, hold_ms=HOLD_MS, short=short) is expected


def test_a_disk_that_fills_stops_what_is_least_urgent_first() -> None:
    before: frozenset[Priority] = frozenset()
    counts = []
    for room in (1_000, 999, 499, 249, 0, 1, 300, 320, 620, 700, 1_250):
        before = outbox.stopped(room, 1_000, before)
        counts.append(len(before))
    assert counts == [0, 1, 2, 3, 4, 3, 3, 2, 2, 1, 0]
    assert outbox.stopped(900, 1_000, ()) == {Priority.LOG}


# The link -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "hour", "rate", "priorities"),
    [
        ("cell", "12:00", 1024, METERED),
        ("cell", "23:00", None, link_rules.ALL),
        ("cell", "03:00", None, link_rules.ALL),
        ("dock", "12:00", None, link_rules.ALL),
        ("wifi", "12:00", None, frozenset()),
    ],
)
def test_the_first_rule_for_this_link_and_hour_counts(
    link: str, hour: str, rate: int | None, priorities: frozenset[Priority]
) -> None:
    from datetime import time

    limits = (
        Limit(link="cell", hours="22:00-06:00"),
        Limit(link="cell", bytes_per_s=1024, metered=True),
        Limit(link="wifi", paused=True),
    )
    assert link_rules.allowed(limits, link, time.fromisoformat(hour)) == (rate, priorities)


# Somebody asks for it -----------------------------------------------------------------------------------------------


def test_a_recording_that_is_asked_for_goes_first_and_so_does_what_comes_of_it(
    box: SqliteOutbox, tmp_path: Path
) -> None:
    begun = Recording("r", 2, SHA, "b", 7, "why")
    box.sealed(sealed(1, recording="r", number=1, priority=Priority.ROUTINE), begun)
    box.sealed(sealed(2, priority=Priority.ROUTINE), None)
    box.sealed(sealed(3, recording="r", number=9, priority=Priority.ALARM), None)
    found = box.pull("r")
    assert found is not None
    assert {row.upload[-1]: row.priority for row in found} == {"1": Priority.FLAGGED, "3": Priority.ALARM}
    again = SqliteOutbox(tmp_path / "uploads.db")  # it is not forgotten
    again.sealed(sealed(4, recording="r", number=2, priority=Priority.ROUTINE), begun._replace(next=3))
    assert [row.upload[-1] for row in again.waiting(Priority.FLAGGED, (), 9)] == ["1", "4"]
    assert [row.upload[-1] for row in again.waiting(Priority.ROUTINE, (), 9)] == ["2"]
    again.closed("logs", "r")
    again.sealed(sealed(5, recording="r", number=1, priority=Priority.ROUTINE), None)  # another of that name
    assert [row.upload[-1] for row in again.waiting(Priority.ROUTINE, (), 9)] == ["2", "5"]


def test_a_single_upload_can_be_asked_for_and_one_that_nobody_knows_cannot(box: SqliteOutbox) -> None:
    box.sealed(sealed(1), None)
    box.sealed(sealed(2), None)
    found = box.pull(UPLOAD)
    assert found is not None
    assert [row.upload for row in found] == [UPLOAD]
    assert box.pull("nobody") is None
