"""From two persons' keys to an image on a device that enrolled, with server and device as they run in the field."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from broker_config import messages, topics
from broker_config.messages import Will
from broker_config.release_chunks import AskRelease, decode_part, encode_ask
from broker_config.topics import Down, Up
from edge_agent import config
from edge_agent.adapters import mqtt
from fleet_server.__main__ import app
from tests.faults.programs import ROOT
from tests.servers import wait_until
from tests.system.fleets import Fleet, running

TABLE = '\n[releases]\ndirectory = "releases"\n'
IMAGE = bytes(n * 7 % 251 for n in range(300_000))
ALL = """
make-key {to}/a.key --no-passphrase
make-key {to}/b.key --no-passphrase
propose-root {site} --root {a} --root {b} --targets {a} --targets {b}
sign {last} --key {to}/a.key --yes
sign {last} --key {to}/b.key --yes
adopt {last} {site}
propose {image} --hw host --kind agent --version 2.0.0 --counter 7 {site}
sign {last} --key {to}/a.key --root {root} --image {image} --yes
sign {last} --key {to}/b.key --root {root} --yes
adopt {last} --image {image} {site}
"""
"""What a bureau does: what one command prints is what the next one is given."""


def _all(site: Path, to: Path) -> None:
    to.mkdir()
    image, last = to / "image.bin", to / "last.json"
    image.write_bytes(IMAGE)
    names = {"to": to, "site": f"--dir {site}", "image": image, "last": last}
    names["root"] = site / "server/releases/metadata/1.root.json"
    for line in ALL.split("\n")[1:-1]:
        command = line.format(**{"a": "", "b": "", **names}).split()
        done = CliRunner().invoke(app, ["releases", *command])
        assert done.exit_code == 0, (line, done.stderr)
        if command[0] == "make-key":
            names["a" if "a" not in names else "b"] = done.stdout.strip()
        elif command[0] != "adopt":
            last.write_text(done.stdout)


def test_an_image_that_two_persons_signed_comes_to_an_enrolled_device(tmp_path: Path) -> None:
    with running(tmp_path / "site", "embedded", tables=TABLE) as fleet:
        _all(fleet.directory, tmp_path / "persons")
        done = fleet.enroll("car-1", fleet.claim("car-1"))
        assert done.returncode == 0, done.stderr
        agent = str(fleet.device_directory("car-1") / "agent.toml")
        command = [sys.executable, "-m", "edge_agent", "fetch-release", "agent/host/2.0.0.bin", "--config", agent]
        taken = subprocess.run([*command, "--installed", "6", "--json"], cwd=ROOT, capture_output=True, check=False)
        assert taken.returncode == 0, taken.stderr
        assert Path(json.loads(taken.stdout)["fetched"]["file"]).read_bytes() == IMAGE
        assert asyncio.run(_over_mqtt(agent)) == site_file(fleet, "timestamp.json")
        older = subprocess.run([*command, "--installed", "8"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert older.returncode == 5
        assert "refused, rollback: release counter 7" in older.stderr
        wait_until(lambda: {"releases.root", "releases.list"} <= _actions(fleet), "the audit log has it")


def site_file(fleet: Fleet, name: str) -> bytes:
    return (fleet.directory / "server/releases/metadata" / name).read_bytes()


async def _over_mqtt(agent: str) -> bytes:
    """What the server that runs answers on dn/chunk."""
    settings = config.load(Path(agent))
    device, broker = settings.device, settings.file.broker
    endpoint = mqtt.Endpoint(
        broker.host, broker.port, device, 30, settings.ca_file, settings.cert_file, settings.key_file
    )
    will = mqtt.Outgoing(topics.up(device, Up.STATUS), messages.encode(Will(1, "0" * 16, "lost")), retain=True)
    own = (topics.down_filter(device),)
    ask = encode_ask(AskRelease(1, "00112233445566aa", "metadata/timestamp.json", 0, 65_536))
    async with asyncio.timeout(20), mqtt.connected(endpoint, will=will, subscriptions=own, skip_dates=False) as link:
        link.send(mqtt.Outgoing(topics.up(device, Up.RELEASE), ask))
        async for message in link.incoming():
            if message.topic == topics.down(device, Down.CHUNK):
                return decode_part(message.payload).data
    raise AssertionError("no answer")


def _actions(fleet: Fleet) -> set[str]:
    found = fleet.server.get("/v1/audit", {"limit": 100})
    assert isinstance(found, dict)
    return {each["action"] for each in found["entries"]}  # type: ignore[union-attr, call-overload, index, misc]
