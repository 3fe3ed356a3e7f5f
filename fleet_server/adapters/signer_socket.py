"""The signer as a process of its own, and how the server speaks to it: one line each way for a request, and several
requests a connection, each after the answer to the one before.

The socket is for its owner only, and the kernel says who is at the other end.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Raw, Struct

from broker_config import signing
from broker_config.signing import Kind
from broker_config.text import shown
from fleet_server.access.signing import Issuer, RefusedError, Request, SignerError, read_request
from fleet_server.adapters.files import PRIVATE_DIRECTORY, write_durably

log = structlog.get_logger()

REQUEST_BYTES_MAX: Final = signing.ENVELOPE_BYTES_MAX
ANSWER_BYTES_MAX: Final = 2 * signing.ENVELOPE_BYTES_MAX
WAIT_S: Final = 5.0
CONNECTIONS_MAX: Final = 64
REQUESTS_MAX: Final = 64
"""Of one connection."""
BACKLOG: Final = 64
SOCKET_UMASK: Final = 0o177
SHARED_SOCKET_UMASK: Final = 0o111
"""Where another user may ask: the kernel says who connected, and that alone decides."""
COUNTER_BYTES_MAX: Final = 32
_PEER: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)


class _Answer(Struct, frozen=True, omit_defaults=True):
    envelope: Raw = Raw()
    refused: str = ""
    failed: str = ""


# The counter --------------------------------------------------------------------------------------------------------


def read_counter(path: Path) -> int:
    """The highest that may have been used; 0 if there is none. Raises OSError, SignerError."""
    try:
        with path.open("rb") as file:
            return int(file.read(COUNTER_BYTES_MAX))
    except FileNotFoundError:
        return 0
    except ValueError as error:
        # to begin anew could repeat a counter
        raise SignerError(f"{path}: expected a number; if it is lost for good, write the time in ms there") from error


def keep_counter(path: Path, counter: int) -> None:
    """Durable once it returns, in a directory that is made if need be. Raises OSError."""
    path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    write_durably(path, b"%d\n" % counter)


# The signer's side --------------------------------------------------------------------------------------------------


class SignerServer:
    """``run`` it once. ``uids``: who may ask."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        uids: frozenset[int],
        now_ms: Callable[[], int],
        mono_ms: Callable[[], int],
    ) -> None:
        self._issuer = issuer
        self._uids = uids
        self._now_ms = now_ms
        self._mono_ms = mono_ms
        self._connections = 0

    async def run(self, path: Path, stop: asyncio.Event) -> None:
        """Serve until *stop* is set. Raises OSError: no socket can be there, or another signer has it."""
        listening = _listen(path, SHARED_SOCKET_UMASK if self._uids - {os.geteuid()} else SOCKET_UMASK)
        server = await asyncio.start_unix_server(self._serve, sock=listening, limit=REQUEST_BYTES_MAX)
        log.info("signer serves", keyid=self._issuer.keyid, socket=str(path))
        try:
            await stop.wait()
        finally:
            server.close()
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer_uid(writer.get_extra_info("socket"))
        try:
            if uid not in self._uids or self._connections >= CONNECTIONS_MAX:
                log.warning("turned away", uid=uid, connections=self._connections)
                return
            self._connections += 1
            try:
                for _ in range(REQUESTS_MAX):
                    async with asyncio.timeout(WAIT_S):
                        line = await reader.readline()
                        if not line:
                            return  # that was all, or somebody looked whether there is a signer
                        writer.write(msgspec.json.encode(self._answer(line, uid)) + b"\n")
                        await writer.drain()
            finally:
                self._connections -= 1
        except (TimeoutError, ValueError, OSError) as error:
            log.warning("not answered", uid=uid, error=shown(error))
        finally:
            writer.close()

    def _answer(self, line: bytes, uid: int) -> _Answer:
        try:
            request = read_request(line)
            envelope = self._issuer.sign(request, now_ms=self._now_ms(), mono_ms=self._mono_ms())
        except RefusedError as error:
            log.warning("refused", uid=uid, error=shown(error))
            return _Answer(refused=shown(error))
        except SignerError as error:
            log.warning("cannot sign", uid=uid, error=shown(error))
            return _Answer(failed=shown(error))
        self._tell(request, envelope, uid)
        return _Answer(envelope=Raw(signing.encode(envelope)))

    def _tell(self, request: Request, envelope: signing.Envelope, uid: int) -> None:
        claims = signing.decode_claims(envelope)
        command = signing.decode_command(claims) if request.kind is Kind.COMMAND else None
        log.info(
            "signed",
            uid=uid,
            keyid=self._issuer.keyid,
            kind=claims.kind.value,
            target=claims.target,
            counter=claims.counter,
            expires_ms=claims.expires_ms,
            id=command.id if command else "",
            name=command.name if command else "",
            payload_sha256=hashlib.sha256(envelope.payload).hexdigest(),
        )


def _peer_uid(connection: socket.socket) -> int:
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    uid: int = _PEER.unpack(peer)[1]
    return uid


def _listen(path: Path, socket_umask: int) -> socket.socket:
    path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        if _serves(path):
            raise FileExistsError(f"{path}: another signer serves there")
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(socket_umask)  # the mode must be right from the first moment on
    try:
        with _short(path) as name:
            listening.bind(name)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for *path* that fits into the 108 bytes of an address, however deep its directory is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short(path) as name:
        connection.settimeout(WAIT_S)
        connection.connect(name)
        yield connection


def _serves(path: Path) -> bool:
    try:
        with _connection(path):
            return True
    except OSError:
        return False


# The server's side --------------------------------------------------------------------------------------------------


class SocketSigner:
    """See :class:`fleet_server.access.signing.BatchSigner`; a connection for each call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sign(self, request: Request) -> bytes:
        """See the port."""
        return next(self.sign_all([request]))

    def sign_all(self, requests: Sequence[Request]) -> Iterator[bytes]:
        """See the port."""
        try:
            for start in range(0, len(requests), REQUESTS_MAX):
                with _connection(self._path) as connection, connection.makefile("rb") as answers:
                    for request in requests[start : start + REQUESTS_MAX]:
                        connection.sendall(msgspec.json.encode(request) + b"\n")
                        yield self._envelope(answers.readline(ANSWER_BYTES_MAX))
        except OSError as error:
            raise SignerError(f"the signer at {self._path} cannot be reached: {shown(error)}") from error

    def _envelope(self, line: bytes) -> bytes:
        try:
            answer = msgspec.json.decode(line, type=_Answer)
        except msgspec.MsgspecError as error:
            raise SignerError(f"the signer at {self._path} gave no answer: is this its user?") from error
        if answer.refused:
            raise RefusedError(answer.refused)
        if answer.failed or not bytes(answer.envelope):
            raise SignerError(answer.failed or "the signer gave no envelope")
        return bytes(answer.envelope)
