"""Lines of text to an instrument and back, over ``tcp:HOST:PORT`` or ``unix:PATH``."""

import asyncio
from typing import Final, NamedTuple

LINE_BYTES_MAX: Final = 4096


class BadAddressError(ValueError):
    """Neither ``tcp:HOST:PORT`` nor ``unix:PATH``."""


class LineError(Exception):
    """The instrument did not answer a line; the connection is closed, and the next call opens it anew."""


class Address(NamedTuple):
    """``port`` 0: *host* is the path of a socket."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Read ``tcp:HOST:PORT`` or ``unix:PATH``. Raises BadAddressError."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest:
        return Address(rest, 0)
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
        return Address(host.strip("[]"), int(port))
    raise BadAddressError(f"expected tcp:HOST:PORT or unix:PATH, got {text[:80]!r}")


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
            self.close()
            raise LineError(f"no answer within {deadline_s} s") from None
        except ValueError:  # readline's word for a line past the limit
            self.close()
            raise LineError(f"expected a line of at most {LINE_BYTES_MAX} bytes, got more") from None
        except OSError as error:
            self.close()
            raise LineError(str(error) or type(error).__name__) from error
        except asyncio.CancelledError:
            self.close()
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

    def close(self) -> None:
        """Drop the connection; idempotent."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
