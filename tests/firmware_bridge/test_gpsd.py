"""The driver of gpsd: its reports as plain values, and gpsd itself before a log that gpsfake plays, and before the
receiver that the demo plays.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import gpsd
from firmware_bridge.drivers.gpsd import Gpsd, GpsdOptions
from firmware_bridge.drivers.nmea0183 import Nmea0183, NmeaOptions
from firmware_bridge.gpsd import Device, Strange, Told
from firmware_bridge.peripherals.gnss import Gnss, sentence
from firmware_bridge.peripherals.play import Instrument, playing
from firmware_bridge.position import NOTHING, POINTS, Part
from firmware_bridge.readings import Failed, Quality, Reading, Results
from tests.firmware_bridge.far_end import mono_ms, until_results
from tests.servers import HOST, accepts, free_port, program, wait_until

DEADLINE_S = 15.0
START_S_MAX = 30.0
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
NOON_MS = 1_795_780_800_000


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            (
                '{"class":"TPV","mode":3,"time":"2026-11-27T12:00:00.000Z","lat":51.123456789,"lon":-0.5,"altHAE":74.0,'
                '"altMSL":28.2,"alt":28.2,"speed":10.999}'
            ),
            Part(True, {"lat": 51.1234568, "lon": -0.5, "speed_mps": 10.999, "alt_m": 28.2, "fix": 3.0}, NOON_MS),
        ),
        (
            '{"class":"TPV","mode":3,"lat":51,"lon":0,"alt":7}',  # an older gpsd
            Part(True, {"lat": 51.0, "lon": 0.0, "alt_m": 7.0, "fix": 3.0}, None),
        ),
        (
            '{"class":"TPV","mode":2,"lat":51,"lon":0,"altMSL":7,"time":"never"}',  # without a height that counts
            Part(True, {"lat": 51.0, "lon": 0.0, "fix": 2.0}, None),
        ),
        ('{"class":"TPV","mode":1,"lat":51,"lon":0}', Part(False, {}, None)),
        ('{"class":"TPV","mode":9,"lat":51,"lon":0}', Part(False, {}, None)),
        ('{"class":"TPV","lat":51,"lon":0}', Part(False, {}, None)),
        ('{"class":"TPV","mode":3,"lat":91,"lon":0}', NOTHING),
        ('{"class":"SKY","device":"/dev/a","hdop":0.9}', Part(None, {"hdop": 0.9}, None)),
        ('{"class":"SKY","satellites":[]}', Part(None, {}, None)),
        ('{"class":"VERSION","proto_major":3,"proto_minor":14}', NOTHING),
        ('{"class":"VERSION","proto_major":4}', Strange("expected protocol 3 of gpsd, got 4")),
        ('{"class":"DEVICE","path":"/dev/a","activated":0}', Device("/dev/a", there=False)),
        ('{"class":"DEVICE","path":"/dev/a","activated":"2026-11-27T12:00:00.000Z"}', Device("/dev/a", there=True)),
        ('{"class":"ERROR","message":"no such device"}', Strange("gpsd says: no such device")),
        ('{"class":"PPS"}', NOTHING),
    ],
)
def test_what_a_report_tells(line: str, told: Told) -> None:
    assert gpsd.parse(line.encode(), "") == told


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"class":3}', '{"class":"TPV","mode":"3"}', "[" * 20_000, "\xff"])
def test_what_is_no_report_is_said_to_be_none(line: str) -> None:
    found = gpsd.parse(line.encode("latin-1"), "")
    assert isinstance(found, Strange)
    assert found.why.startswith("not a report of gpsd's: ")


@given(data=st.binary(max_size=200))
def test_no_bytes_whatever_break_it(data: bytes) -> None:
    gpsd.parse(data, "")
    gpsd.parse(b'{"class":"TPV",' + data + b"}", "")


def test_of_several_receivers_only_the_one_that_is_asked_for_counts() -> None:
    line = b'{"class":"SKY","device":"/dev/a","hdop":0.9}'
    assert gpsd.parse(line, "/dev/a") == Part(None, {"hdop": 0.9}, None)
    assert gpsd.parse(line, "/dev/b") == NOTHING
    assert gpsd.parse(b'{"class":"DEVICE","path":"/dev/a","activated":0}', "/dev/b") == NOTHING
    assert gpsd.watch("/dev/a") == b'?WATCH={"enable":true,"json":true,"device":"/dev/a"};\n'


@contextlib.contextmanager
def running(directory: Path, port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens at *port*, in a session of its own: gpsfake has a child."""
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        ) as process,
    ):
        try:
            wait_until(lambda: accepts(port) or process.poll() is not None, command[0], START_S_MAX)
            assert process.poll() is None, (directory / "log").read_text()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def drive_log(directory: Path) -> Path:
    """A minute of a drive, with satellites in view, without which gpsd tells no precision."""
    drive, log = Gnss(3), directory / "drive.nmea"
    view = sentence("GPGSV,1,1,04,04,40,083,46,05,17,308,41,09,07,344,39,12,22,228,45")
    log.write_bytes(b"".join(drive.burst(at, NOON + timedelta(seconds=at)) + view for at in range(60)))
    return log


def driver(port: int, **options: float) -> Gpsd:
    return Gpsd(GpsdOptions(host=HOST, port=port, **options), mono_ms)  # type: ignore[arg-type]


def good(results: Results) -> bool:
    return all(isinstance(each, Reading) and each.quality is Quality.GOOD for each in results.values())


def value(results: Results, point: str) -> float:
    found = results[point]
    assert isinstance(found, Reading), found
    return found.value


@pytest.mark.server("gpsfake")
@pytest.mark.server("gpsd")
async def test_a_log_that_gpsfake_plays_is_read_through_gpsd(tmp_path: Path) -> None:
    port = free_port()
    play = ("-q", "-c", "0.02", "-P", str(port), str(drive_log(tmp_path)))
    with running(tmp_path, port, program("gpsfake") or "", *play):
        d = driver(port)
        results = await until_results(lambda: d.read(POINTS, DEADLINE_S), good, "a whole position")
        await d.close()
    assert 51 < value(results, "lat") < 52
    assert value(results, "fix") == 3
    assert value(results, "hdop") < 5
    lat = results["lat"]
    assert isinstance(lat, Reading)
    assert lat.device_ms is not None
    assert NOON_MS <= lat.device_ms <= NOON_MS + 60_000


@pytest.mark.server("gpsd")
async def test_gpsd_takes_the_receiver_that_is_played_and_both_drivers_tell_the_same_place(tmp_path: Path) -> None:
    port = free_port()
    points = tuple(point for point in POINTS if point != "hdop")  # no satellites are played
    async with playing(Instrument.GNSS, tmp_path / "one", 3) as cable, playing(Instrument.GNSS, tmp_path / "two", 3):
        command = (program("gpsd") or "", "-N", "-n", "-S", str(port), str((tmp_path / "one").readlink()))
        with running(tmp_path, port, *command):
            through, direct = driver(port), Nmea0183(NmeaOptions(port=str(tmp_path / "two")), mono_ms)
            theirs = await until_results(lambda: through.read(points, DEADLINE_S), good, "a position of gpsd's")
            ours = await direct.read(points, DEADLINE_S)
            assert value(theirs, "lat") == pytest.approx(value(ours, "lat"), abs=0.002)
            assert value(theirs, "lon") == pytest.approx(value(ours, "lon"), abs=0.002)
            assert value(theirs, "alt_m") == pytest.approx(value(ours, "alt_m"), abs=20)
            cable.unplug()
            gone = Gpsd(GpsdOptions(host=HOST, port=port, stale_s=0.1, absent_s=0.2), mono_ms)
            await until_results(
                lambda: gone.read(points, 0.2),
                lambda r: all(isinstance(each, Failed) for each in r.values()),
                "a fault",
            )
            for each in (through, direct, gone):
                await each.close()


@pytest.mark.server("gpsfake")
@pytest.mark.server("gpsd")
async def test_gpsd_that_ends_is_a_fault_and_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    play = ("-q", "-c", "0.02", "-P", str(port), str(drive_log(tmp_path)))
    d = driver(port, stale_s=0.3, absent_s=0.6)
    nobody = await d.read(("lat",), DEADLINE_S)
    assert isinstance(nobody["lat"], Failed)
    assert "Connect call failed" in nobody["lat"].why or "Connection refused" in nobody["lat"].why
    for _ in range(2):
        with running(tmp_path, port, program("gpsfake") or "", *play):
            await until_results(lambda: d.read(("lat", "lon"), 0.1), good, "a position")
        await until_results(lambda: d.read(("lat",), 0.1), lambda r: isinstance(r["lat"], Failed), "the fault")
    await d.close()


async def test_a_line_without_an_end_closes_the_connection() -> None:
    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * (gpsd.LINE_BYTES_MAX * 3))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(endless, HOST, 0) as server:
        d = driver(server.sockets[0].getsockname()[1])
        results = await until_results(
            lambda: d.read(("lat",), 0.1), lambda r: "expected a line" in str(r["lat"]), "what is wrong"
        )
        assert isinstance(results["lat"], Failed)
        await d.close()
