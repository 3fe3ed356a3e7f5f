"""A rollout's whole way over the real server, its signer and a real agent: a good change goes into its layer, one
that cuts the device's own network is undone by the device and stops the rollout.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet_server.adapters.signer_socket import _serves
from tests.faults.programs import Program
from tests.faults.rig import DEVICE, Rig
from tests.servers import free_port

pytestmark = pytest.mark.server("mosquitto")

HANDLERS = "[settings]\n" + "".join(
    f'{name} = {{ handler = "agent" }}\n' for name in ("broker_host", "broker_port", "keep_alive_s")
)


@contextmanager
def running(tmp_path: Path) -> Iterator[Rig]:
    """Broker, server, signer and one agent that has said what is so."""
    with Rig(tmp_path) as rig:
        profile = rig.agent_directory / "profile.toml"
        profile.write_text(profile.read_text() + HANDLERS)
        command = [sys.executable, "-m", "fleet_server", "signer", "--config", str(rig.server_file)]
        signer = Program("signer", command, tmp_path / "signer.log")
        signer.start()
        try:
            rig.wait(lambda: _serves(rig.server_state / "signer.sock"), "the signer serves", signer)
            rig.run()
            rig.wait(lambda: twin(rig)["reported"] is not None, "the device says what is so", rig.agent, rig.server)
            yield rig
        finally:
            assert signer.stop() == 0


def twin(rig: Rig) -> Any:
    return rig.api.get(f"/v1/twins/{DEVICE}")


def begun(rig: Rig, **plan: Any) -> str:
    fields = {"name": "x", "layer": "fleet", "confirm_s": 5, **plan}
    request = urllib.request.Request(
        f"{rig.api._url}/v1/rollouts",
        data=json.dumps(fields).encode(),
        method="POST",
        headers={"Authorization": f"Bearer {rig.api._token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        name: str = json.loads(answer.read())["rollout"]["rollout"]
        return name


def stands(rig: Rig, rollout: str) -> Any:
    return rig.api.get(f"/v1/rollouts/{rollout}")


def test_a_good_change_is_shown_by_the_device_and_goes_into_its_layer(tmp_path: Path) -> None:
    with running(tmp_path) as rig:
        rollout = begun(rig, patch={"keep_alive_s": 17})
        rig.wait(lambda: stands(rig, rollout)["phase"] == "completed", "it is completed", rig.agent, rig.server)
        assert stands(rig, rollout)["counts"] == {"succeeded": 1}
        found = twin(rig)
        assert (found["drift"], found["held_by"], found["reported"]["config"]["keep_alive_s"]) == (
            "in_sync",
            None,
            17,
        )
        assert rig.api.get("/v1/config/layers/fleet")["settings"] == {"keep_alive_s": 17}
        rig.settle()


def test_a_change_that_cuts_the_network_is_undone_by_the_device_and_stops_its_rollout(tmp_path: Path) -> None:
    with running(tmp_path) as rig:
        before = twin(rig)["reported"]["config"]
        rule = {"kind": "all", "pct": 0, "action": "rollback"}
        rollout = begun(rig, patch={"broker_port": free_port()}, abort=[rule], timers={"silent_s": 600})
        rig.wait(lambda: stands(rig, rollout)["phase"] == "rolled_back", "it rolled back", rig.agent, rig.server)
        assert stands(rig, rollout)["counts"] == {"rolled_back": 1}
        assert "more than 0 % all" in stands(rig, rollout)["why"]
        rig.wait(lambda: twin(rig)["drift"] == "in_sync", "it is as it was", rig.agent, rig.server)
        assert twin(rig)["reported"]["config"] == before
        assert rig.api.get("/v1/config/layers/fleet")["settings"] == {}
        rig.settle()
