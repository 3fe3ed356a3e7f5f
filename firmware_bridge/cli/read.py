"""``firmware-bridge read``: what an instrument reads now."""

import argparse

from firmware_bridge.cli import wiring
from firmware_bridge.cli.images import UsageError


def add_read(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    parser = commands.add_parser(
        "read",
        help="read an instrument once",
        description=wiring.HOW.format(command="read", more=" temp_c humidity_pct"),
        epilog=wiring.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    wiring.add_wiring(parser)
    parser.add_argument("points", nargs="*", metavar="POINT", help="what is read; all that the driver knows of")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see wiring.EXIT_CODES."""
    try:
        wired = wiring.wiring(arguments)
        points = wiring.asked(arguments, wired)
    except UsageError as error:
        return wiring.refused("read", error)
    results = wiring.run(wired, lambda driver: driver.read(points, arguments.deadline_s))
    return wiring.say_rows(results, as_json=arguments.json)
