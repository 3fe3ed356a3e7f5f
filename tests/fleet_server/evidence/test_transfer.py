"""Files from offers to receipts, over real directories and a real database."""

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker_config import limits
from broker_config.transfer import Code, Reject, State, StorageClass, decode_chunk
from fleet_server.adapters.incoming_files import IncomingDirectory
from fleet_server.adapters.sqlite_uploads import SqliteUploads
from fleet_server.evidence.admission import Bounds
from fleet_server.evidence.checks import RETRY_S
from fleet_server.evidence.finishing import Damaged, Failed, Kept
from fleet_server.evidence.underway import Said
from fleet_server.evidence.uploads import UploadError
from tests.fleet_server.evidence.upload_rig import CHUNK, OTHER, File, Side, file_of, identity_of, manifest_of

SIZE = 5 * CHUNK + 123


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side(tmp_path)


def part(side: Side, file: File) -> Path:
    found = side.incoming.path(file.upload)
    assert found is not None
    return found


def test_a_file_is_kept_byte_for_byte_and_receipted(side: Side) -> None:
    file = file_of(SIZE)
    side.send(file)
    told = side.receipted(file)
    assert told is not None
    assert (told.sha256, told.size, told.storage_class) == (file.manifest.sha256, SIZE, StorageClass.LOGGED)
    assert side.kept(file) == file.data
    assert side.register.entered() == [file.upload]
    assert side.incoming.names() == []
    assert side.content.path(told.sha256).stat().st_mode & 0o777 == 0o400


def test_an_offer_may_be_repeated_and_one_that_is_done_is_receipted_again(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer(), file.says_chunk(0))
    side.say(file.says_offer())
    assert side.state(file).missing == ((1, 5),)
    side.send(file)
    count = len(side.receipts)
    for said in (file.says_offer(), file.says_query(), file.says_chunk(2)):
        side.say(said, said)
        side.finish()
    assert len(side.receipts) == count + 3
    assert side.register.entered() == [file.upload]


def test_a_register_that_lost_a_file_has_it_again_before_it_is_receipted_again(side: Side) -> None:
    file = file_of(SIZE)
    side.send(file)
    first = side.receipted(file)
    side.register.restore_empty()
    side.say(file.says_offer())
    assert side.receipted(file) is first
    side.finish()
    second = side.receipted(file)
    assert second is not None
    assert second != first
    assert file.upload in side.register.entered()


def test_a_file_that_register_and_store_have_lost_comes_again(side: Side) -> None:
    file = file_of(SIZE)
    side.send(file)
    side.content.remove(file.manifest.sha256)
    side.receipts.clear()
    side.register.down = True
    side.say(file.says_offer())
    side.finish()
    side.register.down = False
    assert side.state(file).missing == ((0, 5),)
    side.send(file)
    assert side.kept(file) == file.data


def test_a_state_tells_only_what_a_new_process_finds(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    side.say(file.says_chunk(4), file.says_chunk(1))
    assert side.state(file).missing == ((0, 0), (2, 3), (5, 5))
    side.restart()
    side.say(file.says_query())
    assert side.state(file).missing == ((0, 0), (2, 3), (5, 5))


def test_a_state_lists_64_ranges_and_says_that_there_are_more(side: Side) -> None:
    file = file_of(200 * CHUNK)
    side.say(file.says_offer())
    side.say(*[file.says_chunk(number) for number in range(1, 200, 2)])
    state = side.state(file)
    assert state.missing == tuple((n, n) for n in range(0, 128, 2))
    assert state.more


def test_any_order_with_repeats_ends_with_the_file(side: Side) -> None:
    rng = random.Random(7)
    file = file_of(40 * CHUNK)
    side.say(file.says_offer())
    order = [*range(40), *range(40)]
    rng.shuffle(order)
    for at in range(0, len(order), 7):
        side.say(*[file.says_chunk(number) for number in order[at : at + 7]])
    side.finish()
    assert side.kept(file) == file.data
    assert side.table.counts["conflict"] == 0


def test_the_same_chunk_with_other_bytes_is_not_stored_and_is_told(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer(), file.says_chunk(0))
    side.say(file.says_chunk(0, bytes(CHUNK)))
    side.say(file.says_chunk(1), file.says_chunk(1, bytes(CHUNK)))  # in one group, too
    assert side.table.counts["conflict"] == 2
    assert sum("conflict" in line for line in side.suspect) == 2
    side.send(file)
    assert side.kept(file) == file.data


@pytest.mark.parametrize(
    "said",
    [
        lambda f: f.says_chunk(0, b"x"),  # too short
        lambda f: f.says_chunk(5, bytes(CHUNK)),  # the last is shorter
        lambda f: f.says_chunk(6, bytes(CHUNK)),  # there is none
    ],
)
def test_a_chunk_that_does_not_fit_changes_nothing(side: Side, said: Callable[[File], Said]) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    side.say(said(file))
    assert side.state(file).missing == ((0, 5),)
    assert side.table.counts["misfit"] == 1


def test_a_chunk_that_was_damaged_on_the_way_changes_nothing(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    good = file.says_chunk(0)
    bad = bytearray(good.payload)
    bad[100] ^= 1
    side.say(good._replace(payload=bytes(bad)))
    side.say(file.says_query())
    assert side.state(file).missing == ((0, 5),)
    assert side.table.counts["malformed"] == 1


def test_another_devices_upload_is_unknown(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    side.say(file.says_chunk(0)._replace(device=OTHER))
    assert side.told[-1] == (OTHER, Reject(1, file.upload, Code.UNKNOWN))
    assert side.table.counts["foreign"] == 1
    side.say(file.says_query())
    assert side.state(file).missing == ((0, 5),)


def test_an_upload_that_was_never_offered_is_unknown(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_chunk(0), file.says_query())
    assert side.told == [(file.device, Reject(1, file.upload, Code.UNKNOWN))]


# reading again


def test_a_byte_that_the_disk_changed_costs_one_chunk(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    side.say(*[file.says_chunk(number) for number in range(6)])
    with part(side, file).open("r+b") as opened:
        opened.seek(3 * CHUNK + 7)
        opened.write(b"\xff\x00\xff")
    assert side.finish() == [Damaged(file.upload, (3,))]
    assert side.receipts == []
    assert side.state(file).missing == ((3, 3),)
    side.restart()  # the bit is gone from the disk, too
    side.say(file.says_query())
    assert side.state(file).missing == ((3, 3),)
    side.send(file)
    assert side.kept(file) == file.data


def test_a_disk_that_damages_everything_makes_the_device_wait(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    for _ in range(5):
        side.say(*[file.says_chunk(number) for number in range(6)])
        with part(side, file).open("r+b") as opened:
            opened.write(os.urandom(8))
        side.finish()
    last = side.told[-1][1]
    assert isinstance(last, Reject)
    assert (last.code, last.again_s) == (Code.DISK, 600)
    side.send(file)
    assert side.kept(file) == file.data


def test_chunks_that_came_as_sent_and_are_another_file_are_asked_for_their_hashes(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    other = bytes(CHUNK)  # with a right CRC: the device's memory was damaged before it was computed
    side.say(*[file.says_chunk(number) for number in range(6) if number != 2], file.says_chunk(2, other))
    assert side.finish() == [Damaged(file.upload, ())]
    assert side.state(file).leaves
    side.say(*file.says_leaves())
    assert side.finish() == [Damaged(file.upload, (2,))]
    assert side.state(file).missing == ((2, 2),)
    side.send(file)
    assert side.kept(file) == file.data


def test_a_manifest_that_is_not_its_files_is_never_kept(side: Side) -> None:
    data = random.Random(3).randbytes(SIZE)
    lie = File(data, manifest_of(data, sha256="0" * 64), identity_of(file_of(1).device))
    side.say(lie.says_offer())
    side.say(*[lie.says_chunk(number) for number in range(6)])
    side.finish()
    side.say(*lie.says_leaves())
    side.finish()
    last = side.told[-1][1]
    assert isinstance(last, Reject)
    assert (last.code, last.again_s) == (Code.MALFORMED, 0)
    side.say(lie.says_offer())
    assert isinstance(side.told[-1][1], Reject)
    assert side.register.entered() == []


def test_hashes_that_are_not_the_manifests_end_it(side: Side) -> None:
    file = file_of(SIZE)
    wrong = File(file.data[:-1] + b"x", file.manifest, file.identity)
    side.say(wrong.says_offer())
    side.say(*[wrong.says_chunk(number) for number in range(6)])
    side.finish()
    side.say(*wrong.says_leaves())
    assert isinstance(side.told[-1][1], Reject)


def test_nothing_is_receipted_that_custody_has_not_entered(side: Side) -> None:
    side.register.down = True
    file = file_of(SIZE)
    side.say(file.says_offer())
    side.say(*[file.says_chunk(number) for number in range(6)])
    (failed,) = side.finish()
    assert isinstance(failed, Failed)
    assert side.receipts == []
    side.register.down = False
    side.look(RETRY_S)
    (kept,) = side.finish()
    assert isinstance(kept, Kept)
    assert side.receipted(file) is not None


@pytest.mark.parametrize("step", ["keep", "verified"])
def test_a_server_that_dies_while_it_finishes_goes_on_where_it_was(side: Side, step: str) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    side.say(*[file.says_chunk(number) for number in range(6)])
    upload, leaves = side.whole[0]
    if step == "keep":
        side.content.keep(part(side, file), file.manifest.sha256)
    else:
        side.finisher.finish(upload, leaves)  # type: ignore[arg-type]
    side.restart()
    side.finish()
    assert side.receipted(file) is not None
    assert side.kept(file) == file.data
    assert side.register.entered() == [file.upload]


def test_the_same_content_of_two_devices_is_sent_once_and_entered_twice(side: Side) -> None:
    first, second = file_of(SIZE), file_of(SIZE, device=OTHER)
    side.send(first)
    side.say(second.says_offer())
    assert side.state(second).missing == ()
    side.finish()
    assert side.receipted(second) is not None
    assert side.register.entered() == [first.upload, second.upload]


def test_a_stored_copy_that_is_damaged_vouches_for_nothing(side: Side) -> None:
    first, second = file_of(SIZE), file_of(SIZE, device=OTHER)
    side.send(first)
    path = side.content.path(first.manifest.sha256)
    path.chmod(0o600)
    path.write_bytes(bytes(SIZE))
    side.say(second.says_offer())
    side.finish()
    assert side.receipted(second) is None
    assert side.state(second).missing == ((0, 5),)
    side.send(second)
    assert side.kept(first) == first.data  # and the good one has replaced it


# copies


def test_with_a_replica_a_receipt_says_logged_only_once_both_copies_were_read_again(tmp_path: Path) -> None:
    side = Side(tmp_path, replica=True)
    file = file_of(SIZE)
    side.send(file)
    told = side.receipted(file)
    assert told is not None
    assert told.storage_class is StorageClass.LOGGED
    assert side.copies is not None
    with side.copies.open(told.sha256) as copy:
        assert copy.read() == file.data


def test_a_replica_that_is_away_leaves_the_class_at_stored(tmp_path: Path) -> None:
    side = Side(tmp_path, replica=True)
    assert side.copies is not None
    file = file_of(SIZE)
    blocker = side.copies.path(file.manifest.sha256).parents[1]
    blocker.write_bytes(b"")  # no directory can be made there
    side.send(file)
    told = side.receipted(file)
    assert told is not None
    assert told.storage_class is StorageClass.STORED
    assert [each.upload for each in side.uploads.unreplicated()] == [file.upload]
    blocker.unlink()
    assert side.finisher.replicate(side.uploads.unreplicated()[0])


# disks


def test_a_file_that_cannot_be_written_is_not_told_as_durable(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())

    def broken(upload: str) -> None:
        raise UploadError("incoming: Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(IncomingDirectory, "sync", lambda _self, upload: broken(upload))
        side.say(file.says_chunk(0))
    last = side.told[-1][1]
    assert isinstance(last, Reject)
    assert (last.code, last.again_s > 0) == (Code.DISK, True)
    side.say(file.says_query())
    assert side.state(file).missing == ((0, 5),)
    side.send(file)
    assert side.kept(file) == file.data


def test_what_was_written_while_a_sync_failed_counts_as_little(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells an error once: the next sync of that file succeeds, whichever bytes were lost."""
    file, other = file_of(SIZE), file_of(SIZE, seed=2)
    side.say(file.says_offer(), other.says_offer())
    fails = [True]

    def sync(_self: IncomingDirectory, upload: str) -> None:
        if upload == file.upload and fails and fails.pop():
            raise UploadError("incoming: Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(IncomingDirectory, "sync", sync)
        groups = [side.write(*[each.says_chunk(number) for each in (file, other)]) for number in range(2)]
        for group in groups:
            side.secure(group)
        for group in groups:
            told = side.settle(group)
            assert {each.message.upload for each in told if isinstance(each.message, Reject)} == {file.upload}
        side.say(file.says_query(), other.says_query())
        assert (side.state(file).missing, side.state(other).missing) == (((0, 5),), ((2, 5),))
        side.say(file.says_chunk(0))  # written after it: this one counts
    assert side.state(file).missing == ((1, 5),)


def test_a_chunk_that_comes_again_before_it_is_durable_is_not_written_over(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    first = side.write(file.says_chunk(0))
    again = side.write(file.says_chunk(0, b"x" * len(file.chunk_data(0))))
    for group in (first, again):
        side.secure(group)
        side.settle(group)
    assert (side.transfer.counts["duplicate_chunks"], side.transfer.counts["conflict"]) == (1, 1)
    assert part(side, file).read_bytes().startswith(file.chunk_data(0))


def test_an_upload_that_ends_before_its_chunks_are_durable_is_not_told_of(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    groups = [side.write(said) for said in (file.says_chunk(0), file.says_withdraw())]
    for group in groups:
        side.secure(group)
        assert side.settle(group) == []
    side.send(file)
    assert side.kept(file) == file.data


def test_chunks_of_an_upload_that_was_not_committed_are_forgotten_at_the_start(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(SIZE)
    groups = [side.write(said) for said in (file.says_offer(), file.says_chunk(0))]

    def broken(*_: object, **__: object) -> None:
        raise UploadError("uploads: database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteUploads, "commit", broken)
        side.secure(groups[0])
    side.secure(groups[1])
    for group in groups:
        side.settle(group)
    assert side.uploads.crc(file.upload, 0) is not None
    side.restart()
    assert side.uploads.crc(file.upload, 0) is None
    side.send(file)
    assert side.kept(file) == file.data


def test_a_database_that_takes_nothing_loses_nothing(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise UploadError("uploads: database or disk is full")

    file, late = file_of(SIZE), file_of(SIZE, seed=2)
    side.say(file.says_offer())
    with monkeypatch.context() as patched:
        patched.setattr(SqliteUploads, "commit", broken)
        side.say(file.says_chunk(0), late.says_offer(), late.says_chunk(1))
    assert all(isinstance(message, Reject) for _, message in side.told[-2:])
    side.say(file.says_query())
    assert side.state(file).missing == ((0, 5),)
    side.send(file)
    side.send(late)
    assert (side.kept(file), side.kept(late)) == (file.data, late.data)


def test_what_is_incoming_and_unknown_is_removed_at_the_start_and_what_is_gone_comes_again(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer())
    side.say(file.says_chunk(0))
    stray = part(side, file).with_name("0" * 32 + ".part")
    stray.write_bytes(b"x")
    part(side, file).unlink()
    side.restart()
    assert not stray.exists()
    side.say(file.says_query())
    assert side.state(file).missing == ((0, 5),)


# bounds


def test_a_device_has_eight_uploads_open_and_the_ninth_waits(side: Side) -> None:
    files = [file_of(CHUNK, seed=n) for n in range(limits.OPEN_UPLOADS_MAX + 1)]
    side.say(*[file.says_offer() for file in files])
    last = side.told[-1][1]
    assert isinstance(last, Reject)
    assert last.code is Code.BUSY
    side.send(files[0])
    side.send(files[-1])


def test_uploads_that_a_device_has_forgotten_keep_no_others_out(side: Side) -> None:
    files = [file_of(CHUNK, seed=n) for n in range(limits.OPEN_UPLOADS_MAX + 1)]
    side.say(*[file.says_offer() for file in files[:-1]])
    side.now_s += 3_601
    side.send(files[-1])


@pytest.mark.parametrize(
    ("bounds", "code"), [(Bounds(0.99, SIZE), Code.QUOTA), (Bounds(0.000_001, 1 << 40), Code.DISK)]
)
def test_too_much_in_a_day_or_a_full_disk_is_told_with_a_time(tmp_path: Path, bounds: Bounds, code: Code) -> None:
    side = Side(tmp_path, bounds=bounds)
    side.say(file_of(SIZE).says_offer(), file_of(SIZE, seed=2).says_offer())
    last = side.told[-1][1]
    assert isinstance(last, Reject)
    assert last.code is code
    assert last.again_s > 0
    assert side.incoming.names() == ([] if code is Code.DISK else [file_of(SIZE).upload])


def test_what_a_device_withdraws_stays_and_may_be_offered_again(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer(), file.says_chunk(0))
    side.say(file.says_withdraw())
    assert side.transfer.open_uploads == 0
    assert side.incoming.names() == [file.upload]
    side.send(file)
    assert side.kept(file) == file.data


def test_nothing_but_hashes_and_ids_is_a_name_in_the_file_system(side: Side, tmp_path: Path) -> None:
    file = file_of(SIZE, name="passwd")
    side.send(file)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names - {"uploads.db", "uploads.db-wal", "uploads.db-shm", "register.db"} == {file.manifest.sha256}


def test_an_empty_group_says_nothing(side: Side) -> None:
    assert side.say().told == []


def test_a_crc_is_of_what_came(side: Side) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer(), file.says_chunk(5))
    assert side.uploads.crc(file.upload, 5) == decode_chunk(file.says_chunk(5).payload).crc
    assert isinstance(side.state(file), State)


def test_what_was_under_way_before_the_server_was_renewed_comes_again_and_is_kept(side: Side, tmp_path: Path) -> None:
    file = file_of(SIZE)
    side.say(file.says_offer(), file.says_chunk(0), file.says_chunk(1))
    side.uploads.close()
    [path] = tmp_path.rglob("uploads.db")
    with closing(sqlite3.connect(path)) as connection, connection:  # as version 1 had it
        connection.executescript(
            "DROP TABLE chunk; CREATE TABLE chunk(upload TEXT, number INTEGER, leaf BLOB);"
            "INSERT INTO chunk SELECT upload, 0, zeroblob(32) FROM upload; PRAGMA user_version = 1;"
        )
    side.restart()
    side.say(file.says_query())
    assert side.state(file).missing == ((0, file.manifest.chunks - 1),)
    side.send(file)
    assert side.kept(file) == file.data
