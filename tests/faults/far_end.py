"""The sensors' far end: a process of its own that speaks ``ascii_query`` and writes down what it gave away.

``python -m tests.faults.far_end --witness FILE`` says ``{"cpu": PORT, ...}`` on its first line of output, then serves
until it is killed. It outlives every fault: nothing of the product writes the witness.
"""

import argparse
import asyncio
import json
import time
from functools import partial
from pathlib import Path
from typing import TextIO

from tests.faults.witness import CARRIERS, Emitted, line, values
from tests.servers import HOST


class Sensor:
    """One stream's instrument; N is its own, whoever asks."""

    def __init__(self, stream: str, witness: TextIO) -> None:
        self._stream = stream
        self._witness = witness
        self._n = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each line of a connection with one reading, written down first."""
        try:
            while await reader.readline():
                self._n += 1
                self._witness.write(line(Emitted(self._stream, self._n, time.monotonic())))
                self._witness.flush()
                answer = " ".join(f"{name}={value!r}" for name, value in values(self._stream, self._n).items())
                writer.write(answer.encode("ascii") + b"\n")
                await writer.drain()
        except OSError:
            pass  # who asked was killed
        finally:
            writer.close()


async def serve(witness: TextIO) -> None:
    """Open a port for each stream, tell them, and answer for ever."""
    servers = {
        stream: await asyncio.start_server(partial(Sensor.serve, Sensor(stream, witness)), HOST, 0)
        for stream in CARRIERS
    }
    ports = {stream: server.sockets[0].getsockname()[1] for stream, server in servers.items()}
    print(json.dumps(ports), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers.values()))


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--witness", type=Path, required=True)
    with parser.parse_args().witness.open("a", encoding="ascii") as witness:
        asyncio.run(serve(witness))


if __name__ == "__main__":
    main()
