"""Speaks to the enrolment listener: HTTPS, the server held to the authority that we were given."""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from broker_config.enrolment import (
    ANSWER_BYTES_MAX,
    ENROLL_PATH,
    NONCE_PATH,
    RENEW_PATH,
    SESSION_PATH,
    TRUST_ANSWER_BYTES_MAX,
    TRUST_PATH,
    Enrolled,
    EnrollRequest,
    NonceAnswer,
    RenewRequest,
    SessionAnswer,
    SessionRequest,
    TrustAnswer,
    TrustRequest,
)
from broker_config.text import shown

TIMEOUT_S: Final = 20.0
ANSWER_S_MAX: Final = 60.0
"""For all of an answer; TIMEOUT_S begins anew with each byte of it."""
# the agent's start leaves it out of urllib.parse, which wants it for a host in brackets
vars(urllib.parse)["ipaddress"] = ipaddress

A = TypeVar("A", Enrolled, NonceAnswer, TrustAnswer, SessionAnswer)


class EnrolmentError(Exception):
    """There is no certificate; the message says what to do next."""


class AbsentError(EnrolmentError):
    """The server has no such path: it is older than we are."""


class _Problem(Struct, frozen=True):
    title: str
    detail: Annotated[str, Meta(max_length=2_000)]


class Listener:
    """The server's side, at *url*."""

    def __init__(self, url: str, ca_file: Path) -> None:
        """Raises EnrolmentError: the URL or the authority's file is not what it should be."""
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname, parts.port or 443
        except ValueError as error:
            raise EnrolmentError(f"--server: expected https://HOST:PORT, got {shown(url)!r}") from error
        if parts.scheme != "https" or host is None:
            raise EnrolmentError(f"--server: expected https://HOST:PORT, got {shown(url)!r}")
        self._host, self._port = host, port
        try:
            self._security = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._security.minimum_version = ssl.TLSVersion.TLSv1_2
            self._security.load_verify_locations(ca_file)
        except OSError as error:
            raise EnrolmentError(
                f"{ca_file}: expected the site's server-ca.crt, got {shown(error)}; "
                "copy it from server/server-ca.crt of the site"
            ) from error

    def enroll(self, claim: str, csr: str) -> Enrolled:
        """Redeem a claim. Raises EnrolmentError."""
        body = msgspec.json.encode(EnrollRequest(claim, csr))
        return self._ask("POST", ENROLL_PATH, body, Enrolled)

    def nonce(self) -> str:
        """For a renewal. Raises EnrolmentError."""
        return self._ask("GET", NONCE_PATH, None, NonceAnswer).nonce

    def renew(self, request: RenewRequest) -> Enrolled:
        """Raises EnrolmentError."""
        return self._ask("POST", RENEW_PATH, msgspec.json.encode(request), Enrolled)

    def trust(self, request: TrustRequest) -> TrustAnswer | None:
        """What the device lacks; None: the server is older, and has nothing of it. Raises EnrolmentError."""
        try:
            return self._ask("POST", TRUST_PATH, msgspec.json.encode(request), TrustAnswer)
        except AbsentError:
            return None

    def session(self, request: SessionRequest) -> SessionAnswer:
        """For files and releases. Raises EnrolmentError."""
        return self._ask("POST", SESSION_PATH, msgspec.json.encode(request), SessionAnswer)

    def connection(self, timeout_s: float = TIMEOUT_S) -> http.client.HTTPSConnection:
        """Not made yet; whoever connects closes it."""
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._security)

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"https://{host}:{self._port}"

    def _ask(self, method: str, path: str, body: bytes | None, kind: type[A]) -> A:
        connection = self.connection()
        try:
            with cut_after(connection, ANSWER_S_MAX):
                connection.request(method, path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                data = answer.read(max(ANSWER_BYTES_MAX, TRUST_ANSWER_BYTES_MAX) + 1)
        except ssl.SSLCertVerificationError as error:
            raise EnrolmentError(
                f"{self._host}:{self._port} is not a server that --ca vouches for: {shown(error.verify_message)}; "
                "check the address, this device's clock, and that --ca is the site's server-ca.crt"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise EnrolmentError(
                f"cannot reach {self._host}:{self._port}: {shown(error) or type(error).__name__}; "
                "is fleet-server running, with [enrolment] in its configuration?"
            ) from error
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            raise AbsentError(_why(answer.status, data))
        if answer.status != http.client.OK:
            raise EnrolmentError(_why(answer.status, data))
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise EnrolmentError(f"{self._host}:{self._port} answers, but not as a fleet server: {error}") from error


@contextmanager
def cut_after(connection: http.client.HTTPSConnection, seconds: float) -> Iterator[None]:
    """Cut *connection* after *seconds*: a socket's own time begins anew with each byte, and some send only to stay.

    Raises TimeoutError: that was done, whatever came of it.
    """
    done = threading.Event()

    def cut() -> None:
        done.set()
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    late = f"no whole answer within {seconds:g} s"
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if done.is_set():
            raise TimeoutError(late) from error
        raise
    finally:
        timer.cancel()
    if done.is_set():  # a head that ends too early counts as whole
        raise TimeoutError(late)


def _why(status: int, data: bytes) -> str:
    try:
        problem = msgspec.json.decode(data, type=_Problem)
    except msgspec.MsgspecError:
        return f"the server answers {status}, but not as a fleet server; check --server"
    text = f"{shown(problem.title)}: {shown(problem.detail, 500)}"
    if status == http.client.FORBIDDEN:
        return f"{text}; a new claim comes from: fieldfleet claim DEVICE"
    return text
