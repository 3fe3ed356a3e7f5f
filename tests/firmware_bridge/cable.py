"""A cable to a device, which a test can pull."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from tests.servers import HOST

PIECE_BYTES: Final = 4096


@dataclass(slots=True)
class Cable:
    """``port`` here leads to ``far_port()``. ``carried``: bytes that went to the device. ``pulls``: after how many it
    is pulled, smallest first.
    """

    far_port: Callable[[], int]
    pulls: list[int] = field(default_factory=list)
    carried: int = 0
    pulled: int = 0
    port: int = 0
    _ways: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def at(self) -> str:
        return f"tcp:{HOST}:{self.port}"

    def pull(self) -> None:
        """Break what is connected; the next connection works."""
        self.pulled += 1
        for way in self._ways:
            way.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = asyncio.current_task()
        assert way is not None
        self._ways.add(way)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(HOST, self.far_port())
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(far_reader, writer, counts=False))
                ways.create_task(self._carry(reader, far, counts=True))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass
        finally:
            self._ways.discard(way)
            for each in (writer, far):
                if each is not None:
                    each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool) -> None:
        while data := await reader.read(PIECE_BYTES):
            if counts:
                self.carried += len(data)
                if self.pulls and self.carried >= self.pulls[0]:
                    del self.pulls[0]
                    self.pull()
                    return
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def cable(far_port: Callable[[], int], *, pulls: tuple[int, ...] = ()) -> AsyncIterator[Cable]:
    """It lies there until the block ends."""
    found = Cable(far_port, list(pulls))
    server = await asyncio.start_server(found._connected, HOST, 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        found.pull()
