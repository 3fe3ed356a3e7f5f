"""The conversation with the API: where it is, the token, pages, and errors that say what to do next."""

import os
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

import httpx
import msgspec

from broker_config.text import shown

SITE_VARIABLE: Final = "FIELDFLEET_SITE"
SITE_DEFAULT: Final = Path("site")
TIMEOUT_S: Final = 30.0
STREAM_SILENCE_S: Final = 45.0
"""Three heartbeats of the feed."""
PAGE_ENTRIES_MAX: Final = 1_000
DETAIL_CHARS_MAX: Final = 500

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Parameters: TypeAlias = Mapping[str, str | int | None]
"""Of a query; None is not sent."""
NONE: Final[Parameters] = {}
NO_HEADERS: Final[Mapping[str, str]] = {}
CHANGE_TRIES: Final = 2


class Exit(IntEnum):
    """What the command's exit code says."""

    OK = 0
    PROBLEM = 1
    USAGE = 2
    UNREACHABLE = 3


class CommandError(Exception):
    """The command cannot do it; the message says what to do next."""

    code: Exit
    status: int

    def __init__(self, code: Exit, message: str, *, hint: str | None = None, status: int = 0) -> None:
        """*status*: of the API's answer, 0 if it is not about one."""
        super().__init__(message if hint is None else f"{message}\n  {hint}")
        self.code = code
        self.status = status


class Place(msgspec.Struct, frozen=True):
    """Where the API is, and the file of its token."""

    url: str
    token_file: Path


class _Problem(msgspec.Struct, frozen=True):
    title: str
    detail: str
    expected: str | None = None


def find(*, site: Path | None, url: str | None, token_file: Path | None) -> Place:
    """Decide which server is meant: by its url and token file, or by its site's directory.

    Raises:
        CommandError: neither, or the directory is no site.
    """
    if (url is None) != (token_file is None):
        raise CommandError(Exit.USAGE, "expected --url and --token-file together", hint="or give --site DIR")
    if url is not None and token_file is not None:
        return Place(url.rstrip("/"), token_file)
    directory = site or Path(os.environ.get(SITE_VARIABLE) or SITE_DEFAULT)
    try:
        port = tomllib.loads((directory / "site.toml").read_text(encoding="utf-8"))["api_port"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise CommandError(
            Exit.USAGE,
            f"{directory} is no site: {shown(error)}",
            hint=f"give --site DIR, set {SITE_VARIABLE}, or give --url and --token-file; make one: fleet-server init",
        ) from error
    return Place(f"http://127.0.0.1:{port}", directory / "server" / "api-token")


class Server:
    """The API, as the commands use it."""

    def __init__(self, place: Place, client: httpx.Client) -> None:
        self.place = place
        self._client = client

    def get(self, path: str, parameters: Parameters = NONE) -> Json:
        """The answer's JSON.

        Raises:
            CommandError: a problem from the API, or it cannot be reached.
        """
        return _json(self._send("GET", path, parameters))

    def find(self, path: str) -> Json:
        """As :meth:`get`; None: there is no such thing. Raises CommandError."""
        try:
            return self.get(path)
        except CommandError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def get_bytes(self, path: str) -> bytes:
        """The answer as it comes. Raises CommandError."""
        return self._send("GET", path, NONE).content

    def stream(self, path: str, parameters: Parameters = NONE) -> Iterator[bytes]:
        """The answer in parts, as they come. Raises CommandError, also in the middle."""
        with self._opened(path, parameters) as answer:
            yield from answer.iter_bytes()

    def post(self, path: str) -> Json:
        """Ask for something to be done. Raises CommandError."""
        return self.send("POST", path)

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Json = None,
        content: bytes | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Json:
        """Ask for a change, with a body of either sort; sent again by itself if the answer is lost, and done once.

        Raises:
            CommandError: a problem from the API, or it cannot be reached.
        """
        sent = {**headers, "Idempotency-Key": secrets.token_hex(16)}
        answer = self._send(method, path, NONE, json=json, content=content, headers=sent, tries=CHANGE_TRIES)
        return None if answer.status_code == httpx.codes.NO_CONTENT else _json(answer)

    def lines(self, path: str, parameters: Parameters, headers: Mapping[str, str]) -> Iterator[str]:
        """An answer's lines as they come, until it ends.

        Raises:
            CommandError: as :meth:`get`; also if nothing comes for ``STREAM_SILENCE_S``.
        """
        timeout = httpx.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S)
        with self._opened(path, parameters, headers, timeout) as answer:
            yield from answer.iter_lines()

    @contextmanager
    def _opened(
        self,
        path: str,
        parameters: Parameters,
        headers: Mapping[str, str] = NO_HEADERS,
        timeout: httpx.Timeout = httpx.Timeout(TIMEOUT_S),
    ) -> Iterator[httpx.Response]:
        """A good answer, its body not read yet; what goes wrong within the block is a CommandError, too."""
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            with self._client.stream("GET", path, params=given or None, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _problem(answer, self.place)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error

    def list_all(
        self,
        path: str,
        key: str,
        *,
        entries_max: int,
        page_entries_max: int = PAGE_ENTRIES_MAX,
        parameters: Parameters = NONE,
    ) -> tuple[Json, bool]:
        """Every entry of a paged list up to *entries_max*, under *key*, and whether more follow."""
        entries: list[Json] = []
        cursor: str | None = None
        while True:
            limit = min(page_entries_max, entries_max - len(entries))
            page = self.get(path, {**parameters, "limit": limit, "cursor": cursor})
            assert isinstance(page, dict)
            found, following = page[key], page["next"]
            assert isinstance(found, list)
            entries += found
            if not isinstance(following, str) or len(entries) >= entries_max:
                return {key: entries}, following is not None
            cursor = following

    def _send(
        self,
        method: str,
        path: str,
        parameters: Parameters,
        *,
        json: Json = None,
        content: bytes | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        tries: int = 1,
    ) -> httpx.Response:
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            answer = self._client.request(
                method, path, params=given or None, json=json, content=content, headers=headers
            )
        except httpx.TransportError as error:
            if tries > 1:
                return self._send(
                    method, path, parameters, json=json, content=content, headers=headers, tries=tries - 1
                )
            raise self._unreachable(error) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if answer.is_success:
            return answer
        raise _problem(answer, self.place)

    def _unreachable(self, error: Exception) -> CommandError:
        return CommandError(
            Exit.UNREACHABLE,
            f"cannot reach {self.place.url}: {shown(error) or type(error).__name__}",
            hint="is the server running? fleet-server run --config SITE/server/fleet-server.toml",
        )


@contextmanager
def connect(place: Place) -> Iterator[Server]:
    """Speak to the API at *place*.

    Raises:
        CommandError: the token cannot be read, or the url is none.
    """
    try:
        token = place.token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            Exit.USAGE,
            f"the API's token cannot be read: {shown(error)}",
            hint="run as the user who owns it, or give --token-file",
        ) from error
    headers = {"Authorization": f"Bearer {token}"}
    try:
        # a proxy has no business between this machine and itself
        client = httpx.Client(base_url=place.url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
    except httpx.InvalidURL as error:
        hint = "such as http://127.0.0.1:8470"
        raise CommandError(Exit.USAGE, f"--url: expected a URL, got {shown(place.url)!r}", hint=hint) from error
    with client:
        yield Server(place, client)


def segment(text: str) -> str:
    """*text* as one level of a path, whatever is in it."""
    return quote(text, safe="")


def _json(answer: httpx.Response) -> Json:
    try:
        document: Json = msgspec.json.decode(answer.content)
    except msgspec.MsgspecError as error:
        raise _no_api(answer) from error
    return document


def _problem(answer: httpx.Response, place: Place) -> CommandError:
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.MsgspecError:
        return _no_api(answer)
    hint = f"expected: {shown(problem.expected)}" if problem.expected else None
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        hint = f"the token came from {place.token_file}; is it this server's?"
    message = f"{shown(problem.title)}: {shown(problem.detail, DETAIL_CHARS_MAX)}"
    return CommandError(Exit.PROBLEM, message, hint=hint, status=answer.status_code)


def _no_api(answer: httpx.Response) -> CommandError:
    return CommandError(
        Exit.UNREACHABLE,
        f"{answer.url.copy_with(query=None)} answers {answer.status_code}, but not as a fleet server",
        hint="check --url, or api_port in site.toml",
    )
