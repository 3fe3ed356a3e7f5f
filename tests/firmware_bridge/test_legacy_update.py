"""Legacy updates against lrzsz's receivers, over a terminal whose far end can damage, lose and go away."""

import asyncio
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_bridge.adapters.legacy_update import LegacyBootOptions, update
from firmware_bridge.legacy_boot import RefusedError, Report, Verdict
from firmware_bridge.xymodem import ACK, EOT, Outcome, Protocol
from tests.firmware_bridge.legacy_device import OLD, LegacyDevice, legacy_device

IMAGE = random.Random(3).randbytes(20_000) + b"\x00\xff"
NEW = "2.0"
RX = ("rx", "-b", "-c", "firmware.bin")
RECEIVERS = {
    Protocol.XMODEM: RX,
    Protocol.XMODEM_1K: RX,
    Protocol.YMODEM: ("rb", "-b"),
}


async def updated(
    device: LegacyDevice,
    protocol: Protocol = Protocol.XMODEM_1K,
    *,
    block_s: float = 5.0,
    return_s: float = 15.0,
    **told: object,
) -> Report:
    options = LegacyBootOptions(
        port=str(device.link),
        baud=115_200,
        protocol=protocol,
        ask="version?\r",
        version=r"fw (\S+)\r",
        enter="update\r",
        answer_s=1.0,
        block_s=block_s,
        return_s=return_s,
        whole_s=60.0,
    )
    given = {"sha256": hashlib.sha256(IMAGE).hexdigest(), "version": NEW, "accepts_no_rollback": True, **told}
    return await update(options, IMAGE, **given)  # type: ignore[arg-type]


@pytest.mark.server("rx")
@pytest.mark.parametrize("protocol", list(Protocol))
async def test_an_image_arrives_as_it_was_sent_and_the_device_says_so(tmp_path: Path, protocol: Protocol) -> None:
    async with legacy_device(tmp_path, RECEIVERS[protocol], IMAGE, NEW) as device:
        told: list[int] = []
        report = await updated(device, protocol, progress=told.append)
    assert report == Report(Verdict.UPDATED, Outcome.DONE, OLD, NEW)
    taken = device.file.read_bytes()
    assert taken[: len(IMAGE)] == IMAGE
    assert set(taken[len(IMAGE) :]) <= {0x1A}
    assert protocol is not Protocol.YMODEM or taken == IMAGE  # it alone tells the length
    assert told == sorted(told)
    assert told[-1] == len(IMAGE)


@pytest.mark.server("rx")
@pytest.mark.parametrize("protocol", [Protocol.XMODEM_1K, Protocol.YMODEM])
async def test_blocks_that_were_damaged_are_sent_again(tmp_path: Path, protocol: Protocol) -> None:
    dice, damaged = random.Random(7), 0

    def damage(data: bytes) -> bytes:
        nonlocal damaged
        if len(data) < 500 or dice.random() > 0.3 or damaged == 2:
            return data
        damaged += 1
        return data[:100] + bytes([data[100] ^ 0x55]) + data[101:]

    async with legacy_device(tmp_path, RECEIVERS[protocol], IMAGE, NEW) as device:
        device.down = damage
        report = await updated(device, protocol)
    assert damaged == 2
    assert report.verdict is Verdict.UPDATED


@pytest.mark.server("rx")
@pytest.mark.parametrize(
    ("answers_again", "verdict", "after"),
    [(True, Verdict.UPDATED, NEW), (False, Verdict.UNKNOWN, None)],
)
async def test_when_the_last_word_is_lost_the_device_is_asked(
    tmp_path: Path, answers_again: bool, verdict: Verdict, after: str | None
) -> None:
    async with legacy_device(tmp_path, RX, IMAGE, NEW) as device:
        ended = False

        def down(data: bytes) -> bytes:
            nonlocal ended
            ended = ended or data == bytes([EOT])
            return data

        device.down = down
        device.up = lambda data: data.replace(bytes([ACK]), b"") if ended else data
        device.answers_again = answers_again
        report = await updated(device, block_s=1.5, return_s=15.0 if answers_again else 1.0)
    assert report == Report(verdict, Outcome.UNKNOWN, OLD, after)


@pytest.mark.server("rx")
async def test_a_transfer_that_breaks_off_leaves_no_firmware_and_is_told_as_that(tmp_path: Path) -> None:
    async with legacy_device(tmp_path, RX, IMAGE, NEW) as device:
        sent = 0

        def cut(data: bytes) -> bytes:
            nonlocal sent
            sent += len(data)
            if sent > 8_000 and device.terminal.plugged:
                device.terminal.unplug()
            return data

        device.down = cut
        report = await updated(device, return_s=1.0)
    assert report == Report(Verdict.LOST, Outcome.BROKEN, OLD, None)


@pytest.mark.server("rx")
async def test_a_boot_loader_that_cancels_is_not_taken_for_one_that_is_done(tmp_path: Path) -> None:
    async with legacy_device(tmp_path, RX, IMAGE, NEW) as device:
        device.up = lambda data: data.replace(bytes([ACK]), b"\x18\x18\x18")
        report = await updated(device, return_s=1.0)
    assert report.outcome is Outcome.BROKEN
    assert report.verdict is Verdict.LOST


async def test_a_boot_loader_that_never_invites_is_sent_nothing(tmp_path: Path) -> None:
    async with legacy_device(tmp_path, RX, IMAGE, NEW) as device:
        options = LegacyBootOptions(
            port=str(device.link),
            protocol=Protocol.XMODEM,
            ask="version?\r",
            version=r"fw (\S+)\r",
            invite_s=0.3,
            answer_s=0.5,
            return_s=0.5,
        )
        sha256 = hashlib.sha256(IMAGE).hexdigest()
        report = await update(options, IMAGE, sha256=sha256, version=NEW, accepts_no_rollback=True)
    assert report == Report(Verdict.UNTOUCHED, Outcome.NOT_BEGUN, OLD, OLD)
    assert device.entered == 0  # it was not told how to have it enter


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"accepts_no_rollback": False}, "this boot loader has no rollback"),
        ({"sha256": "0" * 64}, "expected an image with SHA-256 0000000000000000"),
        ({"version": OLD}, "the device runs 1.0 already"),
    ],
)
async def test_what_is_refused_never_enters_the_boot_loader(
    tmp_path: Path, told: dict[str, object], why: str
) -> None:
    async with legacy_device(tmp_path, RX, IMAGE, NEW) as device:
        with pytest.raises(RefusedError, match=why):
            await updated(device, **told)  # type: ignore[arg-type]
        assert device.entered == 0


async def test_a_device_that_is_not_there_is_refused_by_the_ports_word(tmp_path: Path) -> None:
    options = LegacyBootOptions(
        port=str(tmp_path / "nothing"), protocol=Protocol.XMODEM, ask="?", version="(.)", answer_s=0.2
    )
    with pytest.raises(RefusedError, match="No such file or directory"):
        await update(options, IMAGE, sha256="", version=NEW, accepts_no_rollback=True)


@pytest.mark.parametrize("pattern", ["fw", "(a)(b)", "(", "(a"])
def test_a_pattern_has_one_group(pattern: str) -> None:
    with pytest.raises(ValueError, match="version: expected a pattern"):
        LegacyBootOptions(port="/dev/x", protocol=Protocol.XMODEM, ask="?", version=pattern)


DEVICE = """
port = "{port}"
protocol = "ymodem"
ask = "version?\\r"
version = 'fw (\\S+)'
enter = "update\\r"
"""


async def told_by_command(directory: Path, *arguments: str) -> tuple[int, str, str]:
    """``firmware-bridge update-legacy`` of IMAGE: its exit code, and what it said."""
    (directory / "image.bin").write_bytes(IMAGE)
    (directory / "device.toml").write_text(DEVICE.format(port=directory / "device"))
    command = [sys.executable, "-m", "firmware_bridge", "update-legacy", str(directory / "image.bin"), *arguments]
    command += ["--device", str(directory / "device.toml"), "--to", NEW, "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.server("rx")
async def test_the_command_says_what_became_of_it(tmp_path: Path) -> None:
    sha256 = ("--sha256", hashlib.sha256(IMAGE).hexdigest())
    async with legacy_device(tmp_path, RECEIVERS[Protocol.YMODEM], IMAGE, NEW) as device:
        code, out, _ = await told_by_command(tmp_path, *sha256)
        assert (code, json.loads(out)["verdict"], device.entered) == (1, "refused", 0)
        code, out, err = await told_by_command(tmp_path, *sha256, "--accept-no-rollback")
        assert json.loads(out) == {
            "verdict": "updated",
            "why": "it runs what was sent",
            "transfer": "done",
            "before": OLD,
            "after": NEW,
        }
        assert code == 0
        assert f"100 %, {len(IMAGE)} of {len(IMAGE)} bytes" in err


def test_what_a_devices_file_lacks_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('port = "dock"\nask = 3\nboud = 1\nprotocol = "zmodem"')
    command = [sys.executable, "-m", "firmware_bridge", "update-legacy", str(file), "--device", str(file)]
    command += ["--to", NEW, "--sha256", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for fault in ("boud: unknown", "ask: Expected `str`", "version: missing", "protocol: Invalid enum value"):
        assert fault in done.stderr
