"""A rollout of a microcontroller's firmware: from a release that two persons signed, over the real server and a real
agent that is killed half way, to Zephyr and MCUboot in QEMU; and one that somebody else signed, which is never there.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config.releases import Custom, ImageKind
from edge_agent import profile
from firmware_bridge.adapters.smp import SmpDevice, SmpSession
from firmware_bridge.adapters.smp_links import link_to
from firmware_bridge.firmware.flow import Slots
from firmware_bridge.firmware.images import read_image
from tests.faults.programs import Program
from tests.firmware_bridge.mcu import body, mcu
from tests.firmware_bridge.signing import HARDWARE, SLOT_BYTES, Signer
from tests.releases import Repository
from tests.servers import wait_until
from tests.system.fleets import Fleet
from tests.system.releasing import DEVICE, UNDO, WAIT_S, begun, device, ends, gaps, releasing, reported, twin

pytestmark = [pytest.mark.server("mosquitto"), pytest.mark.server("qemu-system-arm")]

HW = "dock-2"
HOST_TEMPERATURE = 'driver = "host.temperature"'
TEMPERATURE = """driver = "smp"
options.at = "{port}"
options.points.temp_c = {{ source = "statistic", group = "smp_svr_stats", name = "ticks" }}
points = {{ temp_c = "temp_c" }}"""
"""What the emulated device can tell: it counts."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with releasing(tmp_path / "site") as made:
        yield made


def wire(fleet: Fleet, port: str, key: Path) -> None:
    """Tell the device of its microcontroller."""
    directory = fleet.device_directory(DEVICE)
    table = f'hw = "{HW}", port = "{port}", keys = ["{key}"], slot_bytes = {SLOT_BYTES}, hardware = "{HARDWARE}"'
    found = profile.find("host", directory, [])
    assert found is not None
    text = found.read_text() + f'mcu_release = {{ handler = "mcu", mcu = {{ {table}, trial_s = 1.0 }} }}\n'
    assert "[settings]" in text
    assert HOST_TEMPERATURE in text
    text = text.replace(HOST_TEMPERATURE, TEMPERATURE.format(port=port))
    (directory / "profile.toml").write_text(text)
    file = directory / "agent.toml"
    told = file.read_text()
    assert 'profile = "host"' in told
    file.write_text(told.replace('profile = "host"', 'profile = "profile.toml"'))


def slots(at: str) -> Slots:
    async def ask() -> Slots:
        found = SmpDevice(SmpSession(lambda: link_to(at), answer_s=3.0))
        try:
            return await found.slots()
        finally:
            await found.close()

    return asyncio.run(ask())


def released(repository: Repository, data: bytes, version: str, counter: int) -> str:
    listed, images = repository.with_one(data, Custom(HW, ImageKind.MCU, version, counter))
    repository.adopt(listed, images)
    return next(iter(images))


def test_firmware_is_rolled_out_over_a_kill_and_what_nobody_pinned_signed_never_arrives(
    fleet: Fleet, tmp_path: Path
) -> None:
    ours, strangers = Signer(tmp_path / "ours").make(), Signer(tmp_path / "strangers").make()
    good = ours.sign(body())
    repository = Repository(fleet.directory / "server/releases")
    repository.begin()
    good_name = released(repository, good, "1.4.0", 12)
    foreign_name = released(repository, strangers.sign(body(), version="1.5.0+0"), "1.5.0", 13)
    done = fleet.enroll(DEVICE, fleet.claim(DEVICE))
    assert done.returncode == 0, done.stderr
    with mcu() as dock:
        wire(fleet, dock.at, ours.public)
        agent = fleet.agent(DEVICE)
        wait_until(lambda: reported(fleet).get("mcu_release") == "", "it says what runs", WAIT_S)
        before = slots(dock.at)

        rollout = begun(fleet, patch={"mcu_release": good_name}, confirm_s=60, timers={"silent_s": 600})
        wait_until(lambda: uploading(fleet), "it is under way", WAIT_S)
        agent.kill()
        agent.start()
        ends(fleet, rollout, "completed")
        assert reported(fleet)["mcu_release"] == good_name
        after = slots(dock.at)
        assert after == Slots(read_image(good).tlv_hash, confirmed=True, other=after.other)
        assert after.active != before.active

        wait_until(lambda: "driver reads again" in log(agent), "it is read again", WAIT_S)
        assert "its firmware is being replaced" in log(agent)

        rollout = begun(fleet, patch={"mcu_release": foreign_name}, confirm_s=10, abort=[UNDO])
        ends(fleet, rollout, "rolled_back")
        assert "refused, wrongly_signed" in log(agent)
        wait_until(lambda: twin(fleet)["drift"] == "in_sync", "it is as it was", WAIT_S)
        assert reported(fleet)["mcu_release"] == good_name
        assert slots(dock.at) == after
        assert device(fleet)["connected"]
        assert [gap for gap in gaps(fleet) if gap["reason"] in {"lost", "unexplained"}] == []


def uploading(fleet: Fleet) -> bool:
    """Whether the update has a journal, and so a device that it reads."""
    return (fleet.device_directory(DEVICE) / "state/firmware.sqlite-wal").exists()


def log(agent: Program) -> str:
    return agent.log_file.read_text(errors="replace")
