"""``firmware-bridge scan``: what is plugged in, by the names that a profile can use."""

import argparse
import asyncio
import json
import sys
from typing import Any

from firmware_bridge.cli import wiring
from firmware_bridge.usb_names import UsbPort


def add_scan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    parser = commands.add_parser(
        "scan",
        help="list serial ports, and Bluetooth LE devices, with the names that stay with them",
        description="A serial port has a name for `port` in a profile: of its USB device, so that it does not matter "
        "which socket it is plugged into.\n"
        "  firmware-bridge scan --json\n"
        "  firmware-bridge scan --ble hci0 --seconds 10\n",
        epilog="exit codes: 0 done, also if nothing was found; 2 wrong usage; what could not be looked for is told",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ble", metavar="HCI", help="the radio; else hci0, if there is one and bleak is installed")
    parser.add_argument(
        "--seconds", type=wiring.seconds, default=5.0, metavar="S", help="for so long the radio listens"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see its help."""
    notes: list[str] = []
    serial = _serial(notes)
    heard = _ble(arguments, notes)
    if arguments.json:
        sys.stdout.write(json.dumps({"serial": serial, "ble": heard, "notes": notes}, indent=2) + "\n")
        return wiring.OK
    for port in serial:
        sys.stdout.write(f"{port['path']:<14} {port['port']:<44} {port['product']}\n")
        sys.stdout.writelines(f"{'':<14} {name}\n" for name in port["by_id"])
    for device in heard:
        sys.stdout.write(f"{device['address']:<18} {device['rssi_dbm']:>4} dBm  {device['name']}\n")
    if not serial:
        sys.stdout.write("no serial port with an identity\n")
    sys.stdout.writelines(f"note: {note}\n" for note in notes)
    return wiring.OK


def _serial(notes: list[str]) -> list[dict[str, Any]]:
    try:
        from firmware_bridge.adapters.usb_ports import by_id, usb_ports  # noqa: PLC0415  # may not be installed
    except ImportError as error:
        notes.append(f"serial ports need fieldfleet[bridge]: {error}")
        return []
    return [_row(port, by_id(port.path)) for port in usb_ports()]


def _row(port: UsbPort, by_id: list[str]) -> dict[str, Any]:
    return {
        "path": port.path,
        "port": port.name,
        "by_id": by_id,
        "vid": f"{port.vid:04x}",
        "pid": f"{port.pid:04x}",
        "serial": port.serial,
        "interface": port.interface,
        "product": port.product,
    }


def _ble(arguments: argparse.Namespace, notes: list[str]) -> list[dict[str, Any]]:
    try:
        from firmware_bridge.adapters import ble  # noqa: PLC0415  # may not be installed
    except ImportError as error:
        notes.append(f"Bluetooth LE needs fieldfleet[bridge]: {error}")
        return []
    adapter = arguments.ble or "hci0"
    if not ble.there_is(adapter):
        notes.append(f"no radio {adapter}")
        return []
    try:
        heard = asyncio.run(ble.heard(adapter, arguments.seconds))
    except ble.BleError as error:
        notes.append(f"{adapter}: {error}")
        return []
    return [each._asdict() for each in heard]
