"""The device authority is followed by another under a running fleet, on either broker: nobody is cut off, and who is
under the former one is refused once that is retired.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.contract.wire import Client, GoneError
from tests.faults.programs import ROOT
from tests.servers import accepts, wait_until
from tests.system.fleets import CHOSEN, Fleet, is_healthy, running

BACK_S_MAX = 40.0


@pytest.fixture(scope="module", params=CHOSEN)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("rollover") / "site", request.param) as made:
        yield made


def told(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet_server", *words, "--dir", str(fleet.directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def restart_server(fleet: Fleet) -> None:
    assert fleet.program.stop() == 0
    fleet.program.start()
    wait_until(lambda: is_healthy(fleet.server), "the server is healthy again")


def issuer(fleet: Fleet, device: str) -> str:
    leaf = x509.load_pem_x509_certificate((fleet.device_directory(device) / "device.crt").read_bytes())
    return leaf.issuer.rfc4514_string()


def gets_in(fleet: Fleet, device: str) -> bool:
    try:
        with Client(fleet.device_port, fleet.credentials(device)) as client:
            client.connect(device)
    except GoneError:
        return False
    return True


def revoke(fleet: Fleet, device: str) -> dict[str, object]:
    done = fleet.server.send("POST", f"/v1/devices/{device}/revoke", json={"reason": "lost"})
    assert isinstance(done, dict)
    return dict(done)


def findings(fleet: Fleet) -> list[str]:
    command = [sys.executable, "-m", "fleet_server.cli", "audit", "devices", "--json", "--site", str(fleet.directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [each["check"] for each in json.loads(done.stdout)["findings"]]


def test_a_rollover_from_its_begin_to_the_retirement(fleet: Fleet) -> None:
    """One story, because each part stands on the one before."""
    old = "CN=fieldfleet device CA"
    agent = fleet.enrolled("old-1")
    for name in ("old-2", "old-3", "old-4"):
        assert fleet.enroll(name, fleet.claim(name)).returncode == 0
    assert revoke(fleet, "old-4")["out"] is True

    # the roll, and the restart of the server: who is connected stays so
    rolled = told(fleet, "roll-ca")
    assert rolled.returncode == 0, rolled.stderr
    assert fleet.is_connected("old-1")
    restart_server(fleet)
    wait_until(lambda: fleet.is_connected("old-1"), "the server has heard of the old device again")
    log = (fleet.directory / "old-1.log").read_text()
    assert (log.count("INFO connected"), log.count("disconnected")) == (1, 0)

    # who enrols now is under the new one, and connects to a broker that was not started again
    fleet.enrolled("new-1")
    assert issuer(fleet, "new-1") != issuer(fleet, "old-1") == old
    assert gets_in(fleet, "old-2")
    assert not gets_in(fleet, "old-4")
    assert findings(fleet) == ["former-authority"]

    # a device of each is refused by its own list, and its neighbours are not
    assert fleet.enroll("new-2", fleet.claim("new-2")).returncode == 0
    for name in ("old-2", "new-2"):
        assert gets_in(fleet, name)
        done = revoke(fleet, name)
        assert done["out"] is True, done
        assert not gets_in(fleet, name)
    assert gets_in(fleet, "old-3")

    # a renewal leads to the new one
    renew = [
        sys.executable,
        "-m",
        "edge_agent.renewal",
        "--config",
        str(fleet.device_directory("old-1") / "agent.toml"),
    ]
    assert subprocess.run(renew, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert agent.stop() == 0
    agent.start()
    wait_until(lambda: issuer(fleet, "old-1") == issuer(fleet, "new-1"), "it has connected with it", BACK_S_MAX)
    assert gets_in(fleet, "old-3")

    # retired: who is still under it is out, and the others are not
    refused = told(fleet, "retire-ca", "fieldfleet device CA")
    assert refused.returncode == 1
    assert "fieldfleet audit devices" in refused.stderr
    retired = told(fleet, "retire-ca", "fieldfleet device CA", "--yes")
    assert retired.returncode == 0, retired.stderr
    restart_server(fleet)
    fleet.broker.kill()
    fleet.broker.start()
    wait_until(lambda: accepts(fleet.device_port), "the broker accepts")
    assert not gets_in(fleet, "old-3")
    wait_until(lambda: fleet.is_connected("old-1"), "who has renewed is back", BACK_S_MAX)
    renew[-1] = str(fleet.device_directory("old-3") / "agent.toml")
    said = subprocess.run(renew, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "expected one of this site's authority" in said.stderr
