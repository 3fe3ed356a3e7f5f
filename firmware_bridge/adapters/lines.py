"""Lines of text to an instrument and back, over ``tcp:HOST:PORT``, ``unix:PATH`` or ``serial:PATH``."""

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from firmware_bridge.adapters import question_bus
from firmware_bridge.adapters.question_bus import NoAnswerError, PortClosedError, QuestionBus

if TYPE_CHECKING:
    from firmware_bridge.adapters.serial_port import SerialOptions

LINE_BYTES_MAX: Final = 4096
SERIAL: Final = -1


class BadAddressError(ValueError):
    """Not of a form that is known."""


class LineError(Exception):
    """The instrument did not answer a line; the connection is closed, and the next call opens it anew."""


class Address(NamedTuple):
    """``port`` 0: *host* is the path of a socket; -1: of a serial port."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Read ``tcp:HOST:PORT``, ``unix:PATH`` or ``serial:PATH``. Raises BadAddressError."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest:
        return Address(rest, 0)
    if scheme == "serial" and rest:
        return Address(rest, SERIAL)
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
        return Address(host.strip("[]"), int(port))
    raise BadAddressError(f"expected tcp:HOST:PORT, unix:PATH or serial:PATH, got {text[:80]!r}")


class Asks(Protocol):
    """Whoever can ask an instrument."""

    async def ask(self, question: bytes, deadline_s: float) -> bytes:
        """Send *question* and return the next line without its end.

        Raises:
            LineError: no connection, no whole line within *deadline_s*, or one longer than LINE_BYTES_MAX.
        """

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""


class SerialLine:
    """One question, one answer over a serial port that other questions may share."""

    def __init__(self, options: "SerialOptions") -> None:
        from firmware_bridge.adapters import serial_port  # noqa: PLC0415  # its library loads only where it is needed

        self._serial = serial_port
        self._options = options
        self._bus: QuestionBus | None = None

    async def ask(self, question: bytes, deadline_s: float) -> bytes:
        """See Asks."""
        if self._bus is None:
            self._bus = self._serial.joined(self._options)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._bus.ask(question, _first_line, timeout_s=deadline_s)
        except TimeoutError:
            raise LineError(f"no answer within {deadline_s} s") from None
        except (PortClosedError, NoAnswerError) as error:
            raise LineError(str(error)) from error

    async def close(self) -> None:
        """See Asks."""
        bus, self._bus = self._bus, None
        if bus is not None:
            await question_bus.leave(self._options.port, bus)


def _first_line(came: bytes) -> bytes | None:
    line, end, _ = came.partition(b"\n")
    return line.rstrip(b"\r") if end else None


class LineClient:
    """One question, one answer. After any fault the connection is dropped: a late answer must never be taken for
    the answer to the next question.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, question: bytes, deadline_s: float) -> bytes:
        """Send *question* and return the next line without its end. Opens the connection if need be.

        Raises:
            LineError: no connection, no whole line within *deadline_s*, or one longer than LINE_BYTES_MAX.
        """
        try:
            async with asyncio.timeout(deadline_s):
                return await self._ask(question)
        except TimeoutError:
            self._drop()
            raise LineError(f"no answer within {deadline_s} s") from None
        except ValueError:  # readline's word for a line past the limit
            self._drop()
            raise LineError(f"expected a line of at most {LINE_BYTES_MAX} bytes, got more") from None
        except OSError as error:
            self._drop()
            raise LineError(str(error) or type(error).__name__) from error
        except asyncio.CancelledError:
            self._drop()
            raise

    async def _ask(self, question: bytes) -> bytes:
        if self._streams is None:
            host, port = self._address
            if port:
                self._streams = await asyncio.open_connection(host, port, limit=LINE_BYTES_MAX)
            else:
                self._streams = await asyncio.open_unix_connection(host, limit=LINE_BYTES_MAX)
        reader, writer = self._streams
        writer.write(question)
        await writer.drain()
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the other end closed the connection")
        return line.rstrip(b"\r\n")

    async def close(self) -> None:
        """See Asks."""
        self._drop()

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
