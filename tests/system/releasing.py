"""A site that gives releases, with its signer; and how rollouts of them end."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fleet_server.adapters.signer_socket import _serves
from tests.faults.programs import Program
from tests.servers import wait_until
from tests.system.fleets import Fleet, running

WAIT_S: Final = 90.0
DEVICE: Final = "box-1"
UNDO: Final = {"kind": "all", "pct": 0, "action": "rollback"}
"""One that fails is one too many."""


@contextmanager
def releasing(directory: Path) -> Iterator[Fleet]:
    """On Mosquitto; its repository of releases has yet to begin."""
    with running(directory, "mosquitto", tables='\n[releases]\ndirectory = "releases"\n') as made:
        config = made.directory / "server/fleet-server.toml"
        (socket,) = re.findall(r'^socket_file = "([^"]+)"', config.read_text(), re.MULTILINE)
        argv = [sys.executable, "-m", "fleet_server", "signer", "--config", str(config)]
        signer = Program("signer", argv, made.directory / "signer.log")
        signer.start()
        made.exit.callback(signer.kill)
        wait_until(lambda: _serves(made.directory / "server" / socket), "the signer serves")
        yield made


def begun(fleet: Fleet, **plan: Any) -> str:
    made: Any = fleet.server.send("POST", "/v1/rollouts", json={"name": "x", "layer": "fleet", **plan})
    return str(made["rollout"]["rollout"])


def ends(fleet: Fleet, rollout: str, phase: str) -> None:
    def found() -> bool:
        told: Any = fleet.server.get(f"/v1/rollouts/{rollout}")
        return bool(told["phase"] == phase)

    wait_until(found, f"{rollout} is {phase}", WAIT_S)


def twin(fleet: Fleet) -> Any:
    return fleet.server.get(f"/v1/twins/{DEVICE}")


def reported(fleet: Fleet) -> dict[str, Any]:
    try:
        told = twin(fleet)["reported"]
    except Exception:  # noqa: BLE001 - nobody knows the device yet
        return {}
    return {} if told is None else dict(told["config"])


def device(fleet: Fleet) -> Any:
    return fleet.server.get(f"/v1/devices/{DEVICE}")


def gaps(fleet: Fleet) -> list[Any]:
    found: Any = fleet.server.get("/v1/gaps", {"device": DEVICE})
    return list(found["gaps"])
