"""The embedded broker on sockets: two TLS listeners as rendered for Mosquitto, in an asyncio loop.

The device listener trusts the device authority alone, and a certificate's common name is user and client id. The
server listener trusts the server authority alone: the subject is the user, and client ids are free.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mqtt5 import DisconnectReasonCode

from broker_config.embedded.bounds import BOUNDS, CONNECT_WAIT_S
from broker_config.embedded.connection import Connection
from broker_config.embedded.misbehaviour import Misbehaviour
from broker_config.embedded.router import Counters, Router
from broker_config.embedded.tls import Tls
from broker_config.ids import (
    SERVER_COMMON_NAME,
    SERVER_ORGANISATION,
    BadIdError,
    ContractError,
    SiteId,
    server_user,
    site_id,
)
from broker_config.policy import Identity, Role
from broker_config.render.mosquitto import (
    BROKER_CERTIFICATE_FILE,
    BROKER_KEY_FILE,
    DEVICE_CA_FILE,
    SERVER_CA_FILE,
)
from broker_config.text import shown

STOP_WAIT_S: Final = 2.0
"""For the last packets of a stop to go out."""
BACKLOG: Final = 1_024
"""Connections that wait to be accepted: a fleet that comes back at once."""

logger: Final = logging.getLogger(__name__)


class CannotListenError(ContractError):
    """A file is missing or not what it should be, or a port is taken; nothing listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSite:
    """The same directory and the same defaults as :class:`broker_config.render.mosquitto.MosquittoSite`."""

    directory: Path
    """With ``device-ca.crt``, ``server-ca.crt``, ``broker.crt`` and ``broker.key``."""
    site: SiteId | None = None
    """Whose server is let in; None: whichever site's the server authority has signed."""
    device_host: str | None = None
    """None: every address of the machine."""
    device_port: int = 8883
    server_host: str = "127.0.0.1"
    server_port: int = 8884
    crl_file: Path | None = None
    """Revoked devices. Once it is out of date every device is refused."""


class Embedded:
    """A broker inside this process's loop; everything that it holds is lost with :meth:`stop`.

    *misbehaviour* is for tests, and an argument so that no configuration can ask for it.
    """

    def __init__(self, site: EmbeddedSite, *, misbehaviour: Misbehaviour | None = None) -> None:
        self._site = site
        self._misbehaviour = misbehaviour
        self._router: Router | None = None
        self._servers: list[asyncio.Server] = []
        self._security: dict[Role, ssl.SSLContext] = {}
        self._open: dict[Role, set[_Peer]] = {role: set() for role in Role}

    async def start(self) -> None:
        """Listen on both ports.

        Raises:
            CannotListenError: says which file or port.
        """
        assert self._router is None, "runs already"
        site = self._site
        self.reload()
        loop = asyncio.get_running_loop()
        router = self._router = Router(loop, self._misbehaviour)
        for role, host, port in (
            (Role.DEVICE, site.device_host, site.device_port),
            (Role.SERVER, site.server_host, site.server_port),
        ):
            try:
                self._servers.append(
                    await loop.create_server(self._accept(router, role), host, port, backlog=BACKLOG)
                )
            except OSError as error:
                await self.stop()
                raise CannotListenError(f"{role} listener, port {port}: {shown(error)}") from error

    def reload(self) -> None:
        """Read certificates, keys and the list of revoked devices again; they count from the next connection on.

        Raises:
            CannotListenError: says which file; what counted before counts on.
        """
        site = self._site
        self._security = {
            Role.DEVICE: _security(site.directory, DEVICE_CA_FILE, site.crl_file),
            Role.SERVER: _security(site.directory, SERVER_CA_FILE, None),
        }

    def _accept(self, router: Router, role: Role) -> Callable[[], Tls]:
        bounds = BOUNDS[role]
        return lambda: Tls(
            self._security[role],
            _Peer(router, role, self._site.site, self._open[role]),
            handshake_s=CONNECT_WAIT_S,
            write_buffer_bytes_max=bounds.write_buffer_bytes_max,
        )

    async def stop(self) -> None:
        """Tell every client, close every connection, forget everything. No wills: nobody is left to hear them."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        peers = [peer for peers in self._open.values() for peer in peers]
        for peer in peers:
            peer.end(DisconnectReasonCode.SERVER_SHUTTING_DOWN)
        if peers:
            _, late = await asyncio.wait([asyncio.ensure_future(p.gone) for p in peers], timeout=STOP_WAIT_S)
            if late:
                for peer in peers:
                    peer.abort()
        self._router = None

    @property
    def counters(self) -> Counters:
        """Since the start."""
        assert self._router is not None, "not running"
        return self._router.counters

    @property
    def connections(self) -> Mapping[Role, int]:
        """With their handshake done."""
        return {role: len(peers) for role, peers in self._open.items()}

    @property
    def sessions(self) -> int:
        """With and without a connection."""
        return 0 if self._router is None else self._router.sessions


class _Peer:
    """One socket: who it is, and its connection once that is known."""

    def __init__(self, router: Router, role: Role, site: SiteId | None, peers: "set[_Peer]") -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._router = router
        self._role = role
        self._site = site
        self._peers = peers
        self._tls: Tls | None = None
        self._connection: Connection | None = None

    def made(self, tls: Tls) -> None:
        self._tls = tls
        if len(self._peers) >= BOUNDS[self._role].connections_max:
            logger.warning("connection refused", extra={"role": self._role, "connections": len(self._peers)})
            tls.abort()
            return
        try:
            identity = identify(self._role, tls.certificate(), self._site)
        except BadIdError as error:
            logger.warning("certificate refused", extra={"role": self._role, "reason": shown(error)})
            tls.close()
            return
        self._peers.add(self)
        self._connection = Connection(self._router, tls, identity)

    def data(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.receive(data)

    def blocked(self) -> None:
        if self._connection is not None:
            self._connection.block()

    def unblocked(self) -> None:
        if self._connection is not None:
            self._connection.unblock()

    def failed(self, reason: str) -> None:
        logger.info("handshake failed", extra={"role": self._role, "reason": shown(reason)})

    def lost(self) -> None:
        connection, self._connection = self._connection, None
        self._peers.discard(self)
        if connection is not None:
            connection.lost()
            if connection.ended:
                who = {"role": self._role, "client": shown(connection.identity.name), "reason": connection.ended}
                logger.info("connection ended", extra=who)
        if not self.gone.done():
            self.gone.set_result(None)

    def end(self, reason: DisconnectReasonCode) -> None:
        """Say *reason* and close."""
        if self._connection is not None:
            self._connection.end(reason)

    def abort(self) -> None:
        """Close at once."""
        if self._tls is not None:
            self._tls.abort()


def identify(role: Role, certificate: object, site: SiteId | None) -> Identity:
    """Who a certificate that TLS has verified says it is; *certificate* is what ``getpeercert`` gives.

    Raises:
        BadIdError: no or several common names on a device's; on a server's any subject but that of *site*'s server.
    """
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    names = [tuple(pair) for level in subject for pair in level]
    if role is Role.DEVICE:
        common = [value for name, value in names if name == "commonName"]
        if len(common) != 1:
            raise BadIdError(f"device certificate: expected one common name, got {len(common)}")
        return Identity(role, common[0])
    units = [value for name, value in names if name == "organizationalUnitName"]
    expected = [
        ("commonName", SERVER_COMMON_NAME),
        ("organizationName", SERVER_ORGANISATION),
        ("organizationalUnitName", site or (units or [""])[0]),
    ]
    if names != expected:
        raise BadIdError(f"server certificate: expected the server of {site or 'a site'}, got {shown(names)}")
    return Identity(role, server_user(site_id(expected[2][1])))


def _security(directory: Path, ca_file: str, crl_file: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # No resumption: every connection shows its certificate, and a revoked one is seen to be.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    files = (directory / BROKER_CERTIFICATE_FILE, directory / BROKER_KEY_FILE, directory / ca_file)
    missing = [str(file) for file in (*files, *([crl_file] if crl_file else [])) if not file.is_file()]
    if missing:
        raise CannotListenError(f"no such file: {', '.join(missing)}")
    try:
        context.load_cert_chain(files[0], files[1])
        context.load_verify_locations(files[2])
        if crl_file is not None:
            context.load_verify_locations(crl_file)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except OSError as error:  # ssl.SSLError is one
        raise CannotListenError(f"{directory}: certificates or key: {shown(error)}") from error
    return context


async def _reload_when(broker: Embedded, asked: asyncio.Event) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            broker.reload()
        except CannotListenError as error:
            logger.warning("not reloaded; what counted before counts on", extra={"reason": shown(error)})
        else:
            logger.info("reloaded")


async def serve(site: EmbeddedSite, stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Run a broker until *stop* is set, and have it reload each time that *reload* is. Raises CannotListenError."""
    broker = Embedded(site)
    await broker.start()
    logger.info("listening", extra={"device_port": site.device_port, "server_port": site.server_port})
    reloading = asyncio.create_task(_reload_when(broker, reload))
    try:
        await stop.wait()
    finally:
        reloading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await broker.stop()
