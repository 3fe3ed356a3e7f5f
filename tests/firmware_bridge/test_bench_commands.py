"""``scan``, ``probe``, ``read``, ``monitor`` and ``write``, as a technician calls them."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent import profile
from firmware_bridge import ntcip
from firmware_bridge.__main__ import main
from firmware_bridge.peripherals.play import Instrument, playing
from tests.firmware_bridge.far_end import far_end
from tests.firmware_bridge.snmpd import controller

ANSWERS = {b"READ?\n": b"temp_c=21.5 door=1\n", b"*IDN?\n": b"ACME,T9,0042,1.7\n"}
ADAPTER = """\
P: /devices/pci0000:00/usb1/1-2
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
A: idVendor=0403\\n
A: idProduct=6001\\n
A: serial=A50285BI\\n
A: bNumInterfaces= 1\\n
A: product=FT232R USB UART\\n

P: /devices/pci0000:00/usb1/1-2/1-2:1.0
E: DEVTYPE=usb_interface
E: SUBSYSTEM=usb

P: /devices/pci0000:00/usb1/1-2/1-2:1.0/ttyUSB0
E: SUBSYSTEM=usb-serial

P: /devices/pci0000:00/usb1/1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0
N: ttyUSB0
S: serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0
E: DEVNAME=/dev/ttyUSB0
E: SUBSYSTEM=tty
L: device=../../../ttyUSB0
"""


async def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Code, stdout, stderr; in a thread, since the command has a loop of its own."""
    code = await asyncio.to_thread(main, argv)
    out, err = capsys.readouterr()
    return code, out, err


async def read_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    code, out, _ = await said(capsys, *argv, "--json")
    return code, json.loads(out)


async def test_an_instrument_is_read_by_a_driver_and_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with far_end(tmp_path / "port", ANSWERS.get):
        how = ("--driver", "ascii_query", "-o", f"at=serial:{tmp_path / 'port'}")
        code, out, _ = await said(capsys, "read", *how, "temp_c")
        assert (code, out.split()) == (0, ["temp_c", "21.5", "good"])
        code, told = await read_json(capsys, "read", *how, "-o", 'names={ t = "temp_c" }', "t", "x")
        assert (code, told) == (
            1,
            {
                "ok": False,
                "readings": [
                    {"point": "t", "value": 21.5, "quality": "good"},
                    {"point": "x", "fault": "x is not in the answer"},
                ],
            },
        )


async def test_an_instrument_is_read_as_a_profile_wires_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ("--profile", str(profile.PROFILES / "interrogation_room.toml"), "--stream", "room")
    async with playing(Instrument.MODBUS_ROOM, tmp_path / "line", 1):
        code, told = await read_json(capsys, "read", *how, "--address", f"line={tmp_path / 'line'}")
        assert code == 0
        assert {row["point"] for row in told["readings"]} == {"occupied", "door_open", "temp_c", "humidity_pct"}
    code, _, err = await said(capsys, "read", *how, "--address", "lime=x")
    assert (code, "NAME=AT with one of line" in err) == (2, True)


async def test_monitor_reads_again_and_again_one_line_of_json_a_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with far_end(tmp_path / "port", ANSWERS.get) as far:
        code, out, _ = await said(
            capsys, "monitor", "--driver", "ascii_query", "-o", f"at=serial:{tmp_path / 'port'}", "door",
            "--every-s", "0.05", "--count", "3", "--json",
        )  # fmt: skip
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["readings"] for line in lines] == [[{"point": "door", "value": 1.0, "quality": "good"}]] * 3
    assert lines[0]["at_ms"] < lines[1]["at_ms"] < lines[2]["at_ms"]
    assert far.heard == [b"READ?\n"] * 3


async def test_probe_tells_who_is_there_and_that_it_is_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with far_end(tmp_path / "port", ANSWERS.get):
        how = ("probe", "--driver", "ascii_query", "-o", f"at=serial:{tmp_path / 'port'}")
        code, told = await read_json(capsys, *how, "-o", "identity_query=*IDN?")
        assert (code, told) == (0, {"serial": "0042", "model": "T9", "firmware": "1.7"})
        code, _, err = await said(capsys, *how, "-o", "identity_query=*IDN?", "--serial", "0043")
        assert (code, "expected serial number 0043" in err) == (3, True)
        code, told = await read_json(capsys, *how)
        assert (code, told) == (1, {"fault": "there is no identity_query in its options"})
        code, told = await read_json(capsys, *how, "-o", "identity_query=READ?")
        assert (code, told["fault"]) == (1, "expected maker,model,serial,firmware, got temp_c=21.5 door=1")


@pytest.mark.server("snmpd")
async def test_write_sets_what_the_list_lets_and_reads_it_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with controller(tmp_path) as crossing:
        options = (
            f"at=udp:127.0.0.1:{crossing.port}", "community=reads", "write_community=writes",
            "writable.plan=[1,2]",
        )  # fmt: skip
        how = ("write", "--driver", "ntcip1202", *(word for option in options for word in ("-o", option)))
        code, told = await read_json(capsys, *how, "plan=2")
        assert (code, told["readings"]) == (0, [{"point": "plan", "value": 2.0, "quality": "good"}])
        assert crossing.value(ntcip.PATTERN_CONTROL) == 2
        code, told = await read_json(capsys, *how, "plan=3")
        assert (code, told["readings"][0]["fault"]) == (1, "not written: expected one of 1, 2, got 3")
        assert crossing.value(ntcip.PATTERN_CONTROL) == 2


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("read",), "expected either --profile and --stream, or --driver"),
        (("read", "--driver", "modem"), "driver: expected one of ascii_query"),
        (("read", "--driver", "ascii_query"), "options.at: missing"),
        (("read", "--driver", "ascii_query", "-o", "at=tcp:h:1"), "this driver reads what it is asked for"),
        (("read", "--driver", "ascii_query", "-o", "at=serial:/dev/ttyUSB0", "x"), "stays with the device"),
        (("read", "--driver", "host.cpu", "volts"), "points: expected of cpu_pct, load_1m, got volts"),
        (("read", "--driver", "host.cpu", "-o", "a.b=1"), "options.a: unknown"),
        (("read", "--driver", "host.cpu", "-o", "a"), "--option: expected NAME=VALUE"),
        (("read", "--profile", "/nowhere.toml", "--stream", "x"), "/nowhere.toml: No such file"),
        (("write", "--driver", "host.cpu", "plan=two"), "expected SETTING=NUMBER, got 'plan=two'"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_a_port_is_opened(
    argv: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = await said(capsys, *argv)
    assert (code, out) == (2, "")
    assert why in err


async def test_a_driver_that_writes_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = await read_json(capsys, "write", "--driver", "host.cpu", "x=1")
    assert (code, told["readings"]) == (1, [{"point": "x", "fault": "not written: host.cpu writes nothing"}])


@pytest.mark.server("umockdev-run")
def test_scan_lists_a_usb_port_by_the_name_that_stays_with_it(tmp_path: Path) -> None:
    (tmp_path / "adapter.umockdev").write_text(ADAPTER, encoding="utf-8")
    command = [
        "umockdev-run",
        "-d",
        str(tmp_path / "adapter.umockdev"),
        "--",
        sys.executable,
        "-m",
        "firmware_bridge",
    ]
    told = json.loads(subprocess.run([*command, "scan", "--json"], check=True, capture_output=True).stdout)
    assert told["serial"] == [
        {
            "path": "/dev/ttyUSB0",
            "port": "usb:0403:6001:A50285BI",
            "by_id": ["/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0"],
            "vid": "0403",
            "pid": "6001",
            "serial": "A50285BI",
            "interface": 0,
            "product": "FT232R USB UART",
        }
    ]
