"""``firmware-bridge write``: set what the driver's own list lets, read it back and compare."""

import argparse

from broker_config.text import shown
from firmware_bridge.cli import wiring
from firmware_bridge.cli.images import UsageError


def add_write(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    parser = commands.add_parser(
        "write",
        help="set an instrument, as far as its options let it be written",
        description="Each setting is written, read back and compared.\n"
        "Only what the options list (writable) is ever written: here as in a profile.\n"
        "  firmware-bridge write --driver ntcip1202 -o at=udp:192.0.2.20 -o community=public \\\n"
        "    -o 'writable.plan=[1,2,254]' plan=2\n",
        epilog=wiring.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    wiring.add_wiring(parser)
    parser.add_argument("settings", nargs="+", metavar="SETTING=NUMBER", help="what it is to be")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see wiring.EXIT_CODES."""
    try:
        settings = dict(map(_setting, arguments.settings))
        wired = wiring.wiring(arguments)
    except UsageError as error:
        return wiring.refused("write", error)
    results = wiring.run(wired, lambda driver: driver.write(settings, arguments.deadline_s))
    return wiring.say_rows(results, as_json=arguments.json)


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"expected SETTING=NUMBER, got {shown(text)!r}") from None
