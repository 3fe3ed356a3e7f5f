"""TLS for one accepted socket, on memory buffers.

Not asyncio's own: that holds 256 KiB for every connection, and closes a failed handshake without the alert that
tells the client why.
"""

import asyncio
import contextlib
import ssl
from typing import Final, Protocol

RECORD_BYTES_MAX: Final = 16_384
CLOSE_WAIT_S: Final = 2.0
"""For what was written to go out, and for the other side to hang up too."""


class Peer(Protocol):
    """Whom the decrypted bytes are for."""

    def made(self, tls: "Tls") -> None:
        """The handshake is done, and the certificate verified."""

    def data(self, data: bytes) -> None:
        """Never empty, never after :meth:`Tls.close`."""

    def blocked(self) -> None:
        """The write buffer is over its bound."""

    def unblocked(self) -> None:
        """It is not any more."""

    def failed(self, reason: str) -> None:
        """There was no handshake; :meth:`lost` follows."""

    def lost(self) -> None:
        """The socket is gone. Called once, whatever happened before."""


class Tls(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(
        self, context: ssl.SSLContext, peer: Peer, *, handshake_s: float, write_buffer_bytes_max: int
    ) -> None:
        self._peer = peer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_s = handshake_s
        self._write_buffer_bytes_max = write_buffer_bytes_max
        self._transport: asyncio.Transport | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._open = False
        self._closing = False

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=self._write_buffer_bytes_max)
        self._alarm = asyncio.get_running_loop().call_later(self._handshake_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._incoming.write(data)
        if not self._open and not self._shake_hands():
            return
        got: list[bytes] = []
        ended = False
        try:
            while chunk := self._tls.read(RECORD_BYTES_MAX):
                got.append(chunk)
            ended = True  # close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            ended = True
        if got:
            self._peer.data(b"".join(got))
        if ended:
            self.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._peer.blocked()

    def resume_writing(self) -> None:
        self._peer.unblocked()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._peer.lost()

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._peer.failed(error.reason or str(error))
            self._hang_up()  # with the alert
            return False
        self._flush()
        self._open = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._peer.made(self)
        return not self._closing

    # the peer's side

    def certificate(self) -> object:
        """The other side's, as ``getpeercert`` gives it."""
        return self._tls.getpeercert()

    def write(self, data: bytes) -> None:
        """Send, or buffer; a no-op after the end."""
        if self._closing:
            return
        self._tls.write(data)  # into memory: all of it, at once
        self._flush()

    def close(self) -> None:
        """Once what was written is sent, and the other side has hung up too: closing a socket with bytes unread
        would take the last packet from it.
        """
        if self._closing:
            return
        with contextlib.suppress(ssl.SSLError):  # it would wait for the answer; we do not
            self._tls.unwrap()
        self._hang_up()

    def abort(self) -> None:
        """At once."""
        if self._transport is not None:
            self._transport.abort()

    def _hang_up(self) -> None:
        self._flush()
        self._closing = True
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write_eof()
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(CLOSE_WAIT_S, self._transport.abort)

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing.pending:
            self._transport.write(self._outgoing.read())
