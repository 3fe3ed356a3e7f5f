"""The signer's process: who may ask, what it writes down, and what the process that faces the broker cannot do."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from broker_config import signing
from broker_config.signing import Command
from fleet_server.access.signing import RefusedError, SignerError, command_request
from fleet_server.adapters import signer_socket, site_directory
from fleet_server.adapters.signer_socket import SocketSigner
from tests.orders import CAR, ID
from tests.servers import wait_until

REQUEST = command_request(CAR, Command(1, ID, "identify"), lifetime_ms=60_000)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a site in a directory that is too deep for a socket's address."""
    directory = tmp_path / ("deep" * 30) / "site"
    site_directory.create(
        directory, hosts=("localhost",), device_port=1, server_port=2, api_port=3, broker_user=None,
        now=datetime.now(UTC),
    )  # fmt: skip
    return directory / "server" / "fleet-server.toml"


def socket_of(config: Path) -> Path:
    return config.parent / "state" / "signer.sock"


def serves(path: Path) -> bool:
    """What a client would see; a file that a killed one left is no signer."""
    return path.exists() and signer_socket._serves(path)


@contextmanager
def signer(config: Path, at: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """At work; its lines are in ``log`` beside its configuration."""
    with (config.parent / "log").open("ab") as log:
        command = [sys.executable, "-m", "fleet_server", "signer", "--config", str(config)]
        process = subprocess.Popen(command, stderr=log)
    try:
        wait_until(
            lambda: serves(at or socket_of(config)) or process.poll() is not None,
            "the signer listens or has ended",
            30,
        )
        yield process
    finally:
        process.kill()
        process.wait()


def lines(config: Path, event: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (config.parent / "log").read_text().splitlines()]
    return [line for line in found if line["event"] == event]


def counter(envelope: bytes) -> int:
    return signing.decode_claims(signing.decode_envelope(envelope)).counter


def test_it_signs_for_its_own_user_tells_every_signature_and_counts_on_after_a_kill(config: Path) -> None:
    asked = SocketSigner(socket_of(config))
    with signer(config):
        assert stat.S_IMODE(socket_of(config).stat().st_mode) == 0o600
        first, second = asked.sign(REQUEST), asked.sign(REQUEST)
    with signer(config):
        third = asked.sign(REQUEST)
    assert counter(first) < counter(second) < counter(third)
    told = lines(config, "signed")
    assert [line["counter"] for line in told] == [counter(each) for each in (first, second, third)]
    assert {(line["target"], line["name"], line["id"], line["uid"]) for line in told} == {
        (CAR, "identify", ID, os.geteuid())
    }


def test_it_signs_many_and_what_it_refuses_ends_them(config: Path) -> None:
    asked = SocketSigner(socket_of(config))
    bad = msgspec.structs.replace(REQUEST, body=msgspec.Raw(b"{}"))
    many = signer_socket.REQUESTS_MAX + 3  # more than one connection takes
    with signer(config):
        counters = [counter(each) for each in asked.sign_all([REQUEST] * many)]
        assert len(counters) == many
        assert counters == sorted(set(counters))
        with pytest.raises(RefusedError, match="body"):
            list(asked.sign_all([REQUEST, bad, REQUEST]))
        assert list(asked.sign_all([])) == []
    assert len(lines(config, "signed")) == many + 1  # the one before it is good, and known to who took it


def test_a_clean_stop_leaves_no_socket_and_without_one_nothing_is_signed(config: Path) -> None:
    with signer(config) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not socket_of(config).exists()
    with pytest.raises(SignerError, match="reached"):
        SocketSigner(socket_of(config)).sign(REQUEST)


def test_it_says_why_not(config: Path) -> None:
    with signer(config), pytest.raises(RefusedError, match="body"):
        SocketSigner(socket_of(config)).sign(msgspec.structs.replace(REQUEST, body=msgspec.Raw(b"{}")))
    assert len(lines(config, "refused")) == 1


def test_garbage_does_not_stop_it(config: Path) -> None:
    with signer(config):
        for data in (b"", b"\n", b"{}\n", b"[" * 100_000 + b"\n", b"x" * 1_000_000, b"\xff\xfe\n"):
            with signer_socket._connection(socket_of(config)) as connection:
                try:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    answer = connection.makefile("rb").read()
                except OSError:
                    answer = b""
            assert b"envelope" not in answer
        assert SocketSigner(socket_of(config)).sign(REQUEST)


STRANGER = """
import os, socket, sys
os.setuid(65534)
asking = socket.socket(socket.AF_UNIX)
asking.connect(sys.argv[1])
print(asking.recv(9))
"""


@pytest.mark.root("to be somebody else")
def test_another_user_is_turned_away_even_where_the_file_lets_him_in(config: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:  # that others may enter, unlike a test's own
        Path(directory).chmod(0o755)
        config.write_text(config.read_text().replace("state/signer.sock", f"{directory}/signer.sock"))
        there = Path(directory) / "signer.sock"
        with signer(config, there):
            there.chmod(0o666)
            command = [sys.executable, "-c", STRANGER, str(there)]
            theirs = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
            assert theirs.stdout == "b''\n" or "ConnectionReset" in theirs.stderr, theirs
            wait_until(lambda: bool(lines(config, "turned away")), "it is told")
    assert lines(config, "turned away")[0]["uid"] == 65534


def test_a_second_signer_and_a_counter_that_cannot_be_read_are_refused(config: Path) -> None:
    with signer(config), signer(config) as second:
        assert second.wait(30) == 1
    (config.parent / "state" / "signer.counter").write_text("lost")
    with signer(config) as third:
        assert third.wait(30) == 2
    assert "another signer serves" in (config.parent / "log").read_text()


def test_a_key_that_others_may_read_is_refused(config: Path) -> None:
    (config.parent / "signing.key").chmod(0o640)
    with signer(config) as process:
        assert process.wait(30) == 2


def test_the_server_that_faces_the_broker_runs_without_the_key(config: Path) -> None:
    """It is not even there: the files of a server's machine without it are a server's configuration."""
    from fleet_server.config import load

    (config.parent / "signing.key").unlink()
    assert load(config).signer.socket_file == socket_of(config)


def test_a_command_by_hand(config: Path) -> None:
    with signer(config):
        began_ms = time.time_ns() // 1_000_000
        done = subprocess.run(
            [
                sys.executable, "-m", "fleet_server", "sign-command", "--config", str(config),
                "--device", "car-7", "--name", "identify", "--expires-s", "60",
            ],
            capture_output=True, check=True,
        )  # fmt: skip
    told = signing.decode_claims(signing.decode_envelope(done.stdout.strip()))
    assert told.target == CAR
    assert told.expires_ms - told.issued_ms == 60_000
    assert told.counter >= began_ms
