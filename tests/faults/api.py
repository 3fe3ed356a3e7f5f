"""Reads the store through the server's API, as any client would."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Final, TypeAlias, cast

ANSWER_S_MAX: Final = 20.0
PAGE_ROWS: Final = 100

Json: TypeAlias = Mapping[str, object]


class ApiDownError(Exception):
    """Nobody answers, or not yet."""


class RefusedError(Exception):
    """The API says no; ``problem`` says why."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(f"{status}: {problem}")
        self.status = status


class Api:
    """A client of one server."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    def bytes_of(self, path: str, *, post: bool = False, **query: str | int | None) -> bytes:
        """The body of an answer. Raises ApiDownError, RefusedError."""
        told = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
        request = urllib.request.Request(
            f"{self._url}{path}{'?' if told else ''}{told}",
            headers={"Authorization": f"Bearer {self._token}"},
            method="POST" if post else "GET",
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            with error:
                problem = error.read().decode("utf-8", "replace")
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise ApiDownError(problem) from error
            raise RefusedError(error.code, problem) from error
        except OSError as error:
            raise ApiDownError(str(error)) from error

    def get(self, path: str, **query: str | int | None) -> Json:
        """One answer that is a JSON object."""
        return cast("Json", json.loads(self.bytes_of(path, post=False, **query)))

    def pages(self, path: str, rows: str, **query: str | int | None) -> Iterator[Json]:
        """Every entry of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, limit=PAGE_ROWS, cursor=cursor, **query)
            yield from cast("list[Json]", page[rows])
            cursor = cast("str | None", page["next"])
            if cursor is None:
                return

    @property
    def up(self) -> bool:
        """Whether it answers at all."""
        try:
            self.get("/v1/health")
        except ApiDownError:
            return False
        return True

    @property
    def linked(self) -> bool:
        """Whether it answers and is connected to its broker."""
        try:
            return self.get("/v1/health")["status"] == "ok"
        except ApiDownError:
            return False

    def replay(self, row_id: int) -> str:
        """Admit a quarantined message again. Raises RefusedError: it is still refused."""
        return str(json.loads(self.bytes_of(f"/v1/quarantine/{row_id}/replay", post=True))["outcome"])
