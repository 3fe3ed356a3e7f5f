"""``firmware-bridge verify``: whether an image is fit for a device; no device is touched."""

import argparse
import json
import sys
from typing import Any, Final

from firmware_bridge.cli.images import EXIT_CODES, OK, REFUSED, USAGE, UsageError, add_demands, admitted
from firmware_bridge.firmware.images import RefusedError

EXAMPLE: Final = "example: firmware-bridge verify dock-1.4.0.bin --key release.pub.pem --hardware police.example/dock"


def add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    parser = commands.add_parser(
        "verify", help="check an image as an update would", epilog=f"{EXAMPLE}. {EXIT_CODES}"
    )
    add_demands(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see EXIT_CODES."""
    found: dict[str, Any]
    try:
        image = admitted(arguments)
    except UsageError as error:
        sys.stderr.write(f"firmware-bridge verify: {error}\n")
        return USAGE
    except RefusedError as error:
        found = {"admitted": False, "fault": error.fault, "why": str(error)}
    else:
        found = {
            "admitted": True,
            "version": image.version,
            "hash": image.tlv_hash.hex(),
            "sha256": image.file_sha256.hex(),
            "bytes": len(image.data),
            "security_counter": image.counter,
        }
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    elif found["admitted"]:
        sys.stdout.writelines(f"{name:<17} {value}\n" for name, value in found.items() if name != "admitted")
    else:
        sys.stdout.write(f"refused, {found['fault']}: {found['why']}\n")
    return OK if found["admitted"] else REFUSED
