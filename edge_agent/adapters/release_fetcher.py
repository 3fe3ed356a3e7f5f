"""What a fetcher of releases is; and one over HTTPS, in a session that the device's key has proved. Loads python-tuf:
for the child that fetches releases alone.
"""

import http.client
import time
import urllib.parse
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec import Struct
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from broker_config.limits import RELEASE_METADATA_BYTES_MAX
from broker_config.releases import TARGETS_PATH
from broker_config.text import shown
from edge_agent.adapters.enrolment import Listener, cut_after
from edge_agent.releases import Attack, Pace, RefusedReleaseError

PART_BYTES: Final = 65_536
NO_HEADERS: Final[Mapping[str, str]] = {}


class NotNowError(Exception):
    """No answer, or one that was cut off: nothing is wrong with what is released. Asked again later, it goes on."""


class _Versioned(Struct, frozen=True):
    version: int


class _Signed(Struct, frozen=True):
    signed: _Versioned


def not_given(path: str, status: int) -> DownloadHTTPError:
    """What the library is told of a file that was not given; 404 means to it that there is no newer root."""
    return DownloadHTTPError(f"{path}: the server answers {status}", status)


class ReleaseFetcher(FetcherInterface):
    """Whatever the way is: what is asked for, how fast it comes, and what of it the library does not tell."""

    def __init__(self, pace: Pace, monotonic_s: Callable[[], float]) -> None:
        self._pace = pace
        self._monotonic_s = monotonic_s
        self._began_s, self._size = 0.0, 0
        self._name = ""
        self._body = bytearray()

    def begin(self) -> None:
        """What comes from now on has to come fast enough, over however many connections."""
        self._began_s, self._size = self._monotonic_s(), 0

    @property
    def role(self) -> str:
        """Of the file of metadata that was asked for last."""
        return self._name.removesuffix(".json").rpartition(".")[2]

    @property
    def is_other_version(self) -> bool:
        """Whether that file says that it is another version than it was asked for as."""
        asked = self._name.partition(".")[0]
        try:
            came = msgspec.json.decode(self._body, type=_Signed).signed.version
        except msgspec.MsgspecError:
            return False
        return asked.isdigit() and int(asked) != came

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Metadata, for the library, whose bound on its size holds. Raises NotNowError, RefusedReleaseError."""
        path = urllib.parse.urlsplit(url).path
        self._name, self._body = path.rpartition("/")[2], bytearray()
        self.begin()
        for part in self._parts(path, 0):
            if len(self._body) < RELEASE_METADATA_BYTES_MAX:
                self._body += part
            yield part

    def image(self, stored: str, offset: int) -> Iterator[bytes]:
        """From *offset* on. Raises NotNowError, RefusedReleaseError; what came before it is good to go on from."""
        yield from self._parts(f"{TARGETS_PATH}/{stored}", offset)

    @abstractmethod
    def _parts(self, path: str, offset: int) -> Iterator[bytes]:
        """Of the file at *path*, from *offset* on. Raises NotNowError, RefusedReleaseError, DownloadHTTPError."""

    def _count(self, part: bytes) -> None:
        """What came. Raises RefusedReleaseError: it comes too slowly."""
        self._size += len(part)
        self._pace.check(self._size, self._monotonic_s() - self._began_s)


class HttpsFetcher(ReleaseFetcher):
    """One connection after the other. *session* gives a bearer's token, and may raise NotNowError."""

    def __init__(
        self,
        listener: Listener,
        session: Callable[[], str],
        pace: Pace,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(pace, monotonic_s)
        self._listener = listener
        self._session = session
        self._token = ""

    def _parts(self, path: str, offset: int) -> Iterator[bytes]:
        path, skip = urllib.parse.quote(path), offset
        headers = {"Range": f"bytes={offset}-"} if offset else NO_HEADERS
        connection = self._listener.connection(self._pace.grace_s)
        try:
            answer = self._answer(connection, path, headers)
            if answer.status == http.client.PARTIAL_CONTENT:
                if not (answer.getheader("Content-Range") or "").startswith(f"bytes {skip}-"):
                    raise NotNowError(
                        f"expected bytes from {skip} on, got {shown(answer.getheader('Content-Range'))}"
                    )
                skip = 0
            while part := answer.read1(PART_BYTES):
                self._count(part)
                kept, skip = part[skip:], max(0, skip - len(part))  # of a server that knows no ranges
                if kept:
                    yield kept
            if answer.length:
                raise NotNowError(f"the connection ended {answer.length} bytes early")
        except TimeoutError as error:
            raise RefusedReleaseError(
                Attack.SLOW_RETRIEVAL, f"expected bytes of {path}, got none for {self._pace.grace_s:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NotNowError(f"the connection is lost: {shown(error) or type(error).__name__}") from error
        finally:
            connection.close()

    def _answer(
        self, connection: http.client.HTTPSConnection, path: str, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        try:
            connection.connect()
        except OSError as error:
            raise NotNowError(f"cannot reach {self._listener.url}: {shown(error) or type(error).__name__}") from error
        for fresh in (False, True):
            if fresh or not self._token:
                self._token = self._session()
            with cut_after(connection, self._pace.grace_s):
                connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}", **headers})
                answer = connection.getresponse()
            if answer.status != http.client.UNAUTHORIZED or fresh:
                break
            connection.close()  # and made anew: a session ends after some minutes, a large image takes longer
        if answer.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise RefusedReleaseError(Attack.ARBITRARY, f"{path} ends before what was signed does")
        if answer.status >= http.client.BAD_REQUEST:
            raise not_given(path, answer.status)
        return answer
