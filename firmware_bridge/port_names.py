"""By which name a serial port is found, wherever it is plugged in.

    /dev/fieldfleet/gnss                    a path that stays with the instrument, or that of a fixed UART
    /dev/serial/by-id/usb-u-blox_*-if00     a pattern that exactly one path fits
    usb:A50285BI                            what the USB device tells of itself, see usb_names

What a path does not need is loaded by who has another name.
"""

import re
from collections.abc import Sequence
from typing import Final

from broker_config.text import shown

USB: Final = "usb:"
_UNSTABLE: Final = re.compile(r"/dev/tty(USB|ACM)[\d*?\[]")


class NoPortError(Exception):
    """There is no such port now, or more than one; the message says which."""


def is_path(name: str) -> bool:
    """Whether *name* is where the port is."""
    return name.startswith("/") and not any(wild in name for wild in "*?[")


def check(name: str) -> None:
    """Raise ValueError if *name* is of no known form, or one that the next device to be plugged in may get."""
    if name.startswith(USB):
        from firmware_bridge import usb_names  # noqa: PLC0415  # see above

        usb_names.parse(name)
        return
    if not name.startswith("/"):
        raise ValueError(f"port: expected an absolute path or usb:..., got {shown(name)!r}")
    if _UNSTABLE.match(name):
        raise ValueError(
            f"port: expected a path that stays with the device, such as one in /dev/serial/by-id, got {shown(name)!r}"
        )


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
