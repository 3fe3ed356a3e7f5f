"""``firmware-bridge probe``: who an instrument says it is, and whether that is who is meant."""

import argparse
import json
import sys

from firmware_bridge.cli import wiring
from firmware_bridge.cli.images import UsageError
from firmware_bridge.readings import Failed


def add_probe(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    parser = commands.add_parser(
        "probe",
        help="ask an instrument who it is",
        description=wiring.HOW.format(command="probe", more=" -o identity_query='*IDN?'"),
        epilog="exit codes: 0 it told; 1 it did not answer, or cannot be asked; 2 wrong usage; "
        "3 it is another one than --serial names",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    wiring.add_wiring(parser)
    parser.add_argument("--serial", metavar="NUMBER", help="the serial number that is expected")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see its help."""
    try:
        wired = wiring.wiring(arguments)
    except UsageError as error:
        return wiring.refused("probe", error)
    found = wiring.run(wired, lambda driver: driver.identify(arguments.deadline_s))
    if isinstance(found, Failed):
        code, told = wiring.FAILED, {"fault": found.why}
    else:
        another = arguments.serial is not None and found.serial != arguments.serial
        code, told = wiring.ANOTHER if another else wiring.OK, dict(found._asdict())
    if arguments.json:
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        sys.stdout.writelines(f"{name:<9} {value or 'not told'}\n" for name, value in told.items())
    if code == wiring.ANOTHER:
        sys.stderr.write(f"firmware-bridge probe: expected serial number {arguments.serial}\n")
    return code
