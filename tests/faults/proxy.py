"""A TCP link that can be cut: reset, half-open (both sides believe in it, nothing passes) or slow."""

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum
from typing import Final

from tests.servers import HOST

CHUNK_BYTES: Final = 65_536
SLOW_CHUNK_BYTES: Final = 64
SLOW_S: Final = 0.02
"""A slow link passes so many bytes in so long: 3.2 kB/s each way."""


class Mode(StrEnum):
    """What the link does with bytes and with new connections."""

    OPEN = "open"
    REFUSED = "refused"
    HALF_OPEN = "half_open"
    SLOW = "slow"


class Proxy:
    """Lives in one event loop; ``switch`` is called there too."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._mode = Mode.OPEN
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server
        self.port = 0
        self.bytes_swallowed = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End every connection, and listen no more."""
        self.reset()
        self._server.close()

    def switch(self, mode: Mode) -> None:
        """From now on. What was half-open stays dead when the link is open again: only new connections pass."""
        self._mode = mode
        for pair in self._pairs:
            pair.dead = pair.dead or mode is Mode.HALF_OPEN
            pair.slow = mode is Mode.SLOW

    def reset(self) -> None:
        """Every connection ends with RST, both ways."""
        for pair in tuple(self._pairs):
            pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(self, writer)
        if self._mode is Mode.REFUSED:
            pair.reset()
            return
        pair.dead, pair.slow = self._mode is Mode.HALF_OPEN, self._mode is Mode.SLOW
        self._pairs.add(pair)
        try:
            if not pair.dead:
                far_reader, far_writer = await asyncio.open_connection(HOST, self._to_port)
                pair.far = far_writer
                await asyncio.gather(self._pump(reader, far_writer, pair), self._pump(far_reader, writer, pair))
            else:
                await self._swallow(reader)
        except OSError:
            pair.reset()
        finally:
            self._pairs.discard(pair)
            pair.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: "_Pair") -> None:
        while data := await reader.read(SLOW_CHUNK_BYTES if pair.slow else CHUNK_BYTES):
            if pair.dead:
                self.bytes_swallowed += len(data)
                continue
            writer.write(data)
            await writer.drain()
            if pair.slow:
                await asyncio.sleep(SLOW_S)
        if not pair.dead:  # a half-open link does not pass the end on either
            with suppress(OSError, RuntimeError):
                writer.write_eof()

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            self.bytes_swallowed += len(data)


class _Pair:
    """One connection and its continuation."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = near
        self.far: asyncio.StreamWriter | None = None
        self.dead = False
        self.slow = False

    def reset(self) -> None:
        for writer in (self._near, self.far):
            if writer is None:
                continue
            plain = writer.get_extra_info("socket")
            with suppress(OSError):
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        for writer in (self._near, self.far):
            if writer is not None:
                writer.close()
