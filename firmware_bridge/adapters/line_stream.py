"""Lines that somebody sends unasked over TCP: after any end of the connection it is opened again, for as long as it
takes.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from firmware_bridge.adapters.tcp_stream import HUNG_UP, TcpStream

SILENT_S: Final = 60.0
"""After so long without a line the connection is opened anew: the other end may be gone without a word."""


class LineStream(TcpStream):
    """*heard* gets each line without its end; the others are :class:`TcpStream`'s."""

    def __init__(
        self,
        host: str,
        port: int,
        greeting: bytes,
        *,
        line_bytes_max: int,
        heard: Callable[[bytes], None],
        changed: Callable[[str], None],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(host, port, changed=changed, greeting=greeting, buffer_bytes=line_bytes_max, uniform=uniform)
        self._line_bytes_max = line_bytes_max
        self._heard = heard

    async def _hear(self, reader: asyncio.StreamReader) -> str:
        while True:
            try:
                async with asyncio.timeout(SILENT_S):
                    line = await reader.readline()
            except TimeoutError:
                return f"silent for {SILENT_S:g} s"
            except ValueError:  # readline's word for a line past the limit
                return f"expected a line of at most {self._line_bytes_max} bytes, got more"
            if not line.endswith(b"\n"):
                return HUNG_UP
            self._heard(line.rstrip(b"\r\n"))
