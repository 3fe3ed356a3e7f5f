import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import reopening
from firmware_bridge.adapters import usb_ports
from firmware_bridge.adapters.question_bus import PortClosedError
from firmware_bridge.adapters.serial_port import UNSENT_MAX, SerialOptions, SerialPort
from firmware_bridge.drivers.ascii_query import AsciiQuery, AsciiQueryOptions
from firmware_bridge.peripherals.play import Instrument
from firmware_bridge.readings import Failed, Quality, Reading
from firmware_bridge.usb_names import UsbPort
from tests.firmware_bridge.far_end import WAIT_S, far_end, mono_ms, until, until_results
from tests.servers import free_port

HAND_MS = 600
"""No hand puts a cable in again within less."""


class Listener:
    """A port with all that it told."""

    def __init__(self, link: Path | str, uniform: Callable[[float, float], float] = lambda low, _high: low) -> None:
        self.heard = b""
        self.states: list[str] = []
        self.port = SerialPort(
            SerialOptions(port=str(link)), heard=self.hear, changed=self.states.append, uniform=uniform
        )

    def hear(self, data: bytes) -> None:
        self.heard += data


async def test_bytes_go_both_ways(tmp_path: Path) -> None:
    async with far_end(tmp_path / "port", lambda data: data[::-1]) as far:
        near = Listener(tmp_path / "port")
        near.port.start()
        await until(lambda: near.states == [""], "open")
        near.port.send(b"abc")
        await until(lambda: near.heard == b"cba", "the echo")
        await near.port.close()
        assert far.heard == [b"abc"]


async def test_who_takes_the_place_of_a_device_under_its_name_is_noticed(tmp_path: Path) -> None:
    async with far_end(tmp_path / "first"), far_end(tmp_path / "second", lambda _data: b"second"):
        link = tmp_path / "port"
        link.symlink_to((tmp_path / "first").readlink())
        near = Listener(link)
        near.port.start()
        await until(lambda: near.states == [""], "open")
        link.unlink()
        link.symlink_to((tmp_path / "second").readlink())  # the first is open still, and does not hang up
        await until(lambda: near.states[1:] == ["another device has come in its place", ""], "the second")
        near.port.send(b"who?")
        await until(lambda: near.heard == b"second", "its answer")
        await near.port.close()


async def test_a_device_is_found_by_a_pattern_whatever_it_is_called_today(tmp_path: Path) -> None:
    near = Listener(tmp_path / "usb-ACME_*-if00")
    async with far_end(tmp_path / "usb-ACME_one-if00"):
        near.port.start()
        await until(lambda: near.states == [""], "open")
    await until(lambda: len(near.states) >= 2, "gone")
    async with far_end(tmp_path / "usb-ACME_two-if00", lambda _data: b"two"):
        await until(lambda: near.states[-1] == "", "open again")
        near.port.send(b"who?")
        await until(lambda: near.heard == b"two", "its answer")
        (tmp_path / "usb-ACME_three-if00").symlink_to((tmp_path / "usb-ACME_two-if00").readlink())
        await until(lambda: near.states[-1].startswith("expected one port that is"), "that nobody guesses")
        await near.port.close()


async def test_a_device_is_found_by_what_its_usb_device_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what the kernel tells of a USB device is all that is played: no test has a bus
    plugged: list[UsbPort] = []
    monkeypatch.setattr(usb_ports, "usb_ports", lambda: list(plugged))
    near = Listener("usb:A50285BI")
    near.port.start()
    await until(lambda: bool(near.states), "the attempt")
    assert near.states[0] == "nothing is plugged in that is usb:A50285BI"
    async with far_end(tmp_path / "here"):
        plugged.append(UsbPort(str((tmp_path / "here").readlink()), 0x0403, 0x6001, "A50285BI", 0, ""))
        await until(lambda: near.states[-1] == "", "open")
    plugged.clear()
    await until(lambda: near.states[-1] != "", "gone")
    async with far_end(tmp_path / "there", lambda _data: b"there"):
        plugged.append(UsbPort(str((tmp_path / "there").readlink()), 0x0403, 0x6001, "A50285BI", 0, ""))
        await until(lambda: near.states[-1] == "", "open again")
        near.port.send(b"?")
        await until(lambda: near.heard == b"there", "its answer")
        await near.port.close()


async def test_who_was_away_for_long_is_opened_as_soon_as_it_is_there(tmp_path: Path) -> None:
    near = Listener(tmp_path / "port", uniform=lambda _low, _high: 3600.0)  # the wait before the next attempt
    near.port.start()
    await until(lambda: near.states == ["No such file or directory"], "the first attempt")
    async with far_end(tmp_path / "port"):
        await until(lambda: near.states[1:] == [""], "open")
        await near.port.close()


async def test_what_is_pulled_in_the_middle_of_an_answer_reads_within_two_seconds_of_being_put_in_again(
    tmp_path: Path,
) -> None:
    async with far_end(tmp_path / "port") as far:

        def half(_question: bytes) -> bytes:
            asyncio.get_running_loop().call_soon(far.terminal.unplug)
            return b"temp_c=2"

        driver = AsciiQuery(AsciiQueryOptions(at=f"serial:{tmp_path / 'port'}"), mono_ms)
        for _ in range(5):  # so that what failed before does not matter
            far.answer = half
            assert isinstance((await driver.read(("temp_c",), 3.0))["temp_c"], Failed)
            in_ms = mono_ms() + HAND_MS
            await until(lambda at_ms=in_ms: mono_ms() > at_ms, "a hand's time")  # type: ignore[misc]
            far.answer = lambda _question: b"temp_c=21.5\n"
            far.terminal.plug()
            plugged_ms = mono_ms()
            found = await until_results(
                lambda: driver.read(("temp_c",), 3.0), lambda r: isinstance(r["temp_c"], Reading), "a reading"
            )
            assert found["temp_c"] == Reading(21.5, Quality.GOOD, None, found["temp_c"].received_ms)  # type: ignore[union-attr]
            assert mono_ms() - plugged_ms < 2_000
        await driver.close()


async def test_a_port_has_one_owner(tmp_path: Path) -> None:
    async with far_end(tmp_path / "port"):
        first, second = Listener(tmp_path / "port"), Listener(tmp_path / "port")
        first.port.start()
        await until(lambda: first.states == [""], "open")
        second.port.start()
        await until(lambda: bool(second.states), "refused")
        assert second.port.closed_because
        await first.port.close()
        await until(lambda: second.port.closed_because == "", "its turn")
        await second.port.close()


async def test_a_port_that_is_closed_takes_nothing(tmp_path: Path) -> None:
    near = Listener(tmp_path / "nothing")
    with pytest.raises(PortClosedError, match="not open yet"):
        near.port.send(b"x")
    near.port.start()
    await until(lambda: bool(near.states), "the attempt")
    with pytest.raises(PortClosedError, match="No such file"):
        near.port.send(b"x")
    await near.port.close()
    await near.port.close()


async def test_what_waits_to_be_written_is_bounded(tmp_path: Path) -> None:
    async with far_end(tmp_path / "port"):
        near = Listener(tmp_path / "port")
        near.port.start()
        await until(lambda: near.states == [""], "open")

        def flood() -> None:
            for _ in range(100 * UNSENT_MAX):
                near.port.send(b"x" * 100_000)

        with pytest.raises(PortClosedError, match="takes no bytes"):
            flood()
        await near.port.close()


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_the_wait_before_it_is_opened_again_is_bounded_and_never_none(failures: int, share: float) -> None:
    found = reopening.delay_s(failures, lambda low, high: low + share * (high - low))
    assert reopening.S_FLOOR <= found <= reopening.S_CAP


def test_the_wait_doubles_up_to_its_cap() -> None:
    waits = [reopening.delay_s(failures, lambda _low, high: high) for failures in range(1, 8)]
    assert waits == [0.5, 1, 2, 4, 8, 10, 10]


async def test_lines_are_asked_over_a_serial_port_that_is_shared(tmp_path: Path) -> None:
    answers = {b"POWER?\n": b"battery_pct=81.5\n", b"RADIO?\n": b"rssi_dbm=-70\r\n", b"OFF?\n": None}
    async with far_end(tmp_path / "port", lambda data: answers[data]):
        power, radio, off = (
            AsciiQuery(AsciiQueryOptions(at=f"serial:{tmp_path / 'port'}", query=f"{name}?\n"), mono_ms)
            for name in ("POWER", "RADIO", "OFF")
        )
        for _ in range(3):
            told, heard, none = await asyncio.gather(
                power.read(("battery_pct",), 3.0), radio.read(("rssi_dbm",), 3.0), off.read(("x",), 0.2)
            )
            assert isinstance(told["battery_pct"], Reading)
            assert told["battery_pct"].value == 81.5
            assert isinstance(heard["rssi_dbm"], Reading)
            assert heard["rssi_dbm"].value == -70
            assert isinstance(none["x"], Failed)
        for driver in (power, radio, off):
            await driver.close()


@pytest.mark.parametrize("instrument", [each for each in Instrument if each is not Instrument.NTCIP_CONTROLLER])
def test_an_instrument_is_played_by_a_program_that_ends_when_told_and_leaves_no_link(
    tmp_path: Path, instrument: Instrument
) -> None:
    link = tmp_path / "link"
    command = [sys.executable, "-m", "firmware_bridge.peripherals", instrument, "--link", str(link), "--seed", "5"]
    command += ["--port", str(free_port())] if instrument is Instrument.NTCIP_CONTROLLER else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == str(link)
        assert os.path.lexists(link)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
        assert not os.path.lexists(link)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


async def test_everybody_on_a_line_hears_at_once_that_it_is_gone(tmp_path: Path) -> None:
    drivers = [AsciiQuery(AsciiQueryOptions(at=f"serial:{tmp_path / 'nothing'}"), mono_ms) for _ in range(5)]
    for _ in range(3):
        async with asyncio.timeout(3.0):  # of five deadlines of thirty seconds
            told = await asyncio.gather(*(driver.read(("x",), 30.0) for driver in drivers))
        assert told == [{"x": Failed("No such file or directory")}] * 5
    for driver in drivers:
        await driver.close()
