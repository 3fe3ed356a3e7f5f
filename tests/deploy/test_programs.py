"""What the containers mount, given to the programs themselves: the real broker and the real server, on free ports."""

import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dashboards.provisioning import URL
from tests.commands import run, told
from tests.contract.wire import Client, GoneError
from tests.deploy.files import DEPLOY, ROOT, nginx_laid_out, services
from tests.deploy.test_scripts import PLACES, init_site
from tests.postgres import postgres
from tests.servers import Credentials, accepts, free_ports, influxd, program, wait_until

SERVICES = services()


@contextmanager
def _running(command: list[str], directory: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    with (directory / "log").open("wb") as log:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _health(port: int) -> Any:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=3) as answer:
            return json.load(answer)["status"]
    except OSError:
        return None


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Path]:
    """containers.toml of a real PostgreSQL and a real InfluxDB 1 here instead of the containers'."""
    password, token, settings = (
        tmp_path / name for name in ("postgres-password", "influxdb-token", "containers.toml")
    )
    with postgres() as url, influxd(tmp_path / "influxd") as series:
        for file, secret in ((password, url.password or ""), (token, "user:password")):
            file.write_text(secret)
            file.chmod(0o400)
        told = (DEPLOY / "containers.toml").read_text()
        for ours, here in (
            ("fieldfleet@postgres/fieldfleet", f"{url.username}@{url.host}:{url.port}/{url.database}"),
            ("/run/secrets/postgres-password", str(password)),
            ("/run/secrets/influxdb-token", str(token)),
            (URL, series.url),
            ("manage = false", 'flavour = "v1"'),
        ):
            assert ours in told
            told = told.replace(ours, here)
        settings.write_text(told)
        yield settings


def _command(name: str, directory: Path) -> list[str]:
    """A service's, with its volumes' places here, and its programs."""
    found = [*SERVICES[name].get("entrypoint", []), *SERVICES[name].get("command", [])]
    for volume, place in PLACES.items():
        found = [part.replace(f"/{volume.lower()}/", f"{directory / place}/") for part in found]
    return [program(found[0]) or str(Path(sys.executable).parent / found[0]), *found[1:]]


def _fieldfleet(directory: Path, api_port: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    where = ["--url", f"http://127.0.0.1:{api_port}", "--token-file", str(_at(directory, "SERVER") / "api-token")]
    return run("fleet_server.cli", *arguments, *where)


def _at(directory: Path, name: str) -> Path:
    return directory / PLACES[name]


@pytest.mark.server("influxd")
@pytest.mark.server("postgres")
@pytest.mark.server("mosquitto")
@pytest.mark.server("nginx")
def test_all_that_is_ours_runs_on_what_init_gave_it_enrols_signs_and_revokes(
    tmp_path: Path, containers: Path
) -> None:
    device_port, server_port, api_port, enrolment_port = free_ports(4)
    ports = {"--device-port": device_port, "--server-port": server_port, "--api-port": api_port}
    ports |= {"--enrolment-port": enrolment_port}
    init_site(
        tmp_path, "--host=localhost", *(f"{name}={port}" for name, port in ports.items()), containers=containers
    )
    broker = _at(tmp_path, "BROKER")
    # what root starts here becomes the user mosquitto, who may not read these; in the container nothing is root
    user = "user root\n" if os.geteuid() == 0 else ""
    configured = broker / "mosquitto.conf"
    configured.write_text(configured.read_text() + user)
    with ExitStack() as stack:
        living = stack.enter_context(_running(_command("mosquitto", tmp_path), broker))
        wait_until(lambda: accepts(server_port), "mosquitto accepts")
        environment = {"BROKER_PID": str(living.pid), "LIST": str(_at(tmp_path, "REVOCATIONS") / "device-ca.crl")}
        stack.enter_context(_running(["sh", str(DEPLOY / "reload-broker.sh")], tmp_path, **environment))
        with _running(_command("signer", tmp_path), _at(tmp_path, "SIGNER")):
            wait_until((_at(tmp_path, "SIGNING") / "signer.sock").is_socket, "the signer serves")
            assert _check("signer", tmp_path, 0) == 0
            with _running(_command("fleet-server", tmp_path), _at(tmp_path, "SERVER")):
                wait_until(lambda: _health(api_port) == "ok", "the server is connected to the broker", 30)
                assert _check("mosquitto", tmp_path, device_port) == 0
                assert _check("fleet-server", tmp_path, api_port) == 0
                _nginx_hands_on(tmp_path, api_port)
                _enrol_sign_and_revoke(tmp_path, api_port, device_port, enrolment_port)
            assert _check("fleet-server", tmp_path, api_port) != 0
        assert _check("signer", tmp_path, 0) != 0
    assert _check("mosquitto", tmp_path, device_port) != 0


def _nginx_hands_on(directory: Path, api_port: int) -> None:
    """What browsers see is the real API, by the certificate that init-site laid out."""
    tls_port, plain_port = free_ports(2)
    places = {
        "listen 8443 ": f"listen 127.0.0.1:{tls_port} ",
        "listen 8080 ": f"listen 127.0.0.1:{plain_port} ",
        "server 127.0.0.1:8470;": f"server 127.0.0.1:{api_port};",
        "/proxy/": f"{_at(directory, 'PROXY')}/",
    } | ({"daemon off;": "daemon off; user root;"} if os.geteuid() == 0 else {})
    at = directory / "nginx"
    at.mkdir()
    configured = nginx_laid_out(at, places)
    command = [program("nginx") or "nginx", "-p", str(at), "-c", str(configured), "-e", "stderr"]
    security = ssl.create_default_context(cafile=_at(directory, "SERVER") / "server-ca.crt")
    token = (_at(directory, "SERVER") / "api-token").read_text().strip()
    with _running(command, at):
        wait_until(lambda: accepts(tls_port), "nginx accepts")
        asked = urllib.request.Request(
            f"https://localhost:{tls_port}/v1/devices", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(asked, timeout=20, context=security) as answer:
            assert json.load(answer)["devices"] == []
        _page_takes_a_token(f"https://localhost:{tls_port}", token, security)


def _page_takes_a_token(origin: str, token: str, security: ssl.SSLContext) -> None:
    """Behind nginx a page knows that a browser came by https, and its cookie goes no other way."""
    form = urllib.parse.urlencode({"token": token}).encode()
    asked = urllib.request.Request(f"{origin}/sign-in", data=form, headers={"Origin": origin})
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=security), _NoRedirect())
    with pytest.raises(urllib.error.HTTPError) as answer:
        opener.open(asked, timeout=20)
    assert (answer.value.code, answer.value.headers["Location"]) == (303, "/")
    cookie = answer.value.headers["Set-Cookie"]
    assert cookie.startswith("__Host-")
    assert {"Secure", "HttpOnly", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What it is sent to is for a browser."""

    def redirect_request(self, *_args: object, **_named: object) -> None:
        return None


def _enrol_sign_and_revoke(directory: Path, api_port: int, device_port: int, enrolment_port: int) -> None:
    """A device's life, as an operator has it."""
    registered = _fieldfleet(directory, api_port, "register", "car-7", "--class", "host")
    assert registered.returncode == 0, registered.stderr
    claim = json.loads(_fieldfleet(directory, api_port, "claim", "car-7", "--json").stdout)["code"]
    device, ca_file = directory / "car-7", _at(directory, "SERVER") / "server-ca.crt"
    where = ["--server", f"https://localhost:{enrolment_port}", "--ca", str(ca_file), "--dir", str(device)]
    told("edge_agent", "enroll", *where, "--claim", claim)
    server = str(_at(directory, "SERVER") / "fleet-server.toml")
    order = ("--config", server, "--device", "car-7", "--name", "identify")
    assert json.loads(told("fleet_server", "sign-command", *order))["signatures"]
    found = _fieldfleet(directory, api_port, "audit", "devices")
    assert found.returncode == 0, found.stdout
    own = Credentials(device / "device.crt", device / "device.key", ca_file)
    with Client(device_port, own) as client:
        client.connect("car-7")
        client.ping()
        revoked = _fieldfleet(directory, api_port, "revoke", "car-7", "--reason", "stolen")
        assert revoked.returncode == 0, revoked.stdout + revoked.stderr
        with pytest.raises(GoneError):
            client.ping()
    with pytest.raises(GoneError), Client(device_port, own) as client:
        client.connect("car-7")


def _check(name: str, directory: Path, port: int) -> int:
    """The exit code of a service's own health check, of another port."""
    kind, *command = SERVICES[name]["healthcheck"]["test"]
    command = [re.sub(r"\b8470\b", str(port), part).replace("22B3", f"{port:04X}") for part in command]
    command = [part.replace("/signing/", f"{_at(directory, 'SIGNING')}/") for part in command]
    if kind == "CMD-SHELL":
        command = ["sh", "-c", *command]
    elif command[0] == "python":
        command[0] = sys.executable
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=30, check=False).returncode


def test_the_health_of_the_loopback_is_one(tmp_path: Path) -> None:
    assert _check("loopback", tmp_path, 0) == 0
