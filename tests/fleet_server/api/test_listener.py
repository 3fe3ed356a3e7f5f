"""The listener for devices faces strangers: what it takes is bounded in number, in size and in time."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker_config.enrolment import REQUEST_BYTES_MAX
from fleet_server.api import listener as listening
from tests.enrolment import Office, office
from tests.servers import HOST

ENROLL = {"claim": "ffc_" + "a" * 32, "csr": "x"}
RENEW = {"certificate": "x", "csr": "x", "nonce": "0" * 60, "signature": "x"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as running:
        yield running


def connected(desk: Office) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(desk.ca_file))
    plain = socket.create_connection((HOST, desk.port), timeout=5)
    return context.wrap_socket(plain, server_hostname=HOST)


def asked(desk: Office, head: str, body: bytes = b"") -> tuple[int, dict[str, object]]:
    with connected(desk) as connection:
        told = ("Host: x", "Connection: close", f"Content-Length: {len(body)}")
        connection.sendall("\r\n".join((f"{head} HTTP/1.1", *told, "", "")).encode())
        connection.sendall(body)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    top, _, content = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(content) if content.startswith(b"{") else {}


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("GET /", b"", 404),
        ("GET /v1/devices", b"", 404),  # nothing of the operators' API is here
        ("GET /v1/openapi.json", b"", 404),
        ("GET /enroll", b"", 405),
        ("POST /nonce", b"", 405),
        ("POST /enroll", b"", 422),
        ("POST /enroll", b"{}", 422),
        ("POST /enroll", b"[" * 10_000, 422),
        ("POST /enroll", b"\xff" * 100, 422),
        ("POST /enroll", json.dumps(ENROLL | {"device": "car-8"}).encode(), 422),
        ("POST /enroll", json.dumps(ENROLL).encode(), 422),
        ("POST /renew", json.dumps(RENEW).encode(), 403),
        ("POST /enroll", b" " * (REQUEST_BYTES_MAX + 1), 413),
        ("GET /nonce", b"", 200),
    ],
)
def test_what_it_answers(desk: Office, head: str, body: bytes, status: int) -> None:
    got, answer = asked(desk, head, body)
    assert got == status
    assert "nonce" in answer if status == 200 else answer["status"] == status


def test_it_speaks_no_tls_before_1_2(desk: Office) -> None:
    context = ssl.create_default_context(cafile=str(desk.ca_file))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection((HOST, desk.port), timeout=5) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname=HOST)


def test_who_connects_and_says_nothing_is_let_go(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "CONNECTION_S_MAX", 0.2)
    with connected(desk) as connection:
        assert ended(connection)


def test_only_so_many_are_connected_at_once(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 3)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(desk))
        assert ended(stack.enter_context(connected(desk)))
    assert asked(desk, "GET /nonce")[0] == 200


def ended(connection: ssl.SSLSocket) -> bool:
    try:
        return connection.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True
