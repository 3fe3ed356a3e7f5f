"""The list of the revoked is signed again in time, and a broker that cannot be told is said not to have been."""

from collections.abc import Callable
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
        self.crl = CrlFile(directory / "device-ca.crl", keys, None)
        self.door = Door(DoorSettings("127.0.0.1", 1, 1, nobody, nobody, nobody, command, pid_file))

        def now_ms() -> int:
            return int(self.now.timestamp() * 1000)

        self.now_ms = now_ms
        self.store = SqlEnrolments(engine)
        self.revoker = Revoker(
            keys,
            self.store,
            self.crl,
            self.door,
            lambda _: False,
            now_ms=now_ms,
        )


def test_the_list_is_signed_again_when_half_its_time_is_over(tmp_path: Path) -> None:
    told = tmp_path / "told"
    guard = Guard(tmp_path, ("sh", "-c", f"echo >> {told}"))
    assert guard.revoker.keep_fresh(at_start=False)  # there was none
    assert not guard.revoker.keep_fresh(at_start=False)
    assert guard.revoker.keep_fresh(at_start=True)
    guard.now += timedelta(days=ca.CRL_DAYS / 2 - 1)
    assert not guard.revoker.keep_fresh(at_start=False)
    guard.now += timedelta(days=2)
    assert guard.revoker.keep_fresh(at_start=False)
    assert guard.crl.until() == guard.now + timedelta(days=ca.CRL_DAYS)
    assert told.read_text() == "\n" * 3


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
    import os

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
        guard.revoker.keep_fresh(at_start=True)
    assert guard.crl.until() is not None  # written all the same
