"""A TCP connection to an instrument that comes back: after any end it is opened again, for as long as it takes."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta, Struct

from firmware_bridge.adapters import question_bus
from firmware_bridge.adapters.question_bus import PortClosedError, QuestionBus
from firmware_bridge.adapters.tcp_stream import HUNG_UP, TcpStream

CHUNK_BYTES: Final = 4096
UNSENT_BYTES_MAX: Final = 65_536


class TcpOptions(Struct, frozen=True, kw_only=True):
    """Where it is."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)]

    @property
    def name(self) -> str:
        """Of the port, in this process."""
        return f"tcp:{self.host}:{self.port}"


class TcpPort(TcpStream):
    """See :class:`firmware_bridge.adapters.question_bus.Port`."""

    def __init__(
        self, options: TcpOptions, *, heard: Callable[[bytes], None], changed: Callable[[str], None]
    ) -> None:
        super().__init__(options.host, options.port, changed=changed)
        self._heard = heard

    def send(self, data: bytes) -> None:
        """See Port."""
        writer = self._writer
        if writer is None or self.closed_because:
            raise PortClosedError(self.closed_because)
        if writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            raise PortClosedError("the other end takes no bytes")
        writer.write(data)

    async def _hear(self, reader: asyncio.StreamReader) -> str:
        while data := await reader.read(CHUNK_BYTES):
            self._heard(data)
        return HUNG_UP


def joined(options: TcpOptions) -> QuestionBus:
    """The bus of that connection; see :func:`firmware_bridge.adapters.question_bus.join`."""
    return question_bus.join(options.name, lambda heard, changed: TcpPort(options, heard=heard, changed=changed))
