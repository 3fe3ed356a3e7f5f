"""A small HTTPS listener in a thread of its own, beside the API's: bounded, and ended with the server."""

import asyncio
import socket
import ssl
import threading
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX: Final = 64
KEEP_ALIVE_S: Final = 5
BACKLOG: Final = 64
STOP_S: Final = 5.0
CONNECTION_S_MAX: Final = 60.0
"""However busy it is; nothing here takes a second."""


class _Bounded(H11Protocol):
    """A connection that ends: strangers may connect here, and some only to stay."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
        else:
            self.loop.call_later(CONNECTION_S_MAX, transport.abort)


class HttpsListener:
    """Serves *app* on *listener* until :meth:`stop`."""

    def __init__(self, app: ASGIApp, listener: socket.socket, *, cert_file: Path, key_file: Path, name: str) -> None:
        """Raises OSError, ssl.SSLError: the certificate or the key is not what it should be."""
        config = uvicorn.Config(
            app,
            http=_Bounded,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who asks is who is connected, whatever they say
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
            ssl_certfile=str(cert_file),
            ssl_keyfile=str(key_file),
        )
        config.load()
        assert config.ssl is not None
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name=name, daemon=True
        )

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what is under way, within STOP_S."""
        self._server.should_exit = True
        self._thread.join(STOP_S)
