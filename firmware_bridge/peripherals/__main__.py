"""``python -m firmware_bridge.peripherals``: play an instrument at the end of a terminal or port, until SIGTERM.

It prints the link once it is there. Exit codes: 0 done, 1 the link cannot be made, 2 wrong usage.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from firmware_bridge.peripherals.play import Instrument, playing


async def _play(instrument: Instrument, link: Path, seed: int, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with playing(instrument, link, seed, port):
        print(link, flush=True)
        await stop.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring for the exit codes."""
    parser = argparse.ArgumentParser(
        prog="python -m firmware_bridge.peripherals",
        description="Plays an instrument for the demo and for tests; nothing that it says was measured.",
        epilog="example: python -m firmware_bridge.peripherals gnss --link /run/demo/gnss --seed 7",
    )
    parser.add_argument("instrument", choices=[each.value for each in Instrument])
    parser.add_argument("--link", type=Path, required=True, metavar="PATH", help="symbolic link to the terminal")
    parser.add_argument("--seed", type=int, default=1, help="the same seed plays the same (default 1)")
    parser.add_argument("--port", type=int, default=0, help="of the loopback, for what is on a network")
    arguments = parser.parse_args(argv)
    if (arguments.instrument == Instrument.NTCIP_CONTROLLER) != bool(arguments.port):
        parser.error(f"--port: expected one for {Instrument.NTCIP_CONTROLLER} and no other, got {arguments.port}")
    try:
        asyncio.run(_play(Instrument(arguments.instrument), arguments.link, arguments.seed, arguments.port))
    except OSError as error:
        print(f"peripherals: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
