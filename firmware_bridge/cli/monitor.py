"""``firmware-bridge monitor``: what an instrument reads, again and again."""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence

from firmware_bridge.cli import wiring
from firmware_bridge.cli.images import UsageError
from firmware_bridge.driver import Driver


def add_monitor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to *commands*."""
    parser = commands.add_parser(
        "monitor",
        help="read an instrument again and again",
        description=wiring.HOW.format(command="monitor", more=" temp_c --every-s 0.5 --json"),
        epilog=f"{wiring.EXIT_CODES}; the last reading counts. With --json a line is a reading, with its time.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    wiring.add_wiring(parser)
    parser.add_argument(
        "--every-s", type=wiring.seconds, default=1.0, metavar="S", help="from one reading to the next"
    )
    parser.add_argument("--count", type=int, metavar="N", help="so many readings; else until it is ended (Ctrl-C)")
    parser.add_argument("points", nargs="*", metavar="POINT", help="what is read; all that the driver knows of")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: see wiring.EXIT_CODES."""
    try:
        wired = wiring.wiring(arguments)
        points = wiring.asked(arguments, wired)
    except UsageError as error:
        return wiring.refused("monitor", error)
    last = [wiring.OK]
    with contextlib.suppress(KeyboardInterrupt):
        wiring.run(wired, lambda driver: _watch(driver, points, arguments, last))
    return last[0]


async def _watch(driver: Driver, points: Sequence[str], arguments: argparse.Namespace, last: list[int]) -> None:
    """Writes each reading; *last* is its code."""
    loop = asyncio.get_running_loop()
    began_s, at = loop.time(), 0
    while arguments.count is None or at < arguments.count:
        at += 1
        results = await driver.read(points, arguments.deadline_s)
        if not arguments.json:
            sys.stdout.write(time.strftime("-- %H:%M:%S\n"))
        more = {"at_ms": time.time_ns() // 1_000_000}
        last[0] = wiring.say_rows(results, as_json=arguments.json, more=more)
        if at != arguments.count:
            await asyncio.sleep(max(0.0, began_s + at * arguments.every_s - loop.time()))
