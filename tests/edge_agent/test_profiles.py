"""Every shipped profile of a device class, by itself and as an agent beside instruments that are played."""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker_config import device_classes, telemetry
from broker_config.telemetry import JOURNAL, Batch, Events
from edge_agent import config
from edge_agent.config import ConfigError
from firmware_bridge.peripherals.play import Cable, Instrument, playing
from tests.edge_agent import rig as rigs

CLASSES = tuple(name for name in device_classes.names() if name != device_classes.BOARD)
CABLES = {
    "body_camera": {"controller": Instrument.LINE_CAMERA, "gnss": Instrument.GNSS},
    "in_car_terminal": {"vehicle": Instrument.LINE_VEHICLE, "gnss": Instrument.GNSS},
    "traffic_light": {"line": Instrument.MODBUS_CABINET},
    "interrogation_room": {"line": Instrument.MODBUS_ROOM},
}
RSS_KIB_MAX = 40 * 1024


def lay_out(directory: Path, name: str, profile: str | None = None, top: str = "") -> rigs.Rig:
    """A device of class *name* whose addresses are links in *directory*."""
    addresses = ", ".join(f'{address} = "{directory / address}"' for address in CABLES[name])
    rig = rigs.lay_out(directory, None, profile=profile or name, top=f"addresses = {{ {addresses} }}\n{top}")
    rig.config.write_text(rig.config.read_text().replace('device_class = "host"', f'device_class = "{name}"'))
    return rig


@contextlib.asynccontextmanager
async def plugged(directory: Path, name: str) -> AsyncIterator[dict[str, Cable]]:
    """The instruments of class *name*, played."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            address: await stack.enter_async_context(playing(instrument, directory / address, 1))
            for address, instrument in CABLES[name].items()
        }


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as found:
        config.load(path)
    return list(found.value.faults)


@pytest.mark.parametrize("name", CLASSES)
def test_a_shipped_profile_wires_every_stream_of_its_class(tmp_path: Path, name: str) -> None:
    settings = config.load(lay_out(tmp_path, name).config)
    streams = device_classes.load(name).streams
    assert {wire.stream for wire in settings.wires} | {JOURNAL} == set(streams)
    for wire in settings.wires:
        assert wire.fields == tuple(streams[wire.stream].fields)
    assert len(settings.wires) <= config.WIRES_MAX


@pytest.mark.parametrize("name", CLASSES)
async def test_check_reads_every_field_of_a_shipped_profile(tmp_path: Path, name: str) -> None:
    rig = lay_out(tmp_path, name)
    async with plugged(tmp_path, name):
        done = await asyncio.create_subprocess_exec(*rig.command("check", "--json"), stdout=subprocess.PIPE)
        out, _ = await done.communicate()
    told = json.loads(out)
    assert told["ok"], told
    assert [row for row in told["readings"] if "implausible" in row.get("note", "")] == []


BAD = """
device_class = "interrogation_room"
wire = 1

[addresses]
line = "/dev/fieldfleet/rs485"
gnss = ""

[[wires]]
stream = "room"
driver = "modbus_rtu"
every_s = 0
[wires.options]
port = "{line}"

[[wires]]
stream = "av"
driver = "modbus_rtu"
points = { audio_dbfs = "level", loudness = "level" }
[wires.options]
port = "{bus}"
unit = 300
boud = 9600
points.volume = { table = "input", address = 2, kind = "i17" }
points.gap_ms = { table = "coil", address = 2 }
points.no = { address = "x", colour = 1 }

[[wires]]
stream = "clock"
driver = "host.cpu"

[[wires]]
stream = "temperature"
driver = "nmea0184"

[[wires]]
stream = "cpu"
driver = "nmea0183"
points = { load_1m = "hdop", cpu_pct = "speed" }
options = { port = "/dev/ttyUSB0", stale_s = "3" }

[[wires]]
stream = "memory"
driver = "modbus_rtu"
points = { used_pct = "used" }
options = { port = "/dev/x", unit = 1, points = { used = { address = 1 } } }

[[wires]]
stream = "network"
driver = "modbus_rtu"
points = { rx_bytes = "used" }
options = { port = "/dev/x", unit = 1, baud = 19200, points = { used = { address = 1 } } }
"""


def test_every_fault_of_a_profile_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(BAD)
    rig = lay_out(tmp_path, "interrogation_room", "bad.toml")
    rig.config.write_text(rig.config.read_text().replace("addresses = { ", 'addresses = { door = "/dev/door", '))
    faults = faults_of(rig.config)
    expected = [
        "profile bad: wire: unknown",
        "addresses.door: unknown; profile bad has line, gnss",
        "addresses.gnss: missing; profile bad has no default",
        "profile bad: wires[1].every_s: Expected `float` >= 0.05, the value is 0",
        "profile bad: wires[2].points: av has no loudness; expected of channels_ok, audio_dbfs, gap_ms",
        "profile bad: wires[2].options: no address 'bus': expected one of line, gnss, state_dir",
        "profile bad: wires[2].options.boud: unknown",
        "profile bad: wires[2].options.unit: Expected `int` <= 247, the value is 300",
        "profile bad: wires[2].options.points.volume.kind: Invalid enum value 'i17', the value is 'i17'",
        'profile bad: wires[2].options.points.gap_ms: a coil is of kind "bit", and has no bit number',
        "profile bad: wires[2].options.points.no.colour: unknown",
        "profile bad: wires[2].options.points.no.address: Expected `int`, got `str`, the value is 'x'",
        "profile bad: wires[3].points: host.cpu does not read offset_ms, unc_ms; expected of cpu_pct, load_1m",
        "profile bad: wires[5].options.stale_s: Expected `float`, got `str`, the value is '3'",
        "profile bad: wires[7].options: /dev/x is used by memory with another driver or settings",
    ]
    assert [fault for fault in faults if "wires[4]" not in fault] == expected
    (unknown_driver,) = (fault for fault in faults if "wires[4]" in fault)
    assert unknown_driver.startswith("profile bad: wires[4].driver: expected one of ascii_query, ")
    assert unknown_driver.endswith("got 'nmea0184'")


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (
            'driver = "nmea0183"\npoints = { lat = "latitude" }\noptions = { port = "{gnss}" }',
            "wires[1].points: nmea0183 does not read latitude; "
            "expected of lat, lon, alt_m, speed_mps, hdop, fix, age_s",
        ),
        (
            'driver = "nmea0183"\noptions = { port = "/dev/ttyACM0" }',
            "wires[1].options: port: expected a path that stays with the device, such as one in /dev/serial/by-id, "
            "got '/dev/ttyACM0'",
        ),
        (
            'driver = "modbus_rtu"\npoints = { lat = "x" }\noptions = { port = "{gnss}", unit = 1, points = {} }',
            "wires[1].options.points: expected 1 to 64 entries, got 0",
        ),
        (
            'driver = "nmea0183"\noptions = { port = "{gnss}" }\n'
            '[[wires]]\nstream = "radio"\ndriver = "nmea0183"\npoints = { rssi_dbm = "hdop" }\n'
            'options = { port = "{gnss}" }',
            "wires[2].options: {gnss} is used by gnss, and cannot be shared",
        ),
    ],
)
def test_a_fault_of_a_wire_says_what_was_expected(tmp_path: Path, wire: str, fault: str) -> None:
    (tmp_path / "one.toml").write_text(
        'device_class = "body_camera"\n[addresses]\ngnss = "/dev/gnss"\ncontroller = "/dev/c"\n'
        f'[[wires]]\nstream = "gnss"\n{wire}\n'
    )
    rig = lay_out(tmp_path, "body_camera", "one.toml")
    assert faults_of(rig.config) == [f"profile one: {fault}".replace("{gnss}", str(tmp_path / "gnss"))]


def spooled(state_dir: Path) -> list[Batch | Events]:
    """Every record in an agent's spool, in the order of its writing."""
    with contextlib.closing(sqlite3.connect(f"file:{state_dir / 'spool.db'}?mode=ro", uri=True)) as db:
        rows = db.execute(SPOOLED).fetchall()
    return [telemetry.decode(payload, "application/zlib" if payload[:1] == b"\x78" else None) for (payload,) in rows]
