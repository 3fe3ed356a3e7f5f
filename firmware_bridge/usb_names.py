"""Names of serial ports by what their USB device tells of itself.

usb:A50285BI                            its serial number
usb:1546:01a8                           its maker and product, in hex
usb:0403:6011:FT4XYZ/if02               all of it, and which interface of several
"""

import re
from typing import Final, NamedTuple

from broker_config.text import shown

_USB: Final = re.compile(
    r"usb:(?:(?P<vid>[0-9a-fA-F]{4}):(?P<pid>[0-9a-fA-F]{4})(?::(?P<both>[^/\s]+))?|(?P<serial>[^/:\s]+))"
    r"(?:/if(?P<interface>\d{2}))?"
)


class UsbPort(NamedTuple):
    """A port as its USB device describes it. ``interface``: 0 where the device has only one."""

    path: str
    vid: int
    pid: int
    serial: str
    interface: int
    product: str

    @property
    def name(self) -> str:
        """The longest name by which it is found."""
        serial = f":{self.serial}" if self.serial and not re.search(r"[/\s]", self.serial) else ""
        return f"usb:{self.vid:04x}:{self.pid:04x}{serial}" + (f"/if{self.interface:02}" if self.interface else "")


class Usb(NamedTuple):
    """What a USB device must tell; None: anything."""

    vid: int | None
    pid: int | None
    serial: str | None
    interface: int | None

    def fits(self, port: UsbPort) -> bool:
        """Whether *port* is of such a device."""
        pairs = zip(self, (port.vid, port.pid, port.serial, port.interface), strict=True)
        return all(wanted is None or wanted == found for wanted, found in pairs)


def parse(name: str) -> Usb:
    """Read a name. Raises ValueError: it is of no such form."""
    found = _USB.fullmatch(name)
    if found is None:
        raise ValueError(f"port: expected usb:SERIAL or usb:VID:PID[:SERIAL], with /ifNN or not, got {shown(name)!r}")
    vid, pid, interface = found["vid"], found["pid"], found["interface"]
    return Usb(
        None if vid is None else int(vid, 16),
        None if pid is None else int(pid, 16),
        found["both"] or found["serial"],
        None if interface is None else int(interface),
    )
