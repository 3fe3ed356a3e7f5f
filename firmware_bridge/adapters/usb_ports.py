"""The serial ports of USB devices that are plugged in now, as the kernel tells them; pyserial reads its files."""

from glob import glob
from pathlib import Path
from typing import Final

from serial.tools.list_ports_linux import SysFS

from firmware_bridge import port_names, usb_names
from firmware_bridge.usb_names import UsbPort

DEV: Final = Path("/dev")
KINDS: Final = ("ttyUSB*", "ttyACM*")
BY_ID: Final = Path("/dev/serial/by-id")


def usb_ports() -> list[UsbPort]:
    """In the order of their paths. One that is unplugged meanwhile is left out."""
    out: list[UsbPort] = []
    for path in sorted(str(found) for kind in KINDS for found in DEV.glob(kind)):
        try:
            told = SysFS(path)
        except (OSError, TypeError, ValueError):  # its files are gone: pyserial makes numbers of None
            continue
        if told.vid is None or told.pid is None:
            continue
        # "1-1.2:1.3": configuration 1, interface 3; without a colon the device has only one
        _, colon, interface = (told.location or "").partition(":")
        number = interface.rpartition(".")[2]
        out.append(
            UsbPort(
                path,
                told.vid,
                told.pid,
                told.serial_number or "",
                int(number) if colon and number.isdigit() else 0,
                told.product or "",
            )
        )
    return out


def by_id(path: str) -> list[str]:
    """The names below /dev/serial/by-id that lead to *path*."""
    if not BY_ID.is_dir():
        return []
    return sorted(str(link) for link in BY_ID.iterdir() if link.exists() and link.samefile(path))


def resolve(name: str) -> str:
    """The path that *name* leads to now. A plain path is not looked at.

    Raises:
        NoPortError: nothing, or more than one thing, is plugged in that has this name.
    """
    if name.startswith(port_names.USB):
        wanted = usb_names.parse(name)
        return port_names.only([port.path for port in usb_ports() if wanted.fits(port)], name)
    if port_names.is_path(name):
        return name
    return port_names.only(glob(name), name)  # noqa: PTH207  # Path takes no absolute pattern
