"""The whole way: a command signed by hand, said with the server's own certificate, and obeyed once."""

import json
import sys
from pathlib import Path

import pytest

from broker_config import signing, topics
from broker_config.ids import device_id, server_client_id
from broker_config.signing import Kind
from broker_config.topics import Down
from edge_agent.adapters.counters import COUNTERS_NAME, Counters
from fleet_server.adapters.signer_socket import _serves
from tests.contract.wire import Client
from tests.faults.programs import Program
from tests.faults.rig import DEVICE, Rig
from tests.servers import Credentials

pytestmark = pytest.mark.server("mosquitto")


def say(rig: Rig, topic: str, *payloads: bytes) -> None:
    """By whoever holds the server's certificate."""
    own = rig.server_file.parent
    with Client(
        rig.broker.server_port, Credentials(own / "server.crt", own / "server.key", own / "server-ca.crt")
    ) as client:
        client.connect(server_client_id(rig.site.site_id, "00-00"))
        for payload in payloads:
            client.publish(topic, payload)


def test_a_command_signed_by_hand_is_obeyed_once(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        signer = Program(
            "signer",
            [sys.executable, "-m", "fleet_server", "signer", "--config", str(rig.server_file)],
            tmp_path / "signer.log",
        )
        signer.start()
        try:
            rig.run()
            rig.wait(lambda: _serves(rig.server_state / "signer.sock"), "the signer serves", signer)
            counters = Counters(rig.agent_state / COUNTERS_NAME)
            rig.wait(lambda: counters.load().floor is not None, "the device knows since when it counts", rig.agent)
            data = rig.server_command("sign-command", "--device", DEVICE, "--name", "identify").strip().encode()
            other = rig.server_command("sign-command", "--device", "car-8", "--name", "identify").strip().encode()
        finally:
            assert signer.stop() == 0
        told = signing.decode_claims(signing.decode_envelope(data))
        topic = topics.down(DEVICE, Down.COMMAND)
        say(rig, topic, data, data, other)
        rig.wait(lambda: rig.agent.log().count("orders refused") == 2, "the repetition and the other are refused")
        assert counters.load().last == {Kind.COMMAND: told.counter}
        assert rig.agent.log().count("order obeyed") == 1
        signed = [json.loads(line) for line in signer.log().splitlines() if '"signed"' in line]
        assert [line["target"] for line in signed] == [DEVICE, device_id("car-8")]
        rig.settle()
