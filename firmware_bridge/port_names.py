"""By which name a serial port is found, wherever it is plugged in.

/dev/fieldfleet/gnss                    a path that stays with the instrument, or that of a fixed UART
/dev/serial/by-id/usb-u-blox_*-if00     a pattern that exactly one path fits
usb:A50285BI                            the serial number of a USB device
usb:1546:01a8                           its maker and product, in hex
usb:0403:6011:FT4XYZ/if02               all of it, and which interface of several
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from broker_config.text import shown

_UNSTABLE: Final = re.compile(r"/dev/tty(USB|ACM)[\d*?\[]")
_WILD: Final = re.compile(r"[*?\[]")
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


class Path(NamedTuple):
    """A path, or with ``wild`` a pattern of one."""

    text: str
    wild: bool


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


PortName: TypeAlias = Path | Usb


class NoPortError(Exception):
    """There is no such port now, or more than one; the message says which."""


def parse(text: str) -> PortName:
    """Read a name.

    Raises:
        ValueError: it is of no such form, or a name that the next device to be plugged in may get.
    """
    if text.startswith("usb:"):
        found = _USB.fullmatch(text)
        if found is None:
            raise ValueError(
                f"port: expected usb:SERIAL or usb:VID:PID[:SERIAL], with /ifNN or not, got {shown(text)!r}"
            )
        vid, pid, interface = found["vid"], found["pid"], found["interface"]
        return Usb(
            None if vid is None else int(vid, 16),
            None if pid is None else int(pid, 16),
            found["both"] or found["serial"],
            None if interface is None else int(interface),
        )
    if not text.startswith("/"):
        raise ValueError(f"port: expected an absolute path or usb:..., got {shown(text)!r}")
    if _UNSTABLE.match(text):
        raise ValueError(
            f"port: expected a path that stays with the device, such as one in /dev/serial/by-id, got {shown(text)!r}"
        )
    return Path(text, _WILD.search(text) is not None)


def only(found: Sequence[str], name: str) -> str:
    """The one path of *found*. Nobody guesses which of several is meant.

    Raises:
        NoPortError: there is none, or more than one.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoPortError(f"nothing is plugged in that is {shown(name)}")
    raise NoPortError(
        f"expected one port that is {shown(name)}, found {len(found)}: {', '.join(sorted(found))[:120]}"
    )
