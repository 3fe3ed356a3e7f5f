"""A TCP connection to an instrument that comes back: after any end it is opened again, for as long as it takes."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta, Struct

from broker_config.text import shown
from firmware_bridge import reopening
from firmware_bridge.adapters import question_bus
from firmware_bridge.adapters.question_bus import PortClosedError, QuestionBus

CONNECT_S: Final = 5.0
CHUNK_BYTES: Final = 4096
UNSENT_BYTES_MAX: Final = 65_536
_NOT_YET: Final = "not open yet"


class TcpOptions(Struct, frozen=True, kw_only=True):
    """Where it is."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)]

    @property
    def name(self) -> str:
        """Of the port, in this process."""
        return f"tcp:{self.host}:{self.port}"


class TcpPort:
    """See :class:`firmware_bridge.adapters.question_bus.Port`."""

    def __init__(
        self,
        options: TcpOptions,
        *,
        heard: Callable[[bytes], None],
        changed: Callable[[str], None],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._options = options
        self._heard = heard
        self._changed = changed
        self._uniform = uniform
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.closed_because = _NOT_YET

    @property
    def opening(self) -> bool:
        """See Port."""
        return self.closed_because == _NOT_YET

    def start(self) -> None:
        """See Port."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def send(self, data: bytes) -> None:
        """See Port."""
        writer = self._writer
        if writer is None or self.closed_because:
            raise PortClosedError(self.closed_because)
        if writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            raise PortClosedError("the other end takes no bytes")
        writer.write(data)

    async def close(self) -> None:
        """See Port."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

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
        """Open it and hear it until it ends; returns why."""
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, self._writer = await asyncio.open_connection(self._options.host, self._options.port)
            self._state_is("")
            while data := await reader.read(CHUNK_BYTES):
                self._heard(data)
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
        return "the other end closed the connection"

    def _state_is(self, why: str) -> None:
        self.closed_because = why
        self._changed(why)


def joined(options: TcpOptions) -> QuestionBus:
    """The bus of that connection; see :func:`firmware_bridge.adapters.question_bus.join`."""
    return question_bus.join(options.name, lambda heard, changed: TcpPort(options, heard=heard, changed=changed))
