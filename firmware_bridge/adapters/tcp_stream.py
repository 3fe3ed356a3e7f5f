"""A TCP connection that comes back: after any end it is opened again, for as long as it takes."""

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from broker_config.text import shown
from firmware_bridge import reopening

CONNECT_S: Final = 5.0
HUNG_UP: Final = "the other end closed the connection"
_NOT_YET: Final = "not open yet"


class TcpStream(ABC):
    """*changed* is told when it has opened (empty) or closed (why). *greeting* is sent at each opening.

    ``closed_because``: empty while it is open.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        changed: Callable[[str], None],
        greeting: bytes = b"",
        buffer_bytes: int = 65_536,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._address = (host, port)
        self._changed = changed
        self._greeting = greeting
        self._buffer_bytes = buffer_bytes
        self._uniform = uniform
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.closed_because = _NOT_YET

    @property
    def opening(self) -> bool:
        """Whether the first attempt has not ended yet."""
        return self.closed_because == _NOT_YET

    def start(self) -> None:
        """Begin to open it; idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @abstractmethod
    async def _hear(self, reader: asyncio.StreamReader) -> str:
        """Hear it until it ends; returns why."""

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began_s = loop.time()
            why = await self._once()
            failures = 1 if loop.time() - began_s >= reopening.STABLE_S else failures + 1
            self._state_is(why)
            await asyncio.sleep(reopening.delay_s(failures, self._uniform))

    async def _once(self) -> str:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, self._writer = await asyncio.open_connection(*self._address, limit=self._buffer_bytes)
                self._writer.write(self._greeting)
                await self._writer.drain()
            self._state_is("")
            return await self._hear(reader)
        except TimeoutError:
            return f"no connection within {CONNECT_S:g} s"
        except OSError as error:
            return shown(error.strerror or error) or type(error).__name__
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def _state_is(self, why: str) -> None:
        self.closed_because = why
        self._changed(why)
