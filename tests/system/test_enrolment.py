"""The life of an identity with real programs, on either broker: claim, certificate, renewal, revocation."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from broker_config import topics
from broker_config.ids import device_id
from broker_config.topics import Up
from fleet_server.access import ca
from fleet_server.adapters import site_directory
from tests.commands import run, told
from tests.contract.wire import Client, GoneError
from tests.faults.programs import ROOT
from tests.servers import Credentials, accepts, wait_until
from tests.system.fleets import CHOSEN, Fleet, running

OUT_S = 5.0
"""The goal: how long a revoked live session may last."""
BACK_S_MAX = 40.0
"""A client that TLS 1.3 refused waits for its answer in vain, ten seconds, before it tries again."""


@pytest.fixture(scope="module", params=CHOSEN)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("fleet") / "site", request.param) as made:
        yield made


def test_an_enrolled_device_is_heard_of(fleet: Fleet) -> None:
    fleet.enrolled("car-1")
    assert fleet.states("car-1") == ["active"]
    again = fleet.enroll("other", fleet.claim_again("car-1"))
    assert again.returncode == 0
    assert fleet.states("car-1") == ["active", "superseded"]


def test_a_claim_is_good_for_one(fleet: Fleet) -> None:
    claim = fleet.claim("car-2")
    assert fleet.enroll("car-2", claim).returncode == 0
    second = fleet.enroll("thief", claim)
    assert second.returncode == 1
    assert "the claim was used already; a new claim comes from: fieldfleet claim" in second.stderr
    assert not (fleet.device_directory("thief") / "agent.toml").exists()


def test_a_certificate_takes_no_other_devices_place(fleet: Fleet) -> None:
    fleet.enrolled("car-3")
    assert fleet.enroll("car-4", fleet.claim("car-4")).returncode == 0
    with Client(fleet.device_port, fleet.credentials("car-4")) as imposter:
        imposter.connect("car-3")
        imposter.publish(topics.up(device_id("car-3"), Up.STATUS), b"", retain=True)
        imposter.ping()
        assert fleet.is_connected("car-3")
    log = (fleet.directory / "car-3.log").read_text()
    assert "disconnected" not in log


def stranger(fleet: Fleet, who: str) -> Credentials:
    now = datetime.now(UTC)
    own = ca.Issued(
        (fleet.directory / "ca/device-ca.crt").read_bytes(), (fleet.directory / "ca/device-ca.key").read_bytes()
    )
    name = device_id("car-9")
    issued = {
        "another authority": lambda: ca.issue_device(ca.new_ca("fieldfleet device CA", now=now), name, now=now),
        "expired": lambda: ca.issue_device(own, name, now=now - timedelta(days=40), days=30),
        "not yet": lambda: ca.issue_device(own, name, now=now + timedelta(days=1), days=30),
        "itself": lambda: ca.new_ca("car-9", now=now),
    }[who]()
    (fleet.directory / "stranger.crt").write_bytes(issued.certificate_pem)
    (fleet.directory / "stranger.key").write_bytes(issued.key_pem)
    return Credentials(fleet.directory / "stranger.crt", fleet.directory / "stranger.key", fleet.server_ca)


@pytest.mark.parametrize("who", ["another authority", "expired", "not yet", "itself"])
def test_strangers_get_nothing(fleet: Fleet, who: str) -> None:
    with pytest.raises(GoneError), Client(fleet.device_port, stranger(fleet, who)) as client:
        client.connect("car-9")


def test_a_running_agent_renews_by_itself_and_goes_on(fleet: Fleet) -> None:
    agent = fleet.enrolled("car-5")
    agent.stop()
    # a certificate is good from ten minutes ago: one for a minute from now is past two thirds of its life already
    at = fleet.device_directory("car-5")
    before = (at / "device.crt").read_bytes()
    renew = [sys.executable, "-m", "edge_agent.renewal", "--config", str(at / "agent.toml")]
    assert subprocess.run([*renew, "--if-due"], cwd=ROOT, capture_output=True, check=False).returncode == 10
    assert subprocess.run(renew, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert (at / "device.crt").read_bytes() == before
    fleet.agent("car-5")
    wait_until(
        lambda: (at / "device.crt").read_bytes() != before, "the new certificate has taken the old one's place"
    )
    wait_until(lambda: not (at / "device.next.key").exists(), "nothing is left beside it")
    assert fleet.states("car-5") == ["active", "active"]


def test_a_new_certificate_that_is_refused_does_not_cut_a_device_off(fleet: Fleet) -> None:
    agent = fleet.enrolled("car-6")
    agent.stop()
    at = fleet.device_directory("car-6")
    wrong = stranger(fleet, "another authority")
    (at / "device.next.crt").write_bytes(wrong.certificate.read_bytes())
    (at / "device.next.key").write_bytes(wrong.key.read_bytes())
    before = (at / "device.crt").read_bytes()
    fleet.agent("car-6")
    log = fleet.directory / "car-6.log"
    wait_until(lambda: log.read_text().count("INFO connected") == 2, "it is back with the old one", BACK_S_MAX)
    assert "cannot connect" in log.read_text()
    assert (at / "device.crt").read_bytes() == before


def test_a_revoked_device_is_out_at_once_and_its_neighbour_is_not(fleet: Fleet) -> None:
    fleet.enrolled("car-7")
    fleet.enrolled("car-8")
    done = fleet.server.send("POST", "/v1/devices/car-7/revoke", json={"reason": "stolen"})
    assert isinstance(done, dict)
    assert done["out"] is True, done
    assert float(str(done["seconds"])) < OUT_S
    print(f"out in {done['seconds']} s", json.dumps(done["steps"]))
    with pytest.raises(GoneError), Client(fleet.device_port, fleet.credentials("car-7")) as client:
        client.connect("car-7")
    log = fleet.directory / "car-7.log"
    wait_until(lambda: "disconnected" in log.read_text(), "its live session is over")
    told_of = fleet.server.get_bytes("/v1/audit?action=device.seen_out")
    (seen,) = (each["data"] for each in json.loads(told_of)["entries"] if each["subject"] == "car-7")
    assert (seen["out"], float(seen["seconds"])) == ("true", done["seconds"])
    assert fleet.states("car-7") == ["revoked"]
    renew = [sys.executable, "-m", "edge_agent", "renew", "--config"]
    refused = subprocess.run(
        [*renew, str(fleet.device_directory("car-7") / "agent.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "it is revoked" in refused.stderr
    assert fleet.is_connected("car-8")
    watcher = Credentials(
        fleet.directory / "server/server.crt", fleet.directory / "server/server.key", fleet.server_ca
    )
    with Client(fleet.server_port, watcher) as server:
        server.connect("_watcher")
        server.subscribe(topics.up(device_id("car-7"), Up.STATUS), topics.up(device_id("car-8"), Up.STATUS))
        server.ping()
        assert [message.topic for message in server.pending()] == [topics.up(device_id("car-8"), Up.STATUS)]


def bench(fleet: Fleet, device: str) -> Credentials:
    """What add-device makes, and connected."""
    at = site_directory.add_device(fleet.directory, device_id(device), "host", now=datetime.now(UTC))
    made = Credentials(at / "device.crt", at / "device.key", fleet.server_ca)
    with Client(fleet.device_port, made) as client:
        client.connect(device)
    return made


def revoke(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("fleet_server.cli", "revoke", *arguments, "--reason", "stolen", "--site", str(fleet.directory))


def test_a_benchs_device_is_put_out_by_its_id_alone(fleet: Fleet) -> None:
    made = bench(fleet, "bench-1")
    with Client(fleet.device_port, made) as living:
        living.connect("bench-1")
        living.ping()
        done = revoke(fleet, "bench-1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "bench-1 is out" in done.stdout
        with pytest.raises(GoneError):
            living.ping()
    with pytest.raises(GoneError), Client(fleet.device_port, made) as client:
        client.connect("bench-1")
    assert fleet.states("bench-1") == ["revoked"]


def test_a_bench_that_enrolled_later_is_put_out_with_its_old_certificate(fleet: Fleet) -> None:
    made = bench(fleet, "bench-2")
    fleet.enrolled("bench-2")
    assert revoke(fleet, "bench-2").returncode == 0
    for each in (made, fleet.credentials("bench-2")):
        with pytest.raises(GoneError), Client(fleet.device_port, each) as client:
            client.connect("bench-2")
    assert fleet.states("bench-2") == ["revoked", "revoked"]


def test_a_bench_that_the_server_was_not_told_of_is_put_out_by_its_certificate(fleet: Fleet) -> None:
    made = bench(fleet, "bench-3")
    (fleet.directory / "server/benches/bench-3.crt").unlink()
    fleet.enrolled("other-3")
    unknown = revoke(fleet, "bench-3")
    assert unknown.returncode != 0
    assert "the certificate that add-device made" in unknown.stderr
    for wrong in (stranger(fleet, "another authority").certificate, fleet.credentials("other-3").certificate):
        refused = revoke(fleet, "bench-3", "--certificate", str(wrong))
        assert refused.returncode != 0
        assert "certificates of bench-3" in refused.stderr
    with Client(fleet.device_port, made) as client:
        client.connect("bench-3")
    done = revoke(fleet, "bench-3", "--certificate", str(made.certificate))
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(GoneError), Client(fleet.device_port, made) as client:
        client.connect("bench-3")
    assert fleet.states("other-3") == ["active"]


def test_a_benchs_file_that_is_damaged_is_told_and_keeps_nothing_good(fleet: Fleet) -> None:
    made = bench(fleet, "bench-4")
    fleet.enrolled("bench-4")
    kept = fleet.directory / "server/benches/bench-4.crt"
    kept.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    partly = revoke(fleet, "bench-4")
    assert partly.returncode == 1
    assert "what add-device made for it is known" in partly.stdout
    with pytest.raises(GoneError), Client(fleet.device_port, fleet.credentials("bench-4")) as client:
        client.connect("bench-4")
    kept.write_bytes(made.certificate.read_bytes())
    assert revoke(fleet, "bench-4").returncode == 0
    with pytest.raises(GoneError), Client(fleet.device_port, made) as client:
        client.connect("bench-4")


def test_a_device_that_was_found_again_enrols_anew_and_keeps_its_spool(fleet: Fleet) -> None:
    agent = fleet.enrolled("car-10")
    fleet.server.send("POST", "/v1/devices/car-10/revoke", json={"reason": "lost"})
    assert agent.stop() == 0
    spool = fleet.device_directory("car-10") / "state/spool.db"
    assert spool.exists()
    refused = fleet.enroll("car-10", fleet.claim_again("car-10"))
    assert "--again" in refused.stderr
    assert fleet.enroll("car-10", fleet.claim_again("car-10"), "--again").returncode == 0
    fleet.agent("car-10")
    wait_until(lambda: fleet.is_connected("car-10"), "it is back", BACK_S_MAX)
    assert fleet.states("car-10") == ["active", "revoked"]


def test_revocations_in_one_second_all_count(fleet: Fleet) -> None:
    names = [f"fast-{n}" for n in range(4)]
    for name in names:
        assert fleet.enroll(name, fleet.claim(name)).returncode == 0
    for name in names:
        done = fleet.server.send("POST", f"/v1/devices/{name}/revoke", json={"reason": "decommissioned"})
        assert isinstance(done, dict)
        assert done["out"] is True, done
    for name in names:
        with pytest.raises(GoneError), Client(fleet.device_port, fleet.credentials(name)) as client:
            client.connect(name)


def test_an_audit_of_it_finds_what_is_wrong_and_nothing_else(fleet: Fleet) -> None:
    command = ("fleet_server.cli", "audit", "devices", "--site", str(fleet.directory))
    told(*command)
    acl = fleet.directory / "broker/acl"
    acl.chmod(0o644)
    wrong = run(*command, "--json")
    acl.chmod(0o600)
    assert wrong.returncode == 1
    assert [each["check"] for each in json.loads(wrong.stdout)["findings"]] == ["over-permissive-policy"]


def test_a_broker_that_is_started_again_refuses_still(fleet: Fleet) -> None:
    fleet.enroll("car-11", fleet.claim("car-11"))
    fleet.server.send("POST", "/v1/devices/car-11/revoke", json={"reason": "lost"})
    fleet.broker.kill()
    fleet.broker.start()
    wait_until(lambda: accepts(fleet.device_port), "the broker accepts")
    with pytest.raises(GoneError), Client(fleet.device_port, fleet.credentials("car-11")) as client:
        client.connect("car-11")


def test_a_broker_that_is_not_there_is_no_proof(fleet: Fleet) -> None:
    fleet.enroll("car-12", fleet.claim("car-12"))
    fleet.broker.kill()
    try:
        done = fleet.server.send("POST", "/v1/devices/car-12/revoke", json={"reason": "lost"})
        assert isinstance(done, dict)
        assert done["out"] is False
        assert fleet.states("car-12") == ["revoked"]
    finally:
        fleet.broker.start()
        wait_until(lambda: accepts(fleet.device_port), "the broker accepts")
    again = fleet.server.send("POST", "/v1/devices/car-12/revoke", json={"reason": "lost"})
    assert isinstance(again, dict)
    assert again["out"] is True, again
