"""A real agent over a real broker is told to do what every board can do."""

import gzip
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config import signing, topics
from broker_config.messages import CommandStatus
from broker_config.signing import Command
from broker_config.topics import Down
from edge_agent.adapters.counters import COUNTERS_NAME, Counters
from tests.edge_agent import rig as rigs
from tests.edge_agent import upload_rig
from tests.edge_agent.upload_rig import UPLOADS, taker
from tests.orders import ROOTS, claims, order
from tests.servers import Mosquitto, mosquitto

pytestmark = pytest.mark.server("mosquitto")

NUMBERS = itertools.count(1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as found:
        yield found


async def ready(rig: rigs.Rig, server: rigs.Server) -> None:
    def floor() -> int | None:
        return Counters(rig.state_dir / COUNTERS_NAME).load().floor

    await server.until(lambda: len(server.records) >= 2, "records")
    await rigs.poll(lambda: floor() is not None, "the device knows since when it counts")


async def told(server: rigs.Server, name: str, **parameters: bool | float | str) -> CommandStatus:
    """What became of it."""
    body = Command(1, f"{next(NUMBERS):016x}", name, parameters)
    at_ms = time.time_ns() // 1_000_000
    data = order(claims(body, at_ms=at_ms))
    await server.client.publish(topics.down(rigs.DEVICE, Down.COMMAND), data, qos=1)

    def ends() -> list[CommandStatus]:
        return [s for s in server.statuses if s.id == body.id and s.state in {"done", "failed", "refused"}]

    await server.until(lambda: bool(ends()), f"the end of {name}")
    return ends()[0]


async def test_what_every_board_can_do(tmp_path: Path, broker: Mosquitto) -> None:
    rig = upload_rig.lay_out(tmp_path / "device", broker)
    folder = rig.state_dir / "files" / "logs"
    async with taker(broker) as taking:
        server = taking.server
        taking.receipts = None
        with rigs.agent(rig):
            await ready(rig, server)
            assert (await told(server, "identify")).state == "done"
            synced = await told(server, "clock.sync")
            assert synced.state == "done"
            assert abs(float(synced.result["off_ms"])) < 5_000
            tested = await told(server, "self.test")
            assert (tested.state, tested.result["passed"]) == ("done", True), tested
            collected = await told(server, "logs.collect")
            name = str(collected.result["file"])
            await server.until(lambda: name in taking.files(), "the logs are uploaded")
            packed = gzip.decompress(taking.files()[name])
            assert b'"connection": "connected"' in packed
            assert b"order obeyed" in packed
            upload = next(iter(taking.taken))
            assert (await told(server, "recording.pull", recording=upload)).result["files"] == 1
            assert (await told(server, "recording.pull", recording="none")).reason == "unknown_recording"
            assert (await told(server, "recording.pull")).reason == "malformed"
            assert (await told(server, "reboot")).reason == "unsupported"
            assert (folder / name).exists()


async def test_lost_mode_survives_a_restart_and_tells_the_place_often(tmp_path: Path, broker: Mosquitto) -> None:
    rig = upload_rig.lay_out(tmp_path / "device", broker, UPLOADS.replace("[uploads]", "[uploads]\nhold_h = 72"))
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await ready(rig, server)
            assert (await told(server, "lost.mode", on=True)).result == {"on": True}
            assert await rigs.stop(process) == 0
        times = server.times_told
        with rigs.agent(rig):
            await server.until(lambda: server.times_told > times, "it is back, and knows the time")
            await rigs.poll(lambda: rig.status()["lost"] is True, "it is lost still")
            assert (await told(server, "lost.mode", on=False)).result == {"on": False}
            await server.until(lambda: server.event_kinds().count("lost.mode") == 2, "the journal tells both")
    assert not (rig.state_dir / "lost").exists()


async def test_a_reboot_is_shown_by_the_new_boot(tmp_path: Path, broker: Mosquitto) -> None:
    boot = tmp_path / "boot"
    boot.write_text("a" * 32)
    program = tmp_path / "reboot.py"
    program.write_text("import sys; sys.exit(0)")
    argv = json.dumps([sys.executable, str(program)])
    extra = (
        f'[orders]\nsigners_file = "signers.json"\n[commands]\nreboot = {argv}\n[system]\nboot_id_file = "{boot}"\n'
    )
    rig = rigs.lay_out(tmp_path / "device", broker, profile=rigs.fast_profile(tmp_path / "device"), extra=extra)
    (rig.directory / "signers.json").write_bytes(signing.encode(ROOTS))
    (rig.directory / "signers.json").chmod(0o644)
    async with rigs.server(broker) as server:
        with rigs.agent(rig) as process:
            await ready(rig, server)
            body = Command(1, "f" * 16, "reboot")
            data = order(claims(body, at_ms=time.time_ns() // 1_000_000))
            await server.client.publish(topics.down(rigs.DEVICE, Down.COMMAND), data, qos=1)
            await server.until(lambda: any(s.state == "obeyed" for s in server.statuses), "it is obeyed")
            process.kill()
            process.wait()
        boot.write_text("c" * 32)
        with rigs.agent(rig):
            await server.until(lambda: "command.done" in server.event_kinds(), "it is done")
            times = server.times_told
            await server.until(lambda: server.times_told > times or len(server.births) > 1, "it knows the time")
            await server.client.publish(topics.down(rigs.DEVICE, Down.COMMAND), data, qos=1)
            await server.until(lambda: any(s.state == "done" for s in server.statuses), "and says so when asked")
    assert "command.interrupted" not in server.event_kinds()
    assert server.event_kinds().count("command.obeyed") == 1
