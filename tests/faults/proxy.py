"""A TCP link that can be cut: reset, half-open (both sides believe in it, nothing passes), slow, or as narrow as a
modem's: one first-in-first-out queue each way, which all connections share."""

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum
from typing import Final

from tests.servers import HOST

CHUNK_BYTES: Final = 65_536
SLOW_CHUNK_BYTES: Final = 64
QUEUE_BYTES: Final = 128 * 1024
NARROW_BYTES: Final = 4_096
NARROW_PIECE_BYTES: Final = 1_460
SLOW_S: Final = 0.02
"""A slow link passes so many bytes in so long: 3.2 kB/s each way."""


class Mode(StrEnum):
    """What the link does with bytes and with new connections."""

    OPEN = "open"
    REFUSED = "refused"
    HALF_OPEN = "half_open"
    SLOW = "slow"


class Narrow:
    """One way of a link: *rate_bytes_s* pass, *queue_bytes_max* wait; who has more to send is not read."""

    def __init__(self, rate_bytes_s: float, queue_bytes_max: int) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._queue_s_max = queue_bytes_max / rate_bytes_s
        self._free_s = 0.0

    async def pass_through(self, size: int) -> None:
        """Return when so many bytes, behind all that came before them, have passed."""
        now_s = asyncio.get_running_loop().time()
        self._free_s = max(self._free_s, now_s) + size / self._rate_bytes_s
        await asyncio.sleep(self._free_s - now_s)

    async def room(self) -> None:
        """Return when the queue is short enough to take more."""
        over_s = self._free_s - asyncio.get_running_loop().time() - self._queue_s_max
        if over_s > 0:
            await asyncio.sleep(over_s)


class Proxy:
    """Lives in one event loop; ``switch`` is called there too. *rate_bytes_s* 0: as fast as it goes."""

    def __init__(self, to_port: int, *, rate_bytes_s: float = 0, queue_bytes_max: int = QUEUE_BYTES) -> None:
        self._to_port = to_port
        self._narrow = (
            (Narrow(rate_bytes_s, queue_bytes_max), Narrow(rate_bytes_s, queue_bytes_max)) if rate_bytes_s else None
        )
        self._mode = Mode.OPEN
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server
        self.port = 0
        self.bytes_swallowed = 0

    async def start(self) -> None:
        """Listen on a free port."""
        if self._narrow is None:
            self._server = await asyncio.start_server(self._accept, HOST, 0)
        else:
            # what waits, waits in the one queue: the kernel's own are as short as it makes them
            listening = socket.create_server((HOST, 0))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
            self._server = await asyncio.start_server(self._accept, sock=listening, limit=NARROW_BYTES)
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
                there, back = self._narrow or (None, None)
                await asyncio.gather(
                    self._pump(reader, far_writer, pair, there), self._pump(far_reader, writer, pair, back)
                )
            else:
                await self._swallow(reader)
        except (
            OSError,
            asyncio.CancelledError,
        ):  # which asyncio's streams complain of
            pair.reset()
        finally:
            self._pairs.discard(pair)
            pair.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: "_Pair", narrow: Narrow | None
    ) -> None:
        if narrow is not None:
            await self._squeeze(reader, writer, pair, narrow)
            return
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

    async def _squeeze(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: "_Pair", narrow: Narrow
    ) -> None:
        """Read what the queue has room for; each piece leaves at its time, in order."""
        leaving: asyncio.Queue[asyncio.Task[bytes]] = asyncio.Queue()

        async def wait(data: bytes) -> bytes:
            await narrow.pass_through(len(data))
            return data

        async def leave() -> None:
            while True:
                data = await (await leaving.get())
                if not data:
                    return
                if not pair.dead:
                    writer.write(data)
                    await writer.drain()

        out = asyncio.create_task(leave())
        try:
            while data := await reader.read(NARROW_PIECE_BYTES):
                leaving.put_nowait(asyncio.create_task(wait(data)))
                await narrow.room()
            leaving.put_nowait(asyncio.create_task(wait(b"")))
            await out
        finally:
            out.cancel()
        if not pair.dead:
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
