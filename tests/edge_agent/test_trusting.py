"""Whom a device obeys changes only by whom it obeys already: the listener that says otherwise is not believed."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config.enrolment import TrustRequest, trust_proof
from broker_config.signing import Roots
from edge_agent import config, enrolling, renewal
from edge_agent.adapters import files
from edge_agent.adapters import x509 as keys
from edge_agent.adapters.enrolment import EnrolmentError, Listener
from fleet_server.access.keys import MasterKey
from tests.enrolment import Office, office
from tests.orders import STRANGER
from tests.steps import OTHER_ROOT, ROOT, ROOTS, THREE, TWO, after, changer, step

GOOD = [step(TWO, ROOT).decode(), step(THREE, ROOT, OTHER_ROOT).decode()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path / "office") as running:
        yield running


@pytest.fixture
def car(desk: Office, tmp_path: Path) -> Path:
    return enrolled(desk, tmp_path / "car")


def enrolled(desk: Office, directory: Path, *, again: bool = False) -> Path:
    enrolling.enroll(server=desk.url, claim=desk.claim(), ca_file=desk.ca_file, directory=directory, again=again)
    return directory


def look(desk: Office, car: Path) -> int:
    return renewal.renew(config.load(car / "agent.toml"), if_due=True, now_s=desk.clock[0] / 1000)


def held(car: Path) -> Roots:
    return files.read_signers(car / "signers.json")


def test_the_device_follows_each_version_in_order(desk: Office, car: Path) -> None:
    assert held(car) == ROOTS
    desk.steps[:] = GOOD[:1]
    assert look(desk, car) == renewal.NOT_DUE
    assert held(car) == TWO
    desk.steps[:] = GOOD
    look(desk, car)
    assert held(car) == THREE
    assert stat.S_IMODE((car / "signers.json").stat().st_mode) == 0o644


def test_a_device_that_was_away_follows_all_of_them_at_once(desk: Office, car: Path) -> None:
    roots, steps = ROOTS, []
    for _ in range(70):  # more than one answer holds
        roots = after(roots)
        steps.append(step(roots, ROOT).decode())
    desk.steps[:] = steps
    look(desk, car)
    assert held(car) == roots


STOLEN = after(ROOTS, signers=(changer(STRANGER),))


@pytest.mark.parametrize(
    "steps",
    [
        [step(STOLEN, STRANGER).decode()],
        [step(STOLEN, ROOT).decode()],
        [GOOD[1]],
        [step(after(ROOTS, site="5f" * 32), ROOT).decode()],
        ["{}"],
        [""],
    ],
    ids=["forged", "its keys nobody holds", "skipped", "another site's", "no envelope", "nothing"],
)
def test_a_hostile_listener_changes_nothing(desk: Office, car: Path, steps: list[str]) -> None:
    before = (car / "signers.json").read_bytes()
    desk.steps[:] = steps
    with pytest.raises(EnrolmentError, match="the server's signers are refused"):
        look(desk, car)
    assert (car / "signers.json").read_bytes() == before


def test_a_version_of_before_is_refused(desk: Office, car: Path) -> None:
    desk.steps[:] = GOOD
    look(desk, car)
    desk.steps[:] = [GOOD[0], GOOD[1], GOOD[0]]
    with pytest.raises(EnrolmentError, match="expected version 4, got 2"):
        look(desk, car)
    assert held(car) == THREE
    with pytest.raises(EnrolmentError, match="had 3"):
        enrolled(desk, car, again=True)
    assert held(car) == THREE


def test_enrolling_again_brings_the_signers_of_now(desk: Office, car: Path) -> None:
    (car / "signers.json").write_bytes(b"damaged")
    enrolled(desk, car, again=True)
    assert held(car) == ROOTS


def test_what_was_right_before_a_wrong_step_counts(desk: Office, car: Path) -> None:
    desk.steps[:] = [GOOD[0], step(THREE, ROOT).decode()]
    with pytest.raises(EnrolmentError, match="expected 2 signatures"):
        look(desk, car)
    assert held(car) == TWO


def test_newer_mac_keys_come_to_who_holds_the_key(desk: Office, car: Path) -> None:
    before = files.read_keys(car / "mac.json")
    look(desk, car)
    assert files.read_keys(car / "mac.json") == before
    desk.masters.append(MasterKey(b"\2" * 32))
    look(desk, car)
    after_it = files.read_keys(car / "mac.json")
    assert after_it.receipt.kid == desk.masters[-1].kid != before.receipt.kid
    assert stat.S_IMODE((car / "mac.json").stat().st_mode) == 0o600


def test_nobody_else_is_told_the_keys(desk: Office, car: Path) -> None:
    listener = Listener(desk.url, desk.ca_file)
    certificate = (car / "device.crt").read_text()
    nonce = listener.nonce()
    wrong = keys.prove(keys.new_key().key_pem, trust_proof(nonce, 1, "x"))
    with pytest.raises(EnrolmentError, match="certificate's key"):
        listener.trust(TrustRequest(certificate, nonce, wrong, 1, "x"))
    right = keys.prove((car / "device.key").read_bytes(), trust_proof(nonce, 1, "x"))
    with pytest.raises(EnrolmentError, match="certificate's key"):  # the proof is of what is asked
        listener.trust(TrustRequest(certificate, nonce, right, 2, "x"))
    assert listener.trust(TrustRequest(certificate, nonce, right, 1, "x")) is not None


def test_the_child_says_why_it_refuses(desk: Office, car: Path) -> None:
    desk.steps[:] = [step(STOLEN, STRANGER).decode()]
    argv = [sys.executable, "-m", "edge_agent.renewal", "--config", str(car / "agent.toml"), "--if-due"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == renewal.FAILED
    assert "signers 2: expected 1 signatures of those who may change version 1, got 0" in done.stderr
