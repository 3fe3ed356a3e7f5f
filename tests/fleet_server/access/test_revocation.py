"""The list of the revoked is signed again in time, and a broker that cannot be told is said not to have been."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet_server.access import ca
from fleet_server.access.enrolment import described
from fleet_server.access.revocation import BrokerError, Revoker
from fleet_server.access.states import Reason
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.broker_door import Door, DoorSettings
from fleet_server.adapters.revocation_list import CrlFile
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from tests.servers import wait_until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Guard:
    """A revoker on real files, whose broker is told by a command."""

    def __init__(self, directory: Path, command: tuple[str, ...], pid_file: Path | None = None) -> None:
        root = self.root = ca.new_root("root", now=NOW)
        authority = ca.new_intermediate(root, "devices", now=NOW)
        (directory / "ca.crt").write_bytes(authority.certificate_pem + root.certificate_pem)
        (directory / "ca.key").write_bytes(authority.key_pem)
        keys = FileKeys(directory / "ca.crt", directory / "ca.key")
        engine = database.connect(database.sqlite_url(directory / "operators.db"))
        database.migrate(engine)
        nobody = directory / "none"
        self.now = NOW
        self.crl_file = directory / "device-ca.crl"
        self.crl = CrlFile(self.crl_file, keys, None)
        self.door = Door(DoorSettings("127.0.0.1", 1, 1, nobody, nobody, nobody, command, pid_file, self.crl_file))

        def now_ms() -> int:
            return int(self.now.timestamp() * 1000)

        self.now_ms = now_ms
        self.store = SqlEnrolments(engine)
        self.keys = keys
        self.begin()

    def begin(self) -> None:
        """As a server that starts."""
        self.revoker = Revoker(self.keys, self.store, self.crl, self.door, lambda _: False, now_ms=self.now_ms)


def test_the_list_is_signed_again_when_half_its_time_is_over(tmp_path: Path) -> None:
    told = tmp_path / "told"
    guard = Guard(tmp_path, ("sh", "-c", f"echo >> {told}"))
    assert guard.revoker.keep_fresh()  # there was none
    assert not guard.revoker.keep_fresh()
    guard.begin()
    assert guard.revoker.keep_fresh()  # what a command did before, nobody knows
    guard.now += timedelta(days=ca.CRL_DAYS / 2 - 1)
    assert not guard.revoker.keep_fresh()
    guard.now += timedelta(days=2)
    assert guard.revoker.keep_fresh()
    assert guard.crl.until() == guard.now + timedelta(days=ca.CRL_DAYS)
    assert told.read_text() == "\n" * 3


@contextmanager
def broker_that_counts(directory: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A process with a broker's name that writes a line for each SIGHUP; its pid file, and who waits for a count."""
    heard, ready = directory / "heard", directory / "mosquitto.ready"
    heard.touch()
    script = f"trap 'echo >> {heard}' HUP; touch {ready}; while :; do sleep 1000 & wait $!; kill $!; done"
    process = subprocess.Popen(["bash", "-c", script, "mosquitto"], start_new_session=True)
    (directory / "pid").write_text(f"{process.pid}\n")
    try:
        wait_until(ready.exists, "it listens to signals")
        yield directory / "pid", lambda count: wait_until(lambda: heard.read_text() == "\n" * count, f"{count} told")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ready.unlink()


def test_a_broker_that_has_read_the_list_is_left_alone_by_a_server_that_starts(tmp_path: Path) -> None:
    with broker_that_counts(tmp_path) as (pid_file, told):
        guard = Guard(tmp_path, (), pid_file)
        assert guard.revoker.keep_fresh()
        told(1)
        guard.begin()
        assert not guard.revoker.keep_fresh()
        guard.crl.publish([], now=guard.now)  # somebody else signed it
        guard.begin()
        assert guard.revoker.keep_fresh()
        told(2)
    with broker_that_counts(tmp_path) as (_, told):
        (tmp_path / "heard").write_text("")
        guard.begin()
        assert guard.revoker.keep_fresh()  # nobody knows what another process has read
        told(1)


def test_a_list_without_one_that_the_store_calls_revoked_is_signed_again_at_the_start(tmp_path: Path) -> None:
    with broker_that_counts(tmp_path) as (pid_file, told):
        guard = Guard(tmp_path, (), pid_file)
        assert guard.revoker.keep_fresh()
        authority = guard.keys.authority()
        leaf = ca.sign_device(authority, "car-7", authority.key.public_key(), now=NOW)
        guard.store.adopt(described(leaf, "car-7", now_ms=guard.now_ms()))
        guard.store.revoke("car-7", Reason.LOST, now_ms=guard.now_ms())
        assert not guard.revoker.keep_fresh()  # of its own revocations a process knows
        guard.begin()
        assert guard.revoker.keep_fresh()
        assert guard.crl.has(leaf.serial_number)
        told(2)


def test_what_could_not_be_told_is_due_still(tmp_path: Path) -> None:
    guard = Guard(tmp_path, ("sh", "-c", f"test -e {tmp_path / 'up'}"))
    for _ in range(2):
        with pytest.raises(BrokerError, match="ended with 1"):
            guard.revoker.keep_fresh()
    (tmp_path / "up").touch()
    assert guard.revoker.keep_fresh()
    assert not guard.revoker.keep_fresh()


def test_under_an_authority_whose_key_is_gone_nobody_is_proved_to_be_out(tmp_path: Path) -> None:
    guard = Guard(tmp_path, ("true",))
    lost = ca.new_intermediate(guard.root, "lost", now=NOW)
    former = tmp_path / "former"
    former.mkdir()
    (former / "lost.crt").write_bytes(lost.certificate_pem)
    keys = FileKeys(tmp_path / "ca.crt", tmp_path / "ca.key", former)
    leaf = ca.sign_device(keys.authority(), "car-7", keys.authority().key.public_key(), now=NOW)
    guard.store.adopt(described(leaf, "car-7", now_ms=guard.now_ms()))
    revoker = Revoker(keys, guard.store, guard.crl, guard.door, lambda _: False, now_ms=guard.now_ms)
    first = revoker.revoke("car-7", Reason.LOST).steps[0]
    assert (first.what, first.done) == ("every authority can revoke", False)
    assert "the key of lost is gone" in first.detail


def no_broker(directory: Path) -> Path:
    """A pid file that names us, who are no broker."""
    (directory / "pid").write_text(f"{os.getpid()}\n")
    return directory / "pid"


@pytest.mark.parametrize(
    ("command", "pid_file", "words"),
    [
        ((), lambda _: None, "reload the broker by hand"),
        (("false",), lambda _: None, "ended with 1"),
        (("no-such-program",), lambda _: None, "No such file"),
        ((), lambda directory: directory / "none", "expected the pid of a running broker"),
        ((), no_broker, "is no broker"),
    ],
)
def test_a_broker_that_cannot_be_told(
    tmp_path: Path, command: tuple[str, ...], pid_file: Callable[[Path], Path | None], words: str
) -> None:
    guard = Guard(tmp_path, command, pid_file(tmp_path))
    with pytest.raises(BrokerError, match=words):
        guard.door.reload()
    with pytest.raises(BrokerError, match=words):
        guard.revoker.keep_fresh()
    assert guard.crl.until() is not None  # written all the same
