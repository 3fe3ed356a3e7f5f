"""The first whole way: what the sensors' far end gave away is what an operator reads, value by value.

Real programs, as an operator starts them: Mosquitto, ``fleet-server``, ``edge-agent``, ``fieldfleet``.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import fieldfleet, told
from tests.faults.carry_out import Faults
from tests.faults.rig import DEVICE, Rig
from tests.faults.witness import CARRIERS, values

pytestmark = pytest.mark.server("mosquitto")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig")) as running:
        running.run()
        yield running


def test_an_operator_reads_what_the_sensors_said(rig: Rig) -> None:
    rig.settle()
    for stream, carrier in CARRIERS.items():
        told = json.loads(fieldfleet(rig.site_directory, "series", DEVICE, stream, "--json"))
        columns = told["columns"]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        numbers = [int(row[carrier]) for row in rows]
        assert rows == [values(stream, n) for n in numbers]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) > 3


def test_tables_name_the_device_and_its_streams(rig: Rig) -> None:
    assert DEVICE in fieldfleet(rig.site_directory, "devices")
    shown = fieldfleet(rig.site_directory, "device", DEVICE)
    assert all(stream in shown for stream in CARRIERS)
    assert "agent.start" in fieldfleet(rig.site_directory, "events", DEVICE)
    assert json.loads(fieldfleet(rig.site_directory, "gaps", "--json"))["gaps"] == []


def test_check_reads_each_driver_once_and_shows_it(rig: Rig) -> None:
    shown = told("edge_agent", "check", "--config", str(rig.agent_file))
    assert all(stream in shown and carrier in shown for stream, carrier in CARRIERS.items())


def test_an_agent_that_is_asked_to_stop_leaves_nothing_behind(rig: Rig) -> None:
    Faults(rig).stop_agent()
    rig.wait(lambda: rig.api.get(f"/v1/devices/{DEVICE}")["connected"] is False, "its farewell is heard", rig.server)
    streams = rig.api.get(f"/v1/devices/{DEVICE}")["streams"]
    assert isinstance(streams, list)
    assert [stream["missing"] for stream in streams] == [0] * (1 + len(CARRIERS))
    kinds = [str(event["kind"]) for event in rig.api.pages(f"/v1/devices/{DEVICE}/events", "events")]
    assert (kinds[0], kinds[-1]) == ("agent.start", "agent.stop")
    shown = told("edge_agent", "status", "--config", str(rig.agent_file))
    assert all(stream in shown for stream in CARRIERS)
    rig.agent.start()
    rig.settle()


def test_a_server_that_is_stopped_and_started_has_what_it_had(rig: Rig) -> None:
    rig.settle()
    before = json.loads(fieldfleet(rig.site_directory, "series", DEVICE, "cpu", "--json"))["columns"]["load_1m"]
    assert rig.server.stop() == 0
    rig.start_server()
    after = json.loads(fieldfleet(rig.site_directory, "series", DEVICE, "cpu", "--json"))["columns"]["load_1m"]
    assert after[: len(before)] == before
    rig.settle()


def test_what_an_operator_does_is_proved_by_an_export(rig: Rig, tmp_path: Path) -> None:
    """Across a kill of the server, right behind the change."""
    key, state = rig.server_file.with_name("audit.pub"), tmp_path / "witness.json"
    fieldfleet(rig.site_directory, "register", "car-90", "--class", "host")
    fieldfleet(rig.site_directory, "audit", "witness", str(state), "--key", str(key))
    rig.server.kill()
    rig.start_server()
    file = tmp_path / "audit.ndjson"
    fieldfleet(rig.site_directory, "register", "car-91", "--class", "host")
    fieldfleet(rig.site_directory, "audit", "export", str(file))
    fieldfleet(rig.site_directory, "audit", "witness", str(state))
    told("fleet_server.cli", "audit", "verify", str(file), "--key", str(key))
    listed = json.loads(fieldfleet(rig.site_directory, "audit", "list", "--action", "device.register", "--json"))
    assert {entry["subject"] for entry in listed["entries"]} == {"car-90", "car-91"}
    starts = json.loads(fieldfleet(rig.site_directory, "audit", "list", "--action", "server.start", "--json"))
    assert len(starts["entries"]) >= 2
