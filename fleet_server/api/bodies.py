"""What stands before every route: bodies have a bound, and a request that is repeated with its key is done once.

A client that hears nothing sends its request again with the same ``Idempotency-Key``. The answer of the first is kept
for a day, and the second gets that one. A key belongs to who bears the token and to one request: the same key with
another is refused. Answers of 500 and above are not kept: nothing was done. Nor is one that its route calls
``no-store``, because there is a secret in it: who repeats that request gets another secret.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_config.text import shown
from fleet_server.access.kept_answers import FRESH, UNDER_WAY, Begun, Kept, KeptAnswers
from fleet_server.api.actions import SAFE
from fleet_server.api.guard import asking
from fleet_server.api.problems import ProblemError, answer, bad_request
from fleet_server.api.times import Clock
from fleet_server.registry.imports import CSV_BYTES_MAX
from fleet_server.telemetry.store import StoreError

BODY_BYTES_MAX: Final = 64 * 1024
IMPORTS: Final = "/v1/imports/"
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
ANSWER_BYTES_MAX: Final = 1024 * 1024
SECRET: Final = {"Cache-Control": "no-store"}
"""Of an answer with a secret in it: it is not kept for who repeats the request."""
_KEY: Final = re.compile(r"[!-~]{1,128}\Z")


class Bodies:
    """See the module's docstring."""

    def __init__(self, app: ASGIApp, *, kept: KeptAnswers, clock: Clock) -> None:
        self._app = app
        self._kept = kept
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        known = asking(scope)
        bytes_max = CSV_BYTES_MAX if known is not None and scope["path"].startswith(IMPORTS) else BODY_BYTES_MAX
        body = await _read(receive, headers, bytes_max)
        if body is None:
            await _too_large(bytes_max)(scope, receive, send)
            return
        key = headers.get(HEADER)
        if key is None or scope["method"] in SAFE or known is None:
            await self._app(scope, _again(body, receive), send)
            return
        response = await self._once(scope, headers, f"{known.holder}\0{key}", key, body, _again(body, receive))
        await response(scope, receive, send)

    async def _once(
        self, scope: Scope, headers: Headers, owned: str, key: str, body: bytes, receive: Receive
    ) -> Response:
        if not _KEY.match(key):
            return answer(bad_request("header.idempotency-key", expected="1 to 128 visible characters", got=key))
        whose = hashlib.sha256(owned.encode()).hexdigest()
        target = b"\0".join((scope["method"].encode(), scope["path"].encode(), scope["query_string"]))
        conditions = f"{headers.get('if-match')}\0{headers.get('if-none-match')}".encode()
        request = hashlib.sha256(b"\0".join((target, conditions, body))).digest()
        try:
            begun = await run_in_threadpool(self._kept.begin, whose, request, now_ms=self._clock())
            if isinstance(begun, Kept):
                return _replayed(begun)
            if begun is not FRESH:
                return answer(_refused(begun, key))
            return await self._do(scope, receive, whose)
        except StoreError as error:
            detail = f"the key cannot be looked up now, so nothing was done: {shown(error)}"
            return answer(
                ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable", "The store is down", detail)
            )

    async def _do(self, scope: Scope, receive: Receive, whose: str) -> Response:
        caught = _Caught()
        try:
            await self._app(scope, receive, caught.send)
        except BaseException:
            await run_in_threadpool(self._kept.drop, whose)
            raise
        response = caught.response()
        secret = response.headers.get("Cache-Control") == SECRET["Cache-Control"]
        if (
            secret
            or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
            or len(response.body) > ANSWER_BYTES_MAX
        ):
            await run_in_threadpool(self._kept.drop, whose)
        else:
            headers = response.headers
            kept = Kept(
                response.status_code, headers.get("content-type", ""), headers.get("etag", ""), bytes(response.body)
            )
            await run_in_threadpool(self._kept.finish, whose, kept)
        return response


class _Caught:
    """An answer as it comes."""

    def __init__(self) -> None:
        self._start: Message = {"status": 500, "headers": []}
        self._body: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))

    def response(self) -> Response:
        response = Response(b"".join(self._body), self._start["status"])
        response.raw_headers = list(self._start["headers"])
        return response


async def _read(receive: Receive, headers: Headers, bytes_max: int) -> bytes | None:
    """The body; None if it is larger."""
    told = headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told) > bytes_max:
        return None
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            return None
        parts.append(part)
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Give the body once, then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _too_large(bytes_max: int) -> Response:
    return answer(
        ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too-large",
            "The body is too large",
            f"the body has more than {bytes_max} bytes",
            expected=f"at most {bytes_max} bytes",
        )
    )


def _replayed(kept: Kept) -> Response:
    headers = {REPLAYED: "true"} | ({"ETag": kept.etag} if kept.etag else {})
    response = Response(kept.body, kept.status, headers)
    if kept.content_type:
        response.headers["Content-Type"] = kept.content_type
    return response


def _refused(begun: Begun, key: str) -> ProblemError:
    if begun is UNDER_WAY:
        return ProblemError(
            HTTPStatus.CONFLICT,
            "under-way",
            "It is being done",
            f"the first request with key {shown(key)} has no answer yet",
            expected="the same again, a little later",
            headers={"Retry-After": "1"},
        )
    return bad_request("header.idempotency-key", expected="a key of its own for another request", got=key)
