import json
import subprocess
from pathlib import Path

import pytest

from broker_config.telemetry import GENESIS, Batch, Events
from tests.edge_agent import rig as rigs
from tests.servers import mosquitto

pytestmark = pytest.mark.server("mosquitto")


async def test_readings_arrive_are_receipted_and_the_stop_is_told(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker") as broker:
        rig = rigs.lay_out(tmp_path / "device", broker, profile=rigs.fast_profile(tmp_path / "device"))
        async with rigs.server(broker) as server:
            with rigs.agent(rig) as process:
                await server.until(lambda: len(server.records) >= 10, "ten records")
                assert await rigs.stop(process) == 0
            await server.until(lambda: bool(server.wills), "the farewell")
    assert [will.reason for will in server.wills] == ["stop"]
    assert server.wills[0].epoch == server.births[-1].epoch
    assert {state.stream for state in server.births[0].streams} == {"journal", "cpu", "memory"}
    assert not server.conflicts
    kinds = server.event_kinds()
    assert kinds[0] == "agent.start"
    assert kinds[-1] == "agent.stop"
    for record in server.decoded("cpu"):
        assert isinstance(record, Batch)
        assert record.fields == ("cpu_pct", "load_1m")
        assert all(value is not None for row in record.rows for value in row)
    journal = server.decoded("journal")
    assert isinstance(journal[0], Events)
    assert journal[0].prev == GENESIS
    streams = rig.status()["streams"]
    assert isinstance(streams, list)
    assert [row["waiting"] for row in streams if row["stream"] != "journal"] == [0, 0]


def test_check_reads_each_driver_once(tmp_path: Path) -> None:
    rig = rigs.lay_out(tmp_path / "device", None)
    done = subprocess.run(rig.command("check", "--json"), capture_output=True, check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["ok"]
    assert {row["stream"] for row in told["readings"]} == {"cpu", "memory", "storage", "network", "temperature"}
