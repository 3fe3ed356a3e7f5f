"""A real agent over a real broker takes up what is desired, shows that it works, or goes back by itself."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config import twin
from broker_config.messages import ServerState, ShardEpoch
from broker_config.twin import ApplyWindow, Desired, Document, TwinState
from tests.edge_agent import rig as rigs
from tests.edge_agent import twin_rig
from tests.edge_agent.twin_rig import Twins, twins
from tests.orders import STRANGER
from tests.servers import HOST, Mosquitto, mosquitto

pytestmark = pytest.mark.server("mosquitto")

NOWHERE = "127.0.0.9"
CONFIRM_S = 5


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as found:
        yield found


@pytest.fixture
def rig(tmp_path: Path, broker: Mosquitto) -> rigs.Rig:
    return twin_rig.lay_out(tmp_path / "device", broker)


def desired(config: Document, *, confirm_s: int = CONFIRM_S, window: ApplyWindow | None = None) -> Desired:
    return Desired(1, time.time_ns() // 1_000_000, config, confirm_s, window)


async def until(found: Twins, version: int, state: str) -> None:
    await found.server.until(lambda: state in found.states(version), f"{state} of {version}, got {found.reported}")


async def test_a_new_device_asks_and_says_what_is_so_until_the_server_knows(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked and found.reported), "a question and a report")
            assert found.asked[0].have == 0
            assert (found.last.desired, found.last.in_force, found.last.state) == (0, 0, "current")
            assert found.last.config == {
                "broker_host": HOST,
                "broker_port": broker.device_port,
                "keep_alive_s": 5,
            }
            assert await rigs.stop(process) == 0
    assert len({each.version for each in found.reported}) == 1


async def test_a_setting_of_the_agent_is_confirmed_with_the_server_over_a_new_connection(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    wanted = desired({"keep_alive_s": 17})
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked), "a question")
            births = len(found.server.births)
            await found.desire(wanted)
            await until(found, wanted.version, "current")
            assert len(found.server.births) > births
            assert found.server.births[-1].keep_alive_s == 17
            assert found.last.config["keep_alive_s"] == 17
            assert found.last.in_force == wanted.version
            assert await rigs.stop(process) == 0
        with rigs.agent(rig) as process:  # and it outlives a restart
            births = len(found.server.births)
            await found.server.until(lambda: len(found.server.births) > births, "another birth")
            assert found.server.births[-1].keep_alive_s == 17
            assert await rigs.stop(process) == 0
    kinds = [kind for kind in found.server.event_kinds() if kind.startswith("config.")]
    assert kinds == ["config.taken", "config.applied", "config.confirmed"]


@pytest.mark.parametrize("settings", [{"broker_host": NOWHERE}, {"broker_port": 1}])
async def test_a_configuration_that_cuts_the_devices_own_network_is_undone_without_the_server(
    rig: rigs.Rig, broker: Mosquitto, settings: Document
) -> None:
    wanted = desired(settings)
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked), "a question")
            began_s = time.monotonic()
            await found.desire(wanted)
            await until(found, wanted.version, "reverted")
            assert time.monotonic() - began_s < CONFIRM_S + rigs.WAIT_S / 2
            assert found.last.in_force == 0
            assert found.last.config["broker_host"] == HOST
            assert found.last.reason == "no word of the server since it was applied"
            assert await rigs.stop(process) == 0
    kinds = [kind for kind in found.server.event_kinds() if kind.startswith("config.")]
    assert kinds == ["config.taken", "config.applied", "config.reverted"]


async def test_killed_while_it_is_cut_off_it_still_goes_back_by_itself(rig: rigs.Rig, broker: Mosquitto) -> None:
    wanted = desired({"broker_port": 1})
    stored = rig.state_dir / "twin.json"
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked), "a question")
            await found.desire(wanted)
            await rigs.poll(lambda: json.loads(stored.read_bytes()).get("stage") == "confirming", "it is cut off")
            process.kill()
        with rigs.agent(rig) as process:
            await until(found, wanted.version, "reverted")
            assert found.last.in_force == 0
            assert await rigs.stop(process) == 0


async def test_a_spread_of_the_fleets_return_does_not_keep_a_change_from_proving_itself(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    wanted = desired({"keep_alive_s": 17})
    async with twins(broker) as found:
        await found.server.announce(ServerState(1, 1, (ShardEpoch(0, 255, 1),), "up", spread_ms=120_000))
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked), "a question")
            await found.desire(wanted)
            await until(found, wanted.version, "current")
            assert found.last.in_force == wanted.version
            assert await rigs.stop(process) == 0


async def test_pains_23_and_42_what_was_desired_while_it_was_away_is_asked_for(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    wanted = desired({"keep_alive_s": 9})
    async with twins(broker) as found:
        await found.desire(wanted, say=False)
        with rigs.agent(rig) as process:
            await until(found, wanted.version, "current")
            assert await rigs.stop(process) == 0


async def test_a_hint_makes_it_ask_and_a_flood_of_them_makes_it_ask_seldom(rig: rigs.Rig, broker: Mosquitto) -> None:
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked and found.reported), "a question")
            found.silent = True
            asked = len(found.asked)
            began_s = time.monotonic()
            hints = 0
            while len(found.asked) < asked + 2:
                await found.say(twin.encode(TwinState(1, 2**52, 0)))
                hints += 1
                assert time.monotonic() - began_s < rigs.WAIT_S
            assert time.monotonic() - began_s > 4.0
            assert hints > 100
            assert await rigs.stop(process) == 0
    assert len({each.version for each in found.reported}) == 1


async def test_what_is_not_rightly_signed_is_not_taken_up(rig: rigs.Rig, broker: Mosquitto) -> None:
    wanted = desired({"keep_alive_s": 9})
    async with twins(broker) as found:
        found.signer = STRANGER
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked and found.reported), "a question")
            await found.desire(wanted)
            await found.server.until(lambda: "command.refused" in found.server.event_kinds(), "a refusal")
            assert await rigs.stop(process) == 0
    assert {each.desired for each in found.reported} == {0}
    assert not any(kind.startswith("config.") for kind in found.server.event_kinds())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"keep_alive_s": 1}, "keep_alive_s: expected 5 to 120 s, got 1"),
        ({"colour": "red"}, "colour: unknown"),
        ({"keep_alive_s": "9"}, "keep_alive_s: expected integer, got '9'"),
    ],
)
async def test_what_the_class_does_not_allow_is_refused_with_its_reason(
    rig: rigs.Rig, broker: Mosquitto, config: Document, reason: str
) -> None:
    wanted = desired(config)
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked and found.reported), "a question")
            await found.desire(wanted)
            await until(found, wanted.version, "refused")
            assert found.last.reason == reason
            assert found.last.in_force == 0
            assert await rigs.stop(process) == 0


async def test_a_lease_holds_it_off_and_is_named_until_it_is_given_back(tmp_path: Path, broker: Mosquitto) -> None:
    lease = tmp_path / "on_call"
    more = f'[leases.on_call]\nfile = "{lease}"\n'
    rig = twin_rig.lay_out(tmp_path / "device", broker, more=more)
    for file in (rig.config, rig.directory / "quick.toml"):
        file.write_text(file.read_text().replace('device_class = "host"', 'device_class = "body_camera"'))
    lease.write_text("unit 7")
    wanted = desired({"keep_alive_s": 9})
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked and found.reported), "a question")
            await found.desire(wanted)
            await until(found, wanted.version, "deferred")
            assert found.last.waits_for == "on_call"
            process.kill()
        with rigs.agent(rig) as process:
            lease.unlink()
            await until(found, wanted.version, "current")
            assert found.last.waits_for == ""
            assert await rigs.stop(process) == 0
    kinds = found.server.event_kinds()
    assert kinds.index("lease.held") < kinds.index("config.deferred") < kinds.index("config.confirmed")


async def test_a_window_that_is_closed_holds_it_off(rig: rigs.Rig, broker: Mosquitto) -> None:
    minute = time.localtime().tm_hour * 60 + time.localtime().tm_min
    closed = ApplyWindow((minute + 600) % 1440, (minute + 660) % 1440)
    wanted = desired({"keep_alive_s": 9}, window=closed)
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.asked and found.reported), "a question")
            await found.desire(wanted)
            await until(found, wanted.version, "deferred")
            assert found.last.waits_for == "window"
            newer = desired({"keep_alive_s": 11})  # which may be applied at any time
            await found.desire(newer)
            await until(found, newer.version, "current")
            assert await rigs.stop(process) == 0
    assert "current" not in found.states(wanted.version)


async def test_a_report_that_the_server_does_not_know_is_said_again_under_its_version(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    async with twins(broker) as found:
        found.silent = True
        with rigs.agent(rig) as process:
            await found.server.until(lambda: len(found.reported) >= 2, "the same again")
            assert await rigs.stop(process) == 0
    assert len({each.version for each in found.reported}) == 1


async def test_what_goes_on_from_an_old_image_reports_above_what_the_server_has(
    rig: rigs.Rig, broker: Mosquitto
) -> None:
    async with twins(broker) as found:
        with rigs.agent(rig) as process:
            await found.server.until(lambda: bool(found.reported), "a report")
            version = found.last.version
            await found.server.until(lambda: found.server.times_told > 0, "the time")
            await found.say(twin.encode(TwinState(1, 0, version + 1_000)))
            await found.server.until(lambda: found.last.version > version + 1_000, "a report above it")
            assert await rigs.stop(process) == 0


async def test_settings_of_the_equipment_are_in_its_file(tmp_path: Path, broker: Mosquitto) -> None:
    rig = twin_rig.lay_out(tmp_path / "device", broker, profile="interrogation_room")
    text = rig.config.read_text().replace('device_class = "host"', 'device_class = "interrogation_room"')
    rig.config.write_text(text.replace("seal_s", f'addresses = {{ line = "{tmp_path}/none" }}\nseal_s', 1))
    wanted = desired({"door_alarm": False, "temp_max_c": 30})
    settings = rig.state_dir / "settings.json"
    async with twins(broker) as found:
        with rigs.agent(rig, "env", f"HOME={os.environ['HOME']}") as process:
            await found.server.until(lambda: bool(found.asked and found.reported), "a question")
            await found.desire(wanted)
            await until(found, wanted.version, "deferred")  # nobody has seen yet that the room is empty
            assert found.last.waits_for == "interview_in_progress"
            assert not settings.exists()
            assert await rigs.stop(process) == 0
    assert json.loads((rig.state_dir / "twin.json").read_text())["stage"] == "waiting"
