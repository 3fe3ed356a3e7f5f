"""nginx's one configuration file, run here: Debian's nginx, TLS as browsers speak it, a backend that a test plays.

``fieldfleet.conf`` is what the container and Debian's nginx include; only ports, paths and Grafana's place differ.
"""

import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fleet_server import site as plan
from fleet_server.adapters import site_directory
from fleet_server.api.bodies import BODY_BYTES_MAX
from fleet_server.config import API_PORT
from fleet_server.registry.imports import CSV_BYTES_MAX
from tests.deploy.files import nginx_laid_out
from tests.servers import HOST, accepts, free_ports, program, wait_until

pytestmark = pytest.mark.server("nginx")

ANSWER_S_MAX = 20
EVENTS = 3


class Backend(BaseHTTPRequestHandler):
    """The API's and Grafana's part: says what it was asked; an event goes out only when the test lets it."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Semaphore(0)

    def do_GET(self) -> None:
        if self.path.startswith("/v1/changes"):
            self._stream()
            return
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        size = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        body = json.dumps({"path": self.path, "size": size, "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(EVENTS):
            self.wfile.write(f"id: {number}\n\n".encode())
            self.wfile.flush()
            self.go_on.acquire(timeout=ANSWER_S_MAX)

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what matters."""


@dataclass
class Door:
    """nginx, running. ``log``: what it said of requests."""

    tls_port: int
    plain_port: int
    ca_file: Path
    log: Path

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "localhost", self.tls_port, context=self.context(), timeout=ANSWER_S_MAX, blocksize=1 << 16
        )

    def asked(
        self, path: str, *, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self.connection()
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


@contextmanager
def _backend() -> Iterator[int]:
    server = ThreadingHTTPServer((HOST, 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _with_a_certificate(directory: Path) -> Path:
    """Where the command put it that makes it."""
    site = directory / "site"
    site_directory.create(
        site,
        hosts=("localhost",),
        device_port=plan.DEVICE_PORT,
        server_port=plan.SERVER_PORT,
        api_port=API_PORT,
        broker_user=None,
        now=datetime.now(UTC),
    )
    return site_directory.make_proxy_certificate(site, now=datetime.now(UTC), again=False).parent


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    directory = tmp_path_factory.mktemp("nginx")
    tls_port, plain_port = free_ports(2)
    found = program("nginx")
    assert found is not None
    with _backend() as backend_port:
        places = {
            "/proxy/": f"{_with_a_certificate(directory)}/",
            "listen 8443 ": f"listen {HOST}:{tls_port} ",
            "listen 8080 ": f"listen {HOST}:{plain_port} ",
            f"server {HOST}:{API_PORT}": f"server {HOST}:{backend_port}",
            "grafana:3000": f"{HOST}:{backend_port}",
            # root starts it here, whose files nobody else reads; in the container nothing is root
            "daemon off;": "daemon off; user root;",
        }
        configured = nginx_laid_out(directory, places)
        command = [found, "-p", str(directory), "-c", str(configured), "-e", "stderr"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=60, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr, checked.stderr
        with (directory / "errors").open("wb") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            wait_until(lambda: accepts(tls_port) and accepts(plain_port), "nginx accepts")
            yield Door(tls_port, plain_port, directory / "site" / "ca" / "server-ca.crt", directory / "requests")
        finally:
            process.terminate()
            process.wait(ANSWER_S_MAX)


def test_what_is_asked_reaches_the_api_and_says_where_it_came_from(door: Door) -> None:
    lying = {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1", "X-Forwarded-Proto": "http"}
    answer, body = door.asked("/v1/devices?limit=1", headers={"Authorization": "Bearer secret", **lying})
    told = json.loads(body)
    assert (answer.status, told["path"]) == (200, "/v1/devices?limit=1")
    assert told["headers"]["X-Forwarded-For"] == HOST
    assert told["headers"]["X-Forwarded-Proto"] == "https"
    assert "Forwarded" not in told["headers"]
    assert told["headers"]["Authorization"] == "Bearer secret"
    assert told["headers"]["Host"] == f"localhost:{door.tls_port}"


@pytest.mark.parametrize("path", ["/", "/v1/devices", "/grafana/"])
def test_a_browser_is_told_to_come_by_tls_only_and_to_guess_nothing(door: Door, path: str) -> None:
    answer, _ = door.asked(path)
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Server"] == "nginx", "and not which version"


def test_grafana_is_asked_below_its_own_path(door: Door) -> None:
    _, body = door.asked("/grafana/d/fleet?x=1")
    assert json.loads(body)["path"] == "/grafana/d/fleet?x=1"


def test_a_websocket_of_grafanas_is_handed_on(door: Door) -> None:
    _, body = door.asked("/grafana/api/live/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    told = json.loads(body)["headers"]
    assert (told["Upgrade"], told["Connection"]) == ("websocket", "upgrade")


def test_headers_too_large_are_refused(door: Door) -> None:
    answer, _ = door.asked("/", headers={"X-Large": "a" * 9_000})
    assert answer.status in {400, 431}
    good, _ = door.asked("/", headers={"X-Large": "a" * 7_000})
    assert good.status == 200


def test_a_line_too_long_is_refused(door: Door) -> None:
    answer, _ = door.asked("/v1/devices?name=" + "a" * 9_000)
    assert answer.status == 414


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/v1/devices", BODY_BYTES_MAX, 200),
        ("/v1/devices", 3 * BODY_BYTES_MAX, 413),
        ("/v1/imports/devices", CSV_BYTES_MAX, 200),
        ("/v1/imports/devices", CSV_BYTES_MAX + (2 << 20), 413),
    ],
)
def test_a_body_is_bounded_a_little_above_the_apis_own_bound(door: Door, path: str, size: int, status: int) -> None:
    # told beforehand, as browsers tell it: the answer comes before the body is read
    with (
        socket.create_connection((HOST, door.tls_port), ANSWER_S_MAX) as plain,
        door.context().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        if status == 200:
            secure.sendall(bytes(size))
        answer = http.client.HTTPResponse(secure)
        answer.begin()
        assert answer.status == status
        assert status != 200 or json.loads(answer.read())["size"] == size


def test_plain_http_is_sent_to_tls(door: Door) -> None:
    connection = http.client.HTTPConnection("localhost", door.plain_port, timeout=ANSWER_S_MAX)
    connection.request("GET", "/v1/devices?limit=1", headers={"Host": "fleet.example"})
    answer = connection.getresponse()
    connection.close()
    assert (answer.status, answer.headers["Location"]) == (301, "https://fleet.example/v1/devices?limit=1")


def _handshake(door: Door, version: ssl.TLSVersion) -> str | None:
    context = door.context()
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server that says no
    with (
        socket.create_connection((HOST, door.tls_port), ANSWER_S_MAX) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(door: Door, version: ssl.TLSVersion) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(door, version)


@pytest.mark.parametrize(
    ("version", "name"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]
)
def test_tls_of_today_is_spoken(door: Door, version: ssl.TLSVersion, name: str) -> None:
    assert _handshake(door, version) == name


def test_a_cipher_without_forward_secrecy_is_refused(door: Door) -> None:
    context = door.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256:AES256-SHA:@SECLEVEL=0")
    with (
        socket.create_connection((HOST, door.tls_port), ANSWER_S_MAX) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_what_happens_goes_out_as_it_happens(door: Door) -> None:
    connection = door.connection()
    connection.request("GET", "/v1/changes")
    answer = connection.getresponse()
    for number in range(EVENTS):
        # the next is not sent before this one was seen: something that gathers them would hold all up
        assert answer.readline() == f"id: {number}\n".encode()
        answer.readline()
        Backend.go_on.release()
    connection.close()


def test_who_asks_too_often_is_told_so(door: Door) -> None:
    statuses = {door.asked("/v1/sign-in")[0].status for _ in range(40)}
    assert statuses == {200, 429}
    assert door.asked("/v1/devices")[0].status == 200, "and is heard elsewhere"


def test_no_query_is_in_the_log(door: Door) -> None:
    door.asked("/v1/sign-in/callback?code=a-secret-code")
    door.asked("/v1/devices?name=somebody")
    wait_until(lambda: "/v1/devices" in door.log.read_text(), "it is logged")
    wait_until(lambda: "/v1/sign-in/callback" in door.log.read_text(), "it is logged")
    assert "a-secret-code" not in door.log.read_text()
    assert "somebody" not in door.log.read_text()
