"""``python -m fleet_server.cli.demo.link``: the network between one device and the broker. Cut it by killing it.

It carries bytes and knows nothing of them; TLS is between the two ends. Exit codes: 0 ended as asked, 1 the port is
taken, 2 wrong usage.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from typing import Final

CHUNK_BYTES: Final = 65_536
LOOPBACK: Final = "127.0.0.1"


async def _carry(listen: int, to: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, to)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, far_writer))
                both.create_task(_pump(far_reader, writer))
        writer.close()

    await asyncio.start_server(join, LOOPBACK, listen)
    await stop.wait()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


def main() -> int:
    """See the module's docstring for the exit codes."""
    parser = argparse.ArgumentParser(
        prog="python -m fleet_server.cli.demo.link", description="A link that can be cut."
    )
    parser.add_argument("--listen", type=int, required=True, metavar="PORT", help="where the device connects")
    parser.add_argument("--to", type=int, required=True, metavar="PORT", help="where the broker listens")
    arguments = parser.parse_args()
    try:
        asyncio.run(_carry(arguments.listen, arguments.to))
    except OSError as error:
        print(f"link: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
