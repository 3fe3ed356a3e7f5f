"""A site as ``init`` made it, with real programs on it: its broker, its server, agents that enrol."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet_server.adapters import site_directory
from fleet_server.cli.server import Json, Place, Server, connect
from tests.faults.programs import ROOT, Program
from tests.servers import HOST, Credentials, accepts, free_ports, program, wait_until

SERVER_START_S_MAX = 30.0
"""All that it imports, on a machine that does other things too."""
BROKERS = [pytest.param("mosquitto", marks=pytest.mark.server("mosquitto")), "embedded"]
LOOK_S = 0.2
WHOLE = "FIELDFLEET_ALL_BROKERS"
CHOSEN = BROKERS if os.environ.get(WHOLE) == "1" else BROKERS[:1]
"""Long stories run on Mosquitto; on the embedded broker as well where it is asked for: the conformance suite and the
demo run on both always.
"""
SOON = "import sys, edge_agent.renewing as r, edge_agent.__main__ as m; r.FIRST_S_MAX = 0.1; sys.exit(m.main())"
"""The agent as it is, but that it looks at once whether its certificate is to be renewed."""


@dataclass
class Fleet:
    """A site as ``init`` made it, its broker and its server, running."""

    directory: Path
    device_port: int
    server_port: int
    enrolment_port: int
    server: Server
    broker: Program
    program: Program
    """The server's."""
    exit: ExitStack

    def device_directory(self, device: str) -> Path:
        return self.directory.parent / "devices" / device

    def claim(self, device: str) -> str:
        said: Json = {"device_class": "host"}
        self.server.send("PUT", f"/v1/devices/{device}/registration", json=said, headers={"If-None-Match": "*"})
        return self.claim_again(device)

    def claim_again(self, device: str) -> str:
        made = self.server.send("POST", f"/v1/devices/{device}/claims")
        assert isinstance(made, dict)
        return str(made["code"])

    def enroll(self, device: str, claim: str, *more: str) -> subprocess.CompletedProcess[str]:
        where = ["--server", f"https://localhost:{self.enrolment_port}", "--ca", str(self.server_ca)]
        what = ["--claim", claim, "--dir", str(self.device_directory(device)), *more]
        command = [sys.executable, "-m", "edge_agent", "enroll", *where, *what]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    @property
    def server_ca(self) -> Path:
        return self.directory / "server/server-ca.crt"

    def agent(self, device: str) -> Program:
        config = str(self.device_directory(device) / "agent.toml")
        argv = [sys.executable, "-c", SOON, "run", "--config", config]
        agent = Program(f"agent of {device}", argv, self.directory / f"{device}.log")
        agent.start()
        self.exit.callback(agent.kill)
        return agent

    def enrolled(self, device: str) -> Program:
        done = self.enroll(device, self.claim(device))
        assert done.returncode == 0, done.stderr
        agent = self.agent(device)
        wait_until(lambda: self.is_connected(device), f"{device} is connected")
        return agent

    def is_connected(self, device: str) -> bool:
        seen = self.server.get(f"/v1/devices/{device}")
        assert isinstance(seen, dict)
        return bool(seen["connected"])

    def credentials(self, device: str) -> Credentials:
        at = self.device_directory(device)
        return Credentials(at / "device.crt", at / "device.key", self.server_ca)

    def states(self, device: str) -> list[str]:
        found = self.server.get(f"/v1/devices/{device}/certificates")
        assert isinstance(found, dict)
        return [each["state"] for each in found["certificates"]]  # type: ignore[union-attr, call-overload, index, misc]


def is_healthy(server: Server) -> bool:
    try:
        return server.get("/v1/health") == {"status": "ok"}
    except Exception:  # noqa: BLE001 - whatever it is, it is not healthy
        return False


@contextmanager
def supervised(broker: Program) -> Iterator[None]:
    """Mosquitto 2.0.11 at times ends with a segmentation fault when it reads its lists again while the session of
    somebody who is away has still to expire. A site's supervisor starts it again, and so does this.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            if broker.crashed:
                broker.start()

    thread = threading.Thread(target=look, name="supervisor")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


SERVER: Sequence[str] = ("-m", "fleet_server")
PLAIN: Mapping[str, str] = {}


@contextmanager
def running(
    directory: Path,
    kind: str,
    *,
    tables: str = "",
    laid_out: Callable[[Path], None] = lambda _: None,
    server: Sequence[str] = SERVER,
    environment: Mapping[str, str] = PLAIN,
) -> Iterator[Fleet]:
    """On a broker of *kind*, and ended with the block. *tables*: more of the server's configuration; *laid_out*: is
    called with the site's directory before anything starts; *server*, *environment*: how Python runs the server.
    """
    device_port, server_port, api_port, enrolment_port = free_ports(4)
    site = site_directory.create(
        directory,
        hosts=("localhost",),
        device_port=device_port,
        server_port=server_port,
        api_port=api_port,
        enrolment_port=enrolment_port,
        broker_user="root",
        now=datetime.now(UTC),
    )
    at = str(directory / "broker")
    if kind == "mosquitto":
        argv = ["sh", "-c", f"cd {at} && exec {program('mosquitto')} -c mosquitto.conf"]
    else:
        embedded = f"-m broker_config.embedded --directory {at} --device-host {HOST} --device-port {device_port}"
        embedded += f" --server-port {server_port} --site {site.site_id}"
        embedded += f" --crl-file {at}/device-ca.crl --pid-file {at}/mosquitto.pid"
        argv = [sys.executable, *embedded.split()]
    config = directory / "server/fleet-server.toml"
    with config.open("a", encoding="utf-8") as file:
        file.write(tables)
    laid_out(directory)
    with ExitStack() as stack:
        broker = Program("broker", argv, directory / "broker.log")
        broker.start()
        stack.callback(broker.kill)
        if kind == "mosquitto":
            stack.enter_context(supervised(broker))
        wait_until(lambda: accepts(device_port), "the broker accepts")
        argv = [sys.executable, *server, "run", "--config", str(config)]
        serving = Program("server", argv, directory / "server.log", dict(environment))
        serving.start()
        stack.callback(serving.kill)
        place = Place(f"http://{HOST}:{api_port}", directory / "server/api-token")
        speaking = stack.enter_context(connect(place))
        wait_until(lambda: is_healthy(speaking), "the server is healthy", SERVER_START_S_MAX)
        yield Fleet(directory, device_port, server_port, enrolment_port, speaking, broker, serving, stack)
