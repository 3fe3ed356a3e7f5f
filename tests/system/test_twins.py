"""The whole way of a setting: patched over the API, signed, applied by a real agent, confirmed, known as in sync."""

import json
import sys
import urllib.request
from pathlib import Path

import pytest

from fleet_server.adapters.signer_socket import _serves
from tests.faults.api import Json
from tests.faults.programs import Program
from tests.faults.rig import DEVICE, Rig

pytestmark = pytest.mark.server("mosquitto")

HANDLERS = "[settings]\n" + "".join(
    f'{name} = {{ handler = "agent" }}\n' for name in ("broker_host", "broker_port", "keep_alive_s")
)
PATH = f"/v1/twins/{DEVICE}"


def twin(rig: Rig) -> Json:
    return rig.api.get(PATH)


def reported(rig: Rig) -> Json:
    found = twin(rig)["reported"]
    assert isinstance(found, dict)
    return found


def patch(rig: Rig, settings: Json) -> None:
    version = twin(rig)["desired"]
    etag = '"0"' if version is None else f'"{version["version"]}"'  # type: ignore[index]
    request = urllib.request.Request(
        f"{rig.api._url}{PATH}",
        data=json.dumps(settings).encode(),
        method="PATCH",
        headers={
            "Authorization": f"Bearer {rig.api._token}",
            "Content-Type": "application/merge-patch+json",
            "If-Match": etag,
        },
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()


def test_a_setting_is_confirmed_over_a_new_connection_and_goes_when_it_is_taken_back(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        profile = rig.agent_directory / "profile.toml"
        profile.write_text(profile.read_text() + HANDLERS)
        signer = Program(
            "signer",
            [sys.executable, "-m", "fleet_server", "signer", "--config", str(rig.server_file)],
            tmp_path / "signer.log",
        )
        signer.start()
        try:
            rig.wait(lambda: _serves(rig.server_state / "signer.sock"), "the signer serves", signer)
            rig.run()
            rig.wait(lambda: twin(rig)["reported"] is not None, "the device says what is so", rig.agent, rig.server)
            before = reported(rig)["config"]
            patch(rig, {"keep_alive_s": 17})
            rig.wait(lambda: reported(rig)["config"] != before, "it has another", rig.agent, rig.server)
            rig.wait(lambda: reported(rig)["state"] == "current", "it is confirmed", rig.agent, rig.server)
            assert reported(rig)["config"] == {**before, "keep_alive_s": 17}  # type: ignore[dict-item]
            assert twin(rig)["drift"] == "in_sync"
            patch(rig, {"keep_alive_s": None})
            rig.wait(lambda: reported(rig)["config"] == before, "it has what it had", rig.agent, rig.server)
            rig.wait(lambda: twin(rig)["drift"] == "in_sync", "it is confirmed", rig.agent, rig.server)
            rig.settle()
        finally:
            assert signer.stop() == 0
