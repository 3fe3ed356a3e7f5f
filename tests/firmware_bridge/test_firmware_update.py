"""Updates of a real device: Zephyr and MCUboot in QEMU, over the emulator's serial port."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firmware_bridge.adapters.firmware_journal import SqliteJournal
from firmware_bridge.adapters.smp import SmpDevice, SmpSession
from firmware_bridge.adapters.smp_links import FRAMING_BYTES, GattLink, link_to
from firmware_bridge.firmware.flow import Act, Phase, Row, Slots, Verdict
from firmware_bridge.firmware.images import Demands, Image, admit, read_image
from firmware_bridge.firmware.updater import Pace, Progress, Updater
from tests.firmware_bridge.bumble_radio import air
from tests.firmware_bridge.cable import cable
from tests.firmware_bridge.mcu import Mcu, body, hangs, mcu
from tests.firmware_bridge.signing import HARDWARE, SLOT_BYTES, Signer
from tests.firmware_bridge.smp_radio import front
from tests.servers import HOST, free_port

PACE = Pace(trial_s=0.5, look_s=0.1, boot_s=1.0, retry_s=0.2, silent_s_max=60)
DEVICE = "dock-7"
ADDRESS = "E0:E1:E2:E3:E4:E5"
KILLS_S_MAX = 120.0
pytestmark = pytest.mark.server("qemu-system-arm")


class ByCable(GattLink):
    """To a device that has its messages by cable from there on, and so less room for them."""

    overhead_bytes = FRAMING_BYTES


@dataclass
class Bench:
    """What a test says of the surroundings, and what it saw."""

    mcu: Mcu
    at: str
    journal: SqliteJournal
    wrong: str = ""
    told: list[Progress] = field(default_factory=list)
    when: Callable[[Progress], None] = lambda _progress: None

    async def not_now(self) -> str:
        return ""

    async def unwell(self) -> str:
        return self.wrong

    def hear(self, progress: Progress) -> None:
        self.told.append(progress)
        self.when(progress)

    async def update(self, image: Image, *, again: bool = False) -> Row:
        updater = Updater(self.device(), self.journal, self, pace=PACE, told=self.hear)
        return await updater.run(DEVICE, image, again=again)

    def device(self) -> SmpDevice:
        return SmpDevice(SmpSession(lambda: link_to(self.at), answer_s=3.0, first_chunk_s=6.0))

    async def slots(self) -> Slots:
        device = self.device()
        try:
            return await device.slots()
        finally:
            await device.close()

    def uploads(self) -> list[int]:
        """The offsets that the device told, in their order."""
        return [each.done for each in self.told if each.phase is Phase.UPLOAD and each.total]


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer")).make()


def admitted(data: bytes) -> Image:
    image = read_image(data)
    admit(image, Demands(HARDWARE, SLOT_BYTES))
    return image


def journal(directory: Path) -> SqliteJournal:
    return SqliteJournal(directory / "journal")


async def test_an_unwell_image_goes_back_is_told_from_one_that_was_never_tried_and_not_tried_again(
    signer: Signer, tmp_path: Path
) -> None:
    image = admitted(signer.sign(body()))
    with mcu() as device:
        bench = Bench(device, device.at, journal(tmp_path), wrong="its readings are not sane")
        before = await bench.slots()
        row = await bench.update(image)
        assert (row.verdict, row.why) == (Verdict.ROLLED_BACK, "its readings are not sane")
        after = await bench.slots()
        assert after == Slots(before.active, confirmed=True, other=image.tlv_hash)  # as if never tried
        told = len(bench.told)
        assert await bench.update(image) == row
        assert len(bench.told) == told  # the device was left alone
        bench.wrong = ""
        row = await bench.update(image, again=True)  # an operator's order, and by now it is well
        assert row.verdict is Verdict.DONE
        assert row.times[Act.LIST] == 1
        assert Act.UPLOAD not in row.times  # it lay there still
        device.cycle()
        assert await bench.slots() == Slots(image.tlv_hash, confirmed=True)


async def test_a_link_that_breaks_at_40_percent_is_resumed_and_what_the_boot_loader_refuses_is_rejected(
    signer: Signer, tmp_path: Path
) -> None:
    data = bytearray(signer.sign(hangs(), name="corrupted"))
    image = admitted(bytes(data))
    data[0x1000] ^= 0xFF  # after it was checked, as by a bad flash: only the boot loader can see it
    spoiled = Image(bytes(data), "1.2.3.4", image.tlv_hash, b"", None, None, None, ())
    with mcu() as device:
        async with cable(lambda: device.port, pulls=(int(len(data) * 0.4 * 1.5),)) as link:
            bench = Bench(device, link.at, journal(tmp_path))
            before = await bench.slots()
            row = await bench.update(spoiled)
            assert link.pulled == 1
        assert row.verdict is Verdict.REJECTED
        assert row.times[Act.UPLOAD] >= 2  # the emulated UART may lose a byte as well
        offsets = bench.uploads()
        assert offsets == sorted(offsets), "it began anew"
        assert any(0.2 < done / len(data) < 0.6 for done in offsets)
        bench.at = device.at
        assert await bench.slots() == before


async def test_a_device_that_loses_its_power_in_an_upload_and_then_its_voice_goes_back(
    signer: Signer, tmp_path: Path
) -> None:
    image = admitted(signer.sign(hangs(), name="hangs"))
    with mcu() as device:
        bench = Bench(device, device.at, journal(tmp_path))
        before = await bench.slots()

        def cut(progress: Progress) -> None:
            if progress.done > len(image.data) * 0.2 and device.cuts == 0:
                device.cycle()  # what it had of the image was in its RAM
            elif progress.phase is Phase.RESET:
                asyncio.get_running_loop().call_later(5, device.cycle)  # as its watchdog would, once it hangs

        bench.when = cut
        row = await bench.update(image)
        assert row.verdict is Verdict.ROLLED_BACK
        assert (row.phase, device.cuts) == (Phase.RESET, 2)  # nobody ever saw it run
        offsets = bench.uploads()
        assert offsets != sorted(offsets), "it went on where the device no longer was"
        assert await bench.slots() == Slots(before.active, confirmed=True, other=image.tlv_hash)


async def test_over_bluetooth_the_link_breaks_at_40_percent_and_the_image_is_kept(
    signer: Signer, tmp_path: Path
) -> None:
    image = admitted(signer.sign(body(), name="bluetooth"))
    with mcu() as device:
        async with air() as radios, front(radios, ADDRESS, link_to(device.at)) as dock:
            dock.drop_at = int(len(image.data) * 0.4)
            bench = Bench(device, "", journal(tmp_path))
            session = SmpSession(lambda: ByCable(ADDRESS, "hci7", radios.backends), answer_s=3.0, first_chunk_s=6.0)
            updater = Updater(SmpDevice(session), bench.journal, bench, pace=PACE, told=bench.hear)
            row = await updater.run(DEVICE, image)
        assert (row.verdict, dock.dropped) == (Verdict.DONE, 1)
        offsets = bench.uploads()
        assert offsets == sorted(offsets), "it began anew"
        bench.at = device.at
        assert await bench.slots() == Slots(image.tlv_hash, confirmed=True)


def test_an_updater_that_is_killed_in_every_phase_ends_with_the_image_kept(signer: Signer, tmp_path: Path) -> None:
    data = signer.sign(body(), name="kept")
    image_file = tmp_path / "image.bin"
    image_file.write_bytes(data)
    lines = ("precheck", "upload 25 %", "upload 50 %", "listed", "test", "reset", "trial", "confirm")
    with mcu() as device:
        command = [sys.executable, "-m", "firmware_bridge", "update", str(image_file), "--key", str(signer.public)]
        command += ["--hardware", HARDWARE, "--slot-bytes", str(SLOT_BYTES), "--port", device.at, "--json"]
        command += ["--journal", str(tmp_path / "journal"), "--trial-s", "1", "--boot-s", "1"]
        for line in lines:
            with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                assert process.stderr is not None
                said = []
                for each in process.stderr:
                    said.append(each.strip())
                    if said[-1] == line:
                        break
                process.kill()
            assert said, f"ended before {line}"
            assert said[-1] == line
            assert process.returncode == -signal.SIGKILL
        done = subprocess.run(command, capture_output=True, text=True, timeout=KILLS_S_MAX, check=False)
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["verdict"] == "done"
        device.cycle()
        found = asyncio.run(Bench(device, device.at, journal(tmp_path)).slots())
        assert found == Slots(read_image(data).tlv_hash, confirmed=True)


@pytest.mark.parametrize("fault", ["corrupted", "wrongly_signed", "foreign", "too_big", "downgrade"])
def test_what_must_not_get_there_is_refused_before_the_device_is_touched(
    signer: Signer, tmp_path: Path, fault: str
) -> None:
    stranger = Signer(tmp_path / "stranger").make() if fault == "wrongly_signed" else signer
    data = bytearray(
        stranger.sign(
            b"program" * 100,
            name=fault,
            hardware=("another.example", "dock") if fault == "foreign" else ("fieldfleet.example", "dock"),
            counter=3 if fault == "downgrade" else 7,
        )
    )
    data[0x210] ^= fault == "corrupted"
    file = tmp_path / "image.bin"
    file.write_bytes(data)
    demands = ["--key", str(signer.public), "--hardware", HARDWARE, "--counter-min", "7", "--json"]
    demands += ["--slot-bytes", str(len(data) - (fault == "too_big"))]
    nobody = ["--port", f"tcp:{HOST}:{free_port()}", "--journal", str(tmp_path / "journal")]
    for command in (["verify"], ["update", *nobody]):
        done = subprocess.run(
            [sys.executable, "-m", "firmware_bridge", command[0], str(file), *demands, *command[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done
        assert json.loads(done.stdout)["fault"] == fault
    assert not (tmp_path / "journal").exists()


def test_wrong_usage_is_told_from_a_refusal(signer: Signer, tmp_path: Path) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(signer.sign(b"program" * 100, name="usage"))
    for arguments, expected in (
        (["verify", str(tmp_path / "none"), "--key", str(signer.public)], "No such file"),
        (["verify", str(file), "--key", str(signer.public), "--hardware", "dock"], "expected vendor/class"),
        (
            ["update", str(file), "--key", str(signer.public), "--hardware", HARDWARE, "--port", "usb"],
            "expected serial",
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "firmware_bridge", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done
        assert expected in done.stderr


async def test_a_device_that_does_not_answer_is_set_apart(signer: Signer, tmp_path: Path) -> None:
    image = admitted(signer.sign(b"program" * 100, name="silent"))
    session = SmpSession(lambda: link_to(f"tcp:{HOST}:{free_port()}"))
    pace = Pace(retry_s=0.01, silent_s_max=0.1)
    bench = Bench(None, "", journal(tmp_path))  # type: ignore[arg-type]  # there is none
    row = await Updater(SmpDevice(session), bench.journal, bench, pace=pace).run(DEVICE, image)
    assert row.verdict is Verdict.QUARANTINE
