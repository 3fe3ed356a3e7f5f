"""A site moves to a token: its device authority and its signing key are in SoftHSM, and everything goes on."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cryptography import x509

from broker_config import signing, topics
from broker_config.ids import device_id, server_client_id
from broker_config.topics import Down
from edge_agent.adapters.counters import COUNTERS_NAME, Counters
from fleet_server.access.countersigning import read_public
from fleet_server.access.signing import ONLINE_KINDS
from fleet_server.adapters import site_directory
from fleet_server.adapters.signer_socket import _serves
from fleet_server.site import SIGNERS_ROOT_KEY
from tests.contract.wire import Client, GoneError
from tests.faults.programs import ROOT, Program
from tests.servers import Credentials, wait_until
from tests.softhsm import UTIL, Tokens, softhsm
from tests.system.fleets import BROKERS, Fleet, is_healthy, running

pytestmark = pytest.mark.server(UTIL)
MOSQUITTO, EMBEDDED = BROKERS[:1], BROKERS[1:]
CA = "object=device-ca"
SIGNER = "object=signer"


@dataclass
class Moved:
    """A fleet, and the tokens that its programs find."""

    fleet: Fleet
    tokens: Tokens


@pytest.fixture
def moved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    directory = tmp_path_factory.mktemp("token")
    with softhsm(directory / "hsm") as tokens, running(directory / "site", request.param) as fleet:
        yield Moved(fleet, tokens)


def told(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet_server", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def restart_server(fleet: Fleet) -> None:
    assert fleet.program.stop() == 0
    fleet.program.start()
    wait_until(lambda: is_healthy(fleet.server), "the server is healthy again")


def gets_in(fleet: Fleet, device: str) -> bool:
    try:
        with Client(fleet.device_port, fleet.credentials(device)) as client:
            client.connect(device)
    except GoneError:
        return False
    return True


def enroll(fleet: Fleet, device: str) -> x509.Certificate:
    done = fleet.enroll(device, fleet.claim(device))
    assert done.returncode == 0, done.stderr
    return x509.load_pem_x509_certificate((fleet.device_directory(device) / "device.crt").read_bytes())


def revoke(fleet: Fleet, device: str) -> None:
    done = fleet.server.send("POST", f"/v1/devices/{device}/revoke", json={"reason": "lost"})
    assert isinstance(done, dict)
    assert done["out"] is True, done


@pytest.mark.parametrize("moved", MOSQUITTO, indirect=True)
def test_devices_enrol_and_are_revoked_by_an_authority_in_a_token(moved: Moved) -> None:
    fleet, at = moved.fleet, ("--dir", str(moved.fleet.directory))
    for device in ("old-1", "old-2"):
        enroll(fleet, device)
    told("roll-ca", *at, "--key-uri", moved.tokens.uri(CA))
    restart_server(fleet)
    for place in ("ca", "server"):
        assert (fleet.directory / place / "device-ca.key").read_text() == f"{moved.tokens.uri(CA)}\n"

    # who enrols now is signed in the token, and goes by the list that is
    authority = x509.load_pem_x509_certificate((fleet.directory / "ca/device-ca.crt").read_bytes())
    for device in ("new-1", "new-2"):
        enroll(fleet, device).verify_directly_issued_by(authority)
        assert gets_in(fleet, device)
    revoke(fleet, "new-1")
    assert [gets_in(fleet, device) for device in ("new-1", "new-2", "old-1")] == [False, True, True]

    # the former one has its key in a file, and works as before
    revoke(fleet, "old-1")
    assert [gets_in(fleet, device) for device in ("old-1", "old-2", "new-2")] == [False, True, True]

    # a bench's device; and a second move, to another key of that token
    told("add-device", "bench-1", *at)
    bench = x509.load_pem_x509_certificate((fleet.directory / "devices/bench-1/device.crt").read_bytes())
    bench.verify_directly_issued_by(authority)
    same = told("roll-ca", *at, "--key-uri", moved.tokens.uri(CA), code=1)
    assert "name another key" in same.stderr
    told("roll-ca", *at, "--key-uri", moved.tokens.uri("object=device-ca-2"))
    restart_server(fleet)
    enroll(fleet, "newer-1")
    revoke(fleet, "new-2")  # by its own authority, which is a former one in the token now
    assert [gets_in(fleet, device) for device in ("new-2", "newer-1", "old-2")] == [False, True, True]


@pytest.mark.parametrize("moved", EMBEDDED, indirect=True)
def test_orders_are_signed_in_a_token(moved: Moved) -> None:
    fleet, config = moved.fleet, moved.fleet.directory / "server/fleet-server.toml"
    uri = moved.tokens.uri(SIGNER)
    public = told("make-token-key", uri).stdout.strip()
    assert told("make-token-key", uri).stdout.strip() == public
    kinds = [word for kind in sorted(ONLINE_KINDS) for word in ("--kind", kind.value)]
    root_key = str(fleet.directory / SIGNERS_ROOT_KEY)
    told("add-signer", public, "--dir", str(fleet.directory), "--root-key", root_key, *kinds)
    config.write_text(config.read_text().replace('key_file = "signing.key"', f'key_uri = "{uri}"'))
    (fleet.directory / "server/signing.key").unlink()
    signer = Program(
        "signer", [sys.executable, "-m", "fleet_server", "signer", "--config", str(config)], fleet.directory / "s.log"
    )
    signer.start()
    fleet.exit.callback(signer.kill)
    socket = fleet.directory / "server/state/signer.sock"
    wait_until(lambda: socket.exists() and _serves(socket), "the signer listens", 30)
    agent = fleet.enrolled("car-7")  # it is told of the key when it enrols
    counters = Counters(fleet.device_directory("car-7") / "state" / COUNTERS_NAME)
    wait_until(lambda: counters.load().floor is not None, "the device knows since when it counts", 30)
    words = ["--config", str(config), "--device", "car-7", "--name", "identify", "--expires-s", "600"]
    order = told("sign-command", *words).stdout.strip().encode()
    own = fleet.directory / "server"
    with Client(fleet.server_port, Credentials(own / "server.crt", own / "server.key", fleet.server_ca)) as client:
        client.connect(server_client_id(site_directory.read_site(fleet.directory).site_id, "00-00"))
        client.publish(topics.down(device_id("car-7"), Down.COMMAND), order)
    wait_until(lambda: agent.log().count("order obeyed") == 1, "the device obeys", 30)
    (signature,) = signing.decode_envelope(order).signatures
    assert signature.keyid == signing.key_id(signing.ED25519, read_public(public))
    assert agent.stop() == 0
