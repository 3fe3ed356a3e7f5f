"""What the containers mount, given to the programs themselves: the real broker and the real server, on free ports."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dashboards.provisioning import URL
from tests.deploy.files import DEPLOY, services
from tests.deploy.test_scripts import init_site
from tests.postgres import postgres
from tests.servers import accepts, free_ports, influxd, program, wait_until

SERVICES = services()


@contextmanager
def _running(command: list[str], directory: Path) -> Iterator[None]:
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
        )
        try:
            yield
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


@pytest.mark.server("influxd")
@pytest.mark.server("postgres")
@pytest.mark.server("mosquitto")
def test_broker_and_server_run_on_what_init_gave_them_and_are_found_healthy(tmp_path: Path, containers: Path) -> None:
    device_port, server_port, api_port = free_ports(3)
    ports = {"--device-port": device_port, "--server-port": server_port, "--api-port": api_port}
    init_site(tmp_path, *(f"{name}={port}" for name, port in ports.items()), containers=containers)
    # what root starts here becomes the user mosquitto, who may not read these; in the container nothing is root
    user = "user root\n" if os.geteuid() == 0 else ""
    configured = tmp_path / "broker" / "mosquitto.conf"
    configured.write_text(configured.read_text() + user)
    mosquitto = SERVICES["mosquitto"]["entrypoint"]
    server = SERVICES["fleet-server"]["command"]
    found = program(mosquitto[0])
    assert found is not None
    with _running([found, *mosquitto[1:]], tmp_path / "broker"):
        wait_until(lambda: accepts(server_port), "mosquitto accepts")
        programs = Path(sys.executable).parent
        with _running(
            [str(programs / server[0]), *(part.replace("/server/", f"{tmp_path}/server/") for part in server[1:])],
            tmp_path / "server",
        ):
            wait_until(lambda: _health(api_port) == "ok", "the server is connected to the broker", 30)
            assert _check("mosquitto", tmp_path, device_port) == 0
            assert _check("fleet-server", tmp_path, api_port) == 0
        assert _check("fleet-server", tmp_path, api_port) != 0
    assert _check("mosquitto", tmp_path, device_port) != 0


def _check(name: str, directory: Path, port: int) -> int:
    """The exit code of a service's own health check, of another port."""
    kind, *command = SERVICES[name]["healthcheck"]["test"]
    command = [re.sub(r"\b8470\b", str(port), part).replace("22B3", f"{port:04X}") for part in command]
    if kind == "CMD-SHELL":
        command = ["sh", "-c", *command]
    elif command[0] == "python":
        command[0] = sys.executable
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=30, check=False).returncode


def test_the_health_of_the_loopback_is_one(tmp_path: Path) -> None:
    assert _check("loopback", tmp_path, 0) == 0
