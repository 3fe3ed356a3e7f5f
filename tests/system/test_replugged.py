"""Instruments of each class are unplugged and plugged in again under a real agent and a real broker; what the server
side holds and says of the device then is what counts.
"""

from pathlib import Path

import pytest

from edge_agent import config, profile
from fleet_server.access.keys import device_keys_json
from fleet_server.cli.demo.fleet import hastened
from fleet_server.telemetry.answers import Answers
from tests.edge_agent import rig as rigs
from tests.edge_agent.test_profiles import CABLES, address_in, lay_out, plugged
from tests.fleet_server.telemetry.messages import MASTER
from tests.fleet_server.telemetry.service_rig import now_ms, server_link, serving, until
from tests.servers import Mosquitto, mosquitto

pytestmark = pytest.mark.server("mosquitto")

EVERY_CABLE = [(name, address) for name, cables in CABLES.items() for address in cables]
RECEIVER = "baud = 9600 }"
QUICK_RECEIVER = "baud = 9600, stale_s = 1.5, absent_s = 2 }"


def lay_out_quick(directory: Path, name: str, broker: Mosquitto) -> rigs.Rig:
    """A device with its shipped profile at a quick cadence, whose receiver is missed soon."""
    directory.mkdir()
    shipped = (profile.PROFILES / f"{name}.toml").read_text(encoding="utf-8")
    (directory / "quick.toml").write_text(hastened(shipped).replace(RECEIVER, QUICK_RECEIVER), encoding="utf-8")
    rig = lay_out(directory, name, str(directory / "quick.toml"), broker)
    (directory / "mac.json").write_bytes(device_keys_json(MASTER, rigs.DEVICE))
    return rig


def streams_at(rig: rigs.Rig, address: str) -> set[str]:
    """The streams that are read at *address*."""
    wires = config.load(rig.config).profile.wires
    return {wire.stream for wire in wires if address_in(rig.directory, address) in repr(wire.options)}


def since(answers: Answers, streams: set[str], from_ms: int) -> dict[str, bool]:
    """Of *streams*, those whose newest row is not older than *from_ms*: whether it is whole."""
    return {
        row.stream: None not in row.values.values()
        for row in answers.latest(rigs.DEVICE)
        if row.stream in streams and row.at_ms >= from_ms
    }


def faulty(answers: Answers) -> set[str]:
    """The streams of which the device's health says that a driver does not read them."""
    told = answers.device(rigs.DEVICE)
    assert told is not None
    assert told.healthy is not bool(told.why)
    return {why.partition(":")[0].split()[2] for why in told.why if why.startswith("driver.fault")}


@pytest.mark.parametrize(
    ("name", "address"), [(name, address) for name, cables in CABLES.items() for address in cables]
)
async def test_what_is_unplugged_is_unhealthy_and_empty_and_replugged_it_is_neither(
    tmp_path: Path, name: str, address: str
) -> None:
    with mosquitto(tmp_path / "broker") as broker:
        rig = lay_out_quick(tmp_path / "device", name, broker)
        streams = streams_at(rig, address)
        whole, empty = dict.fromkeys(streams, True), dict.fromkeys(streams, False)
        async with (
            plugged(rig.directory, name) as cables,
            serving(tmp_path / "telemetry.db", server_link(broker), known=None) as running,
        ):
            await running.linked()
            answers = running.service.answers
            with rigs.agent(rig) as process:
                await until(lambda: since(answers, streams, 0) == whole, "whole readings")
                assert faulty(answers) == set()
                cables[address].unplug()
                await until(lambda: faulty(answers) == streams, "the faults of its streams, and of no other")
                await until(lambda: since(answers, streams, 0) == empty, "rows without values")
                cables[address].plug()
                plugged_ms = now_ms()
                await until(lambda: faulty(answers) == set(), "that all of it reads again")
                await until(lambda: since(answers, streams, plugged_ms) == whole, "new readings")
                assert await rigs.stop(process) == 0
            kinds = [event.kind for event in answers.events(rigs.DEVICE, from_ms=0, to_ms=now_ms(), rows_max=1_000)]
            assert kinds.count("driver.fault") == kinds.count("driver.ok") == len(streams)
