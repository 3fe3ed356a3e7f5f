"""What commands about images share: which options say what an image must be, and how it is found out."""

import argparse
from pathlib import Path
from typing import Final

from firmware_bridge.adapters.signature_child import check_signature
from firmware_bridge.firmware.images import IMAGE_BYTES_MAX, Demands, Image, admit, hardware_ids, read_image

OK, REFUSED, USAGE, ROLLED_BACK, POSTPONED, QUARANTINE = range(6)
EXIT_CODES: Final = (
    "exit codes: 0 done; 1 refused, rejected or failed; 2 wrong usage; 3 the device went back to the image before; "
    "4 postponed; 5 the device does not answer"
)
KEY_BYTES_MAX: Final = 8192


class UsageError(Exception):
    """What was given cannot be used; the message says what was expected."""


def add_demands(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`admitted`."""
    parser.add_argument("image", metavar="IMAGE", type=Path, help="an image as imgtool signs it")
    parser.add_argument(
        "--key", metavar="PEM", type=Path, action="append", required=True, help="a public key that may sign; again"
    )
    parser.add_argument("--hardware", default="", metavar="VENDOR/CLASS", help="imgtool's --vid and --cid")
    parser.add_argument("--slot-bytes", type=int, default=IMAGE_BYTES_MAX, metavar="N", help="what the slot holds")
    parser.add_argument(
        "--trailer-bytes", type=int, default=0, metavar="N", help="of the slot, the boot loader's own"
    )
    parser.add_argument("--counter-min", type=int, metavar="N", help="the least security counter that is taken")
    parser.add_argument("--json", action="store_true", help="for programs")


def admitted(arguments: argparse.Namespace) -> Image:
    """The image, if a pinned key signed it and it fits.

    Raises:
        UsageError: a file cannot be read, or an option is none.
        RefusedError: the image is not for this device.
    """
    if arguments.hardware:
        try:
            hardware_ids(arguments.hardware)
        except ValueError as error:
            raise UsageError(str(error)) from error
    data = _read(arguments.image, IMAGE_BYTES_MAX + 1)
    try:
        keys = [_read(key, KEY_BYTES_MAX).decode("ascii") for key in arguments.key]
    except UnicodeDecodeError as error:
        raise UsageError(f"--key: expected public keys as PEM: {error}") from error
    image = read_image(data)
    demands = Demands(arguments.hardware, arguments.slot_bytes, arguments.trailer_bytes, arguments.counter_min)
    admit(image, demands)
    check_signature(image, keys)
    return image


def _read(file: Path, bytes_max: int) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(bytes_max)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
