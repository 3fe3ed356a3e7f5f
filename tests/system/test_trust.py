"""Signers and MAC keys reach a device that enrolled before, by its own agent, and it goes on with them."""

import subprocess
import sys
from pathlib import Path

from edge_agent.adapters import files
from edge_agent.adapters.sqlite import read_only_ledgers
from edge_agent.spool import Ledger
from fleet_server.access.countersigning import public_text
from fleet_server.adapters.trusted import NOTED_FILE
from fleet_server.site import SIGNERS_ROOT_KEY
from tests.faults.programs import ROOT
from tests.orders import SECOND
from tests.servers import wait_until
from tests.system.fleets import Fleet
from tests.system.test_enrolment import fleet  # noqa: F401 - a fixture


def command(site: Path, *arguments: str) -> None:
    argv = [sys.executable, "-m", "fleet_server", *arguments, "--dir", str(site)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_newer_signers_and_keys_reach_a_device_that_runs(fleet: Fleet) -> None:  # noqa: F811 - the fixture
    agent = fleet.enrolled("trust-1")
    car = fleet.device_directory("trust-1")
    wait_until(lambda: files.read_signers(car / "signers.json").version == 1, "it has the first signers")
    before = files.read_keys(car / "mac.json").receipt.kid
    root_key = str(fleet.directory / SIGNERS_ROOT_KEY)
    command(fleet.directory, "rotate-mac-key")
    command(fleet.directory, "add-signer", public_text(SECOND.public), "--root-key", root_key)
    wait_until(lambda: files.read_signers(car / "signers.json").version == 2, "the signers came", 60)
    wait_until(lambda: files.read_keys(car / "mac.json").receipt.kid != before, "the keys came", 60)
    wait_until(lambda: "newer keys" in agent.log(), "the agent has taken them up", 60)
    current = files.read_keys(car / "mac.json").receipt.kid
    wait_until(lambda: f"mac {current} {before}" in noted(fleet), "it is in the audit log", 60)
    wait_until(lambda: "signers 2 " in noted(fleet), "the signers are too", 60)
    # the agent believes receipts of the new key alone: one for what it makes from now on shows that the server has it
    command(fleet.directory, "drop-former-mac-keys")
    made = {(each.stream, each.life): each.last for each in ledgers(car)}

    def newer() -> bool:
        return any(receipted(each) > made.get((each.stream, each.life), 0) for each in ledgers(car))

    wait_until(newer, "what was made since has a receipt", 60)
    assert agent.stop() == 0


def ledgers(car: Path) -> list[Ledger]:
    return read_only_ledgers(car / "state" / files.SPOOL_NAME)[0]


def receipted(ledger: Ledger) -> int:
    """The highest number of it that has a receipt."""
    return max((last for _, last in ledger.receipted), default=0)


def noted(fleet: Fleet) -> str:  # noqa: F811
    path = fleet.directory / "server/state" / NOTED_FILE
    return path.read_text() if path.is_file() else ""
