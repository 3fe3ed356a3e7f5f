"""``fieldfleet backup``, ``verify-backup`` and ``restore``: a whole site goes and comes back."""

import fcntl
import itertools
import json
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from fleet_server.access import ca
from fleet_server.adapters.revocation_list import newest_of
from fleet_server.adapters.signer_socket import read_counter
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.backup import manifest as form
from fleet_server.backup.taking import rotate
from fleet_server.config import load
from fleet_server.registry.model import Registration
from tests.fleet_server.backup.conftest import CAR, Lab
from tests.releases import Repository, custom
from tests.servers import wait_until

SEALED = {"server/master.key", "server/audit.key", "server/api-token", "ca/device-root.key", "broker/acl"}


def _tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _site(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in _tree(directory).items() if not name.startswith("server/state/")}


def _wipe(lab: Lab) -> None:
    config = lab.config
    if config.database.url:
        with lab.engine() as engine, engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    shutil.rmtree(lab.directory)


def _restored(lab: Lab, *more: str) -> dict[str, object]:
    done = lab.run("restore", str(lab.root), "--to", str(lab.directory), *lab.sealed(), *more, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_whole_site_comes_back(either: Lab) -> None:
    lab = either
    sha256 = lab.keep(b"a recording")
    before, epoch = _site(lab.directory), _epoch(lab)
    directory = lab.backup()
    stores = {path.name for path in (directory / "stores").iterdir()}
    assert stores == {"telemetry.db", "uploads.db", "operators.pgdump" if lab.config.database.url else "operators.db"}
    with lab.engine() as engine:
        SqlRegistry(engine).forget("car-7", expected=None, now_ms=2_000)
        log = SqlAudit(engine).head()
    _wipe(lab)
    found = _restored(lab)
    assert _site(lab.directory) == before
    assert lab.contents.open(sha256).read() == b"a recording"
    assert (lab.state / "evidence" / "uploads.db").is_file()
    assert _epoch(lab) == found["store_epoch"]
    assert _epoch(lab) > epoch
    with lab.engine() as engine:
        device = SqlRegistry(engine).device("car-7")
        assert device is not None
        assert device.registration == CAR
        head = SqlAudit(engine).head()
        assert head is not None
        assert log is not None
        assert head.log > log.log
    assert read_counter(lab.state / "signer.counter") > 41 + 10_000
    assert load(lab.config_file).site_id


def test_releases_come_back_and_images_that_are_too_large_are_named(lab: Lab) -> None:
    releases = Repository(lab.directory / "server/releases")
    releases.begin()
    releases.release()
    releases.release(bytes(2 * 1024 * 1024), custom(13, version="1.5.0"))
    before = releases.publisher.standing()
    found = json.loads((lab.backup() / form.MANIFEST).read_bytes())["left_out"]
    assert [line for line in found if "1.5.0.bin: 2097152 bytes" in line]
    _wipe(lab)
    _restored(lab)
    after = Repository(releases.directory).publisher.standing()
    assert after.published == before.published
    assert [(release.path, there) for release, there in after.releases] == [
        ("mcu/dock-2/1.4.0.bin", True),
        ("mcu/dock-2/1.5.0.bin", False),
    ]


def _epoch(lab: Lab) -> int:
    with closing(sqlite3.connect(lab.state / "telemetry.db")) as database:
        return int(database.execute("SELECT value FROM meta WHERE name = 'store_epoch'").fetchone()[0])


def test_no_secret_lies_open_in_a_backup_and_nobody_else_may_enter_it(lab: Lab) -> None:
    directory = lab.backup()
    secrets = {(lab.directory / name).read_bytes() for name in SEALED}
    written = _tree(directory)
    assert not secrets & set(written.values())
    assert all(secret not in data for secret in secrets for data in written.values())
    assert stat.S_IMODE(lab.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_restored_secrets_are_their_owners_alone(lab: Lab) -> None:
    lab.backup()
    _wipe(lab)
    _restored(lab)
    for name in SEALED:
        assert stat.S_IMODE((lab.directory / name).stat().st_mode) == 0o600, name
    for name in ("telemetry.db", "operators.db", "evidence/uploads.db", "signer.counter"):
        assert stat.S_IMODE((lab.state / name).stat().st_mode) == 0o600, name


def test_keys_that_are_left_out_are_named_and_have_to_be_there_again(lab: Lab) -> None:
    done = lab.run("backup", str(lab.root), "--site", str(lab.directory), "--without-keys", "--json")
    told = json.loads(done.stdout)["manifest"]["left_out"]
    for name in SEALED:
        assert any(line.startswith(f"{lab.directory / name}: a secret") for line in told), name
    kept = {name: (lab.directory / name).read_bytes() for name in _site(lab.directory)}
    _wipe(lab)
    refused = lab.run("restore", str(lab.root), "--to", str(lab.directory), "--without-keys", "--json")
    assert refused.exit_code == 1
    faults = json.loads(refused.stdout)["faults"]
    assert any(each.startswith("mac.master_key_file") for each in faults)
    for name in SEALED | {"server/server.key", "server/device-ca.key", "server/enrolment.key"}:
        (lab.directory / name).parent.mkdir(exist_ok=True)
        (lab.directory / name).write_bytes(kept[name])
        (lab.directory / name).chmod(0o600)
    assert load(lab.config_file)


def test_keys_open_with_the_recipients_key_alone(lab: Lab) -> None:
    key, other = lab.elsewhere / "backup-key", lab.elsewhere / "other-key"
    for each in (key, other):
        assert lab.run("make-backup-key", str(each)).exit_code == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = lab.run("backup", str(lab.root), "--site", str(lab.directory), "--recipient", f"{key}.pub")
    assert made.exit_code == 0, made.output
    assert lab.run("verify-backup", str(lab.root), "--key-file", str(key)).exit_code == 0
    wrong = lab.run("verify-backup", str(lab.root), "--key-file", str(other))
    assert (wrong.exit_code, "another passphrase or key" in wrong.output) == (1, True)
    before = _site(lab.directory)
    _wipe(lab)
    done = lab.run("restore", str(lab.root), "--to", str(lab.directory), "--key-file", str(key))
    assert done.exit_code == 0, done.output
    assert _site(lab.directory) == before


def _flip(path: Path) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _in_a_store(directory: Path) -> None:
    _flip(directory / form.TELEMETRY)


def _in_the_keys(directory: Path) -> None:
    _flip(directory / form.KEYS)


def _in_a_content(directory: Path) -> None:
    _flip(next(path for path in (directory.parent / "sha256").rglob("*") if path.is_file()))


def _a_content_gone(directory: Path) -> None:
    next(path for path in (directory.parent / "sha256").rglob("*") if path.is_file()).unlink()


def _a_file_gone(directory: Path) -> None:
    (directory / "site/server/fleet-server.toml").unlink()


def _a_file_more(directory: Path) -> None:
    (directory / "site/server/api-token").write_text("mine")


def _another_list(directory: Path) -> None:
    (directory / form.EVIDENCE_LIST).write_bytes(b"")


DAMAGES = [
    _in_a_store,
    _in_the_keys,
    _in_a_content,
    _a_content_gone,
    _a_file_gone,
    _a_file_more,
    _another_list,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__.strip("_"))
def test_damage_is_seen_and_nothing_is_put_back_of_it(lab: Lab, damage: Callable[[Path], None]) -> None:
    lab.keep(b"a recording")
    directory = lab.backup()
    assert lab.run("verify-backup", str(directory), *lab.sealed()).exit_code == 0
    damage(directory)
    looked = lab.run("verify-backup", str(directory), *lab.sealed(), "--json")
    assert looked.exit_code == 1
    assert json.loads(looked.stdout)["faults"]
    _wipe(lab)
    refused = lab.run("restore", str(directory), "--to", str(lab.directory), *lab.sealed())
    assert refused.exit_code == 1
    assert "damaged" in refused.output
    assert not lab.directory.exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "site/../../x", "site//x", ""])
def test_a_manifest_that_leads_elsewhere_is_refused(lab: Lab, name: str) -> None:
    directory = lab.backup()
    told = json.loads((directory / form.MANIFEST).read_bytes())
    told["files"][0]["name"] = name
    (directory / form.MANIFEST).write_text(json.dumps(told))
    refused = lab.run("restore", str(directory), "--to", str(lab.elsewhere / "new"), *lab.sealed())
    assert (refused.exit_code, "expected a path below the backup" in refused.output) == (1, True)


def test_nothing_that_is_there_is_overwritten(lab: Lab) -> None:
    lab.backup()
    refused = lab.run("restore", str(lab.root), "--to", str(lab.directory), *lab.sealed())
    assert (refused.exit_code, "expected no store there" in refused.output) == (1, True)
    shutil.rmtree(lab.state)
    lab.config_file.write_text("# somebody's\n")
    refused = lab.run("restore", str(lab.root), "--to", str(lab.directory), *lab.sealed())
    assert (refused.exit_code, "expected nothing else there" in refused.output) == (1, True)
    assert lab.config_file.read_text() == "# somebody's\n"
    assert not (lab.state / "telemetry.db").exists()


def test_a_list_of_revoked_devices_never_goes_back(lab: Lab) -> None:
    crl_file = lab.config.device_ca
    assert crl_file is not None
    lab.backup()
    path = crl_file.crl_file.resolve()
    authority = ca.Issued(
        (lab.directory / "ca/device-ca.crt").read_bytes(), (lab.directory / "ca/device-ca.key").read_bytes()
    )
    newer = ca.revocation_list(authority, [], now=datetime.now(UTC) + timedelta(days=1))
    shutil.rmtree(lab.directory / "server")
    path.write_bytes(newer)  # the broker's machine was not lost
    _restored(lab)
    assert path.read_bytes() == newer
    shutil.rmtree(lab.directory / "server")
    older = ca.revocation_list(authority, [], now=datetime.now(UTC) - timedelta(days=9))
    path.write_bytes(older)
    _restored(lab)
    there, then = newest_of(path.read_bytes()), newest_of(older)
    assert there is not None
    assert then is not None
    assert there > then


def test_contents_are_copied_once_and_go_when_no_backup_names_them(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_700_000_000_000, 1_700_000_100_000, 1_000))
    monkeypatch.setattr("fleet_server.cli.backup_commands.now_ms", lambda: next(clock))
    first, second = lab.keep(b"first"), lab.keep(b"second")
    lab.backup()
    lab.contents.remove(first)  # a lawful deletion
    with lab.engine() as engine, database.writing(engine) as connection:
        connection.exec_driver_sql("UPDATE evidence_piece SET state = 'deleted' WHERE sha256 = ?", (first,))
    third = lab.keep(b"third")
    done = lab.run("backup", str(lab.root), "--site", str(lab.directory), *lab.sealed(), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["copied"] == 1
    assert _pool(lab) == {first, second, third}
    done = lab.run("backup", str(lab.root), "--site", str(lab.directory), *lab.sealed(), "--keep", "2", "--json")
    told = json.loads(done.stdout)
    assert (told["copied"], len(told["removed"]), told["dropped"]) == (0, 1, 1)
    assert _pool(lab) == {second, third}
    assert rotate(lab.root, 2) == ([], 0)
    assert lab.run("verify-backup", str(lab.root), *lab.sealed()).exit_code == 0


def _pool(lab: Lab) -> set[str]:
    return {path.name for path in (lab.root / "sha256").rglob("*") if path.is_file()}


def test_what_the_index_names_and_the_site_lacks_is_said(lab: Lab) -> None:
    lost, altered = lab.keep(b"lost"), lab.keep(b"altered")
    lab.contents.remove(lost)
    _flip(lab.contents.path(altered))
    done = lab.run("backup", str(lab.root), "--site", str(lab.directory), *lab.sealed(), "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)["manifest"]["evidence"]
    assert (told["missing"], told["damaged"], told["count"]) == ([lost], [altered], 0)
    looked = lab.run("verify-backup", str(lab.root), *lab.sealed(), "--json")
    assert (looked.exit_code, json.loads(looked.stdout)["whole"]) == (1, True)


def test_contents_that_are_kept_elsewhere_are_named_and_asked_for(lab: Lab) -> None:
    sha256 = lab.keep(b"a recording")
    lab.backup("--evidence", "reference")
    assert _pool(lab) == set()
    _wipe(lab)
    done = lab.run("restore", str(lab.root), "--to", str(lab.directory), *lab.sealed(), "--json")
    assert (done.exit_code, json.loads(done.stdout)["missing"]) == (1, [sha256])
    shutil.rmtree(lab.directory)
    (lab.state / "evidence" / "incoming").mkdir(parents=True)
    lab.keep(b"a recording", named=False)  # its own disk is there still
    assert _restored(lab)["contents"] == 1


def test_what_a_backup_that_was_broken_off_left_is_no_backup(lab: Lab) -> None:
    lab.keep(b"a recording")
    left = lab.root / ".20260101T000000Z.part"
    left.mkdir(parents=True)
    (left / "stores").mkdir()
    (lab.root / "20260101T000001Z").mkdir()  # without a manifest
    refused = lab.run("verify-backup", str(lab.root), *lab.sealed())
    assert refused.exit_code == 2
    lab.backup()
    assert not left.exists()


def test_two_backups_at_once_are_refused(lab: Lab) -> None:
    lab.root.mkdir()
    with (lab.root / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = lab.run("backup", str(lab.root), "--site", str(lab.directory), *lab.sealed())
    assert (done.exit_code, "another backup is being made" in done.output) == (1, True)


def test_a_store_that_is_written_all_the_while_is_copied_whole(lab: Lab) -> None:
    stopping = threading.Event()

    def write() -> None:
        for number in itertools.takewhile(lambda _: not stopping.is_set(), itertools.count(100)):
            car = Registration(f"car-{number}", "host", f"SN-{number}")
            registry.register(car, expected=0, create=True, now_ms=number)
            written.append(number)

    written: list[int] = []
    with lab.engine() as engine:
        registry = SqlRegistry(engine)
        writing = threading.Thread(target=write)
        writing.start()
        try:
            wait_until(lambda: len(written) > 2, "it is written")
            directory = lab.backup()
        finally:
            stopping.set()
            writing.join()
    assert lab.run("verify-backup", str(directory), *lab.sealed()).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "expected one of --passphrase-file, --recipient and --without-keys"),
        (("--without-keys", "--recipient", "x"), "expected one of --passphrase-file"),
        (("--without-keys", "--evidence", "link"), "expected copy or reference"),
        (("--without-keys", "--config", "nowhere.toml"), "cannot be read"),
    ],
)
def test_wrong_usage_is_told(lab: Lab, arguments: tuple[str, ...], told: str) -> None:
    done = lab.run("backup", str(lab.root), "--site", str(lab.directory), *arguments)
    assert (done.exit_code, told in done.output) == (2, True), done.output


def test_a_passphrase_that_others_can_read_or_guess_is_refused(lab: Lab) -> None:
    file = lab.passphrase_file
    file.chmod(0o644)
    done = lab.run("backup", str(lab.root), "--site", str(lab.directory), "--passphrase-file", str(file))
    assert (done.exit_code, "chmod 600" in done.output) == (2, True)
    file.chmod(0o600)
    file.write_text("short")
    done = lab.run("backup", str(lab.root), "--site", str(lab.directory), "--passphrase-file", str(file))
    assert (done.exit_code, "at least 12 characters" in done.output) == (1, True)
    assert form.MANIFEST not in {path.name for path in lab.root.rglob("*")}


def test_files_elsewhere_come_back_only_where_they_may(lab: Lab) -> None:
    signer = lab.elsewhere / "signer"
    signer.mkdir()
    (signer / "signing.key").write_text("secret")
    (signer / "signing.key").chmod(0o600)
    lab.backup("--also", str(signer))
    _wipe(lab)
    shutil.rmtree(signer)
    assert _restored(lab)["not_put"] == [str(signer / "signing.key")]
    _wipe(lab)
    assert _restored(lab, "--also", str(signer))["not_put"] == []
    assert (signer / "signing.key").read_text() == "secret"


@pytest.mark.root("it gives files to their owners")
def test_what_root_puts_back_belongs_to_whom_the_directory_belongs_to(lab: Lab) -> None:
    lab.keep(b"a recording")
    lab.backup()
    _wipe(lab)
    lab.directory.mkdir()
    os.chown(lab.directory, 12_345, 54_321)
    (lab.directory / "ca").mkdir()  # root's own, and what is in it
    _restored(lab)
    owners = {path: (path.stat().st_uid, path.stat().st_gid) for path in lab.directory.rglob("*")}
    for path, owner in owners.items():
        in_ca = (lab.directory / "ca") in (path, *path.parents)
        assert owner == ((0, 0) if in_ca else (12_345, 54_321)), path
