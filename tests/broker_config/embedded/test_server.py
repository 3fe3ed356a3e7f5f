"""The embedded broker on sockets: as a program, in a process of its own, and as an object."""

import asyncio
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import mqtt5
import pytest

from broker_config import embedded as package
from broker_config import topics
from broker_config.embedded import CannotListenError, Embedded, EmbeddedSite
from broker_config.embedded.misbehaviour import Deaf
from broker_config.embedded.server import identify
from broker_config.ids import BadIdError, SiteId, device_id, server_client_id, server_user
from broker_config.policy import Identity, Role
from broker_config.topics import Up, up
from tests.contract.wire import Client, GoneError
from tests.servers import HOST, SITE, EmbeddedBroker, accepts, embedded, wait_until

CAR = device_id("car-1")


def subject(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"subject": tuple((pair,) for pair in pairs)}


OUR_SERVER = (
    ("commonName", "_fleet-server"),
    ("organizationName", "fieldfleet server"),
    ("organizationalUnitName", SITE),
)


@pytest.mark.parametrize(
    ("role", "certificate", "site", "name"),
    [
        (Role.DEVICE, subject(("commonName", "car-1")), None, "car-1"),
        (Role.DEVICE, subject(("organizationName", "x"), ("commonName", "car-1")), None, "car-1"),
        (Role.DEVICE, subject(("commonName", "car-1"), ("commonName", "car-2")), None, None),
        (Role.DEVICE, subject(("organizationName", "car-1")), None, None),
        (Role.DEVICE, {}, None, None),
        (Role.DEVICE, None, None, None),
        (Role.SERVER, subject(*OUR_SERVER), SITE, server_user(SITE)),
        (Role.SERVER, subject(*OUR_SERVER), None, server_user(SITE)),
        (Role.SERVER, subject(*OUR_SERVER), SiteId("00" * 32), None),
        (Role.SERVER, subject(*OUR_SERVER[::-1]), SITE, None),
        (Role.SERVER, subject(*OUR_SERVER, ("commonName", "more")), SITE, None),
        (Role.SERVER, subject(*OUR_SERVER[:2], ("organizationalUnitName", "no site")), None, None),
        (Role.SERVER, subject(("commonName", server_user(SITE))), None, None),
        (Role.SERVER, None, None, None),
    ],
)
def test_who_a_certificate_says_it_is(role: Role, certificate: object, site: SiteId | None, name: str | None) -> None:
    if name is None:
        with pytest.raises(BadIdError):
            identify(role, certificate, site)
    else:
        assert identify(role, certificate, site) == Identity(role, name)


def test_the_program_runs_from_a_sites_directory_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with embedded(tmp_path) as laid_out:
        pass  # its certificates and ports
    ports = ["--device-port", str(laid_out.device_port), "--server-port", str(laid_out.server_port)]
    command = [sys.executable, "-m", "broker_config.embedded", "--directory", str(tmp_path), "--site", SITE, *ports]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        try:
            wait_until(lambda: accepts(laid_out.server_port), "the embedded broker accepts")
            with Client(laid_out.device_port, laid_out.device(CAR)) as client:
                client.connect(CAR)
                program.send_signal(signal.SIGTERM)
                assert client.gone() == mqtt5.DisconnectReasonCode.SERVER_SHUTTING_DOWN
            assert program.wait(10) == 0
        finally:
            program.kill()
        assert program.stderr is not None
        assert "listening device_port=" in program.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--site", "short"], "expected 64 hex digits"),
        ([], "no such file"),
        (["--misbehaviour", "deaf"], "unrecognized arguments"),  # for tests in the same process alone
    ],
)
def test_the_program_says_what_is_wrong(tmp_path: Path, arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "broker_config.embedded", "--directory", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert says in done.stderr


def test_help_and_package_say_what_it_is_for() -> None:
    command = [sys.executable, "-m", "broker_config.embedded", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    for text in (done.stdout, package.__doc__ or ""):
        assert "the demo, the tests and a single station" in text
        assert "may lose all of it" in text


def site_of(broker: EmbeddedBroker) -> EmbeddedSite:
    return EmbeddedSite(
        directory=broker.directory,
        device_host=HOST,
        device_port=broker.device_port,
        server_host=HOST,
        server_port=broker.server_port,
    )


def test_a_port_that_is_taken_is_named_and_nothing_listens(tmp_path: Path) -> None:
    with embedded(tmp_path) as running:
        taken = site_of(running)
        with pytest.raises(CannotListenError, match=str(taken.device_port)):
            asyncio.run(Embedded(taken).start())


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    with embedded(tmp_path) as laid_out:
        pass
    (tmp_path / "broker.key").write_text("no key")
    with pytest.raises(CannotListenError, match="certificates or key"):
        laid_out.start()


async def test_it_starts_and_stops_in_a_loop_and_begins_anew(tmp_path: Path) -> None:
    with embedded(tmp_path) as laid_out:
        pass
    broker = Embedded(site_of(laid_out))
    for _ in range(2):
        await broker.start()
        with await asyncio.to_thread(Client, laid_out.device_port, laid_out.device(CAR)) as client:
            assert not (await asyncio.to_thread(client.connect, CAR, session_expiry_s=60)).session_present
            assert (broker.connections[Role.DEVICE], broker.sessions) == (1, 1)
            await asyncio.to_thread(client.publish, up(CAR, Up.EVENT), b"x")
            assert broker.counters.published == 1
            await broker.stop()
    assert broker.sessions == 0


def test_a_deaf_broker_over_tls_takes_all_and_answers_nothing_but_pings(tmp_path: Path) -> None:
    with (
        embedded(tmp_path, misbehaviour=Deaf()) as broker,
        Client(broker.device_port, broker.device(CAR)) as car,
        Client(broker.server_port, broker.server()) as server,
    ):
        server.connect(server_client_id(SITE))
        server.subscribe(topics.up_tree(CAR))
        car.connect(CAR)
        car.send(mqtt5.PublishPacket(up(CAR, Up.EVENT), b"x", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1).write())
        car.ping()
        server.ping()
        assert car.pending() == server.pending() == []


def test_a_client_that_never_reads_stops_nobody(tmp_path: Path) -> None:
    with (
        embedded(tmp_path) as broker,
        Client(broker.server_port, broker.server()) as stuck,
        Client(broker.server_port, broker.server()) as awake,
        Client(broker.device_port, broker.device(CAR)) as car,
    ):
        car.connect(CAR)
        for client, name in ((stuck, "stuck"), (awake, "awake")):
            client.connect(name)
            client.subscribe(topics.up_tree(CAR))
        payload = b"x" * 150_000
        for _ in range(100):  # far more than all buffers of a socket hold
            car.publish(up(CAR, Up.EVENT), payload)
            assert awake.receive().payload == payload
        for _ in range(100):
            assert stuck.receive().payload == payload


def test_a_failed_handshake_and_a_torn_one_leave_nothing_behind(tmp_path: Path) -> None:
    with embedded(tmp_path) as broker:
        for _ in range(3):
            with (
                pytest.raises((GoneError, ssl.SSLError)),
                Client(broker.device_port, None, ca=broker.server()) as nobody,
            ):
                nobody.connect("nobody")
        with Client(broker.device_port, broker.device(CAR)) as car:
            car.connect(CAR)
            assert car.publish(up(CAR, Up.EVENT), b"x") == 0
