"""Stands before every route and behind the bound on bodies: what changes something is in the audit log, or not done.

An intent before, an outcome after, whatever the handler does. So no handler can forget. Of the body only the digest
is recorded. Requests of strangers, and reads that are refused to who asks, are counted, not entered one by one.
"""

import hashlib
import logging
import secrets
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_config.text import shown
from fleet_server.access.audit import Draft, Phase, bounded
from fleet_server.access.auditor import Auditor, BrokenLogError
from fleet_server.access.people import Principal
from fleet_server.api.actions import SAFE, found_in, is_recorded, route_of
from fleet_server.api.guard import asking, may
from fleet_server.api.problems import ProblemError, answer
from fleet_server.api.rules import OPEN
from fleet_server.telemetry.store import StoreError

REQUEST_ID: Final = "X-Request-Id"
REQUEST_ID_BYTES: Final = 8
CRASHED: Final = "500"

_logger = logging.getLogger(__name__)


class Recording:
    """See the module's docstring."""

    def __init__(self, app: ASGIApp, *, auditor: Auditor) -> None:
        self._app = app
        self._auditor = auditor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        principal, method, path = asking(scope), scope["method"], scope["path"]
        if principal is None or not is_recorded(method, path) or _is_refused_read(principal, method, path):
            await self._app(scope, receive, _Counted(send, self._auditor, scope).send)
            return
        body, again = await _body(receive)
        intent = self._intent(scope, principal.holder, body)
        try:
            await run_in_threadpool(self._auditor.record, intent)
        except StoreError as error:
            await answer(_unrecorded(error))(scope, receive, send)
            return
        await self._done(intent, scope, again, send)

    async def _done(self, intent: Draft, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def watched(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                MutableHeaders(scope=message)[REQUEST_ID] = intent.request
                await self._finish(intent, str(message["status"]))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except BaseException:
            if not answered:
                await self._finish(intent, CRASHED)
            raise

    async def _finish(self, intent: Draft, status: str) -> None:
        """Before the answer goes out, so that who has it finds it recorded."""
        if intent.phase is Phase.INTENT:
            done = msgspec.structs.replace(
                intent, phase=Phase.OUTCOME, at_ms=self._auditor.now_ms(), outcome=status, body_sha256=""
            )
            await run_in_threadpool(self._auditor.finish, done)

    def _intent(self, scope: Scope, actor: str, body: bytes) -> Draft:
        found = found_in(scope["method"], scope["path"], body)
        assert found is not None
        query = scope["query_string"].decode("ascii", "backslashreplace")
        told = {"query": query} if query else {}
        return Draft(
            # what is only read has no outcome that anybody would ask for
            phase=Phase.FACT if scope["method"] == "GET" else Phase.INTENT,
            at_ms=self._auditor.now_ms(),
            actor=bounded(actor),
            source=bounded(_source(scope)),
            action=found.name,
            subject=bounded(found.subject),
            request=secrets.token_hex(REQUEST_ID_BYTES),
            body_sha256=hashlib.sha256(body).hexdigest() if body and not found.hushed else "",
            data={name: bounded(text) for name, text in {**found.data, **told}.items()},
        )


def _is_refused_read(principal: Principal, method: str, path: str) -> bool:
    """Of those that are recorded one by one."""
    return method in SAFE and not may(principal, route_of(method, path))


class _Counted:
    """Counts an answer that says the token is none of ours, or that its holder may not read this."""

    def __init__(self, send: Send, auditor: Auditor, scope: Scope) -> None:
        self._send = send
        self._auditor = auditor
        self._scope = scope

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._count(message["status"])
        await self._send(message)

    def _count(self, status: int) -> None:
        source, principal = _source(self._scope), asking(self._scope)
        if status == HTTPStatus.UNAUTHORIZED:
            self._auditor.refused(source)
        elif status == HTTPStatus.FORBIDDEN and principal is not None:
            # the route's own path: what else is in a URL is the other side's to choose
            asked = f"{self._scope['method']} {self._scope['route'].path}"
            if asked not in OPEN:  # a way in or out that came to nothing is none
                self._auditor.refused(source, actor=principal.holder, asked=asked)


class _Read(NamedTuple):
    body: bytes
    again: Receive


async def _body(receive: Receive) -> _Read:
    """All of it, bounded by what stands before, and the same once more."""
    messages: list[Message] = []
    while True:
        messages.append(await receive())
        if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
            break
    body = b"".join(message.get("body", b"") for message in messages)
    messages.reverse()

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return _Read(body, again)


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return "" if client is None else str(client[0])


def _unrecorded(error: StoreError) -> ProblemError:
    broken = isinstance(error, BrokenLogError)
    _logger.warning("a change was refused because it could not be recorded", extra={"error": shown(error)})
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "audit-broken" if broken else "audit-unavailable",
        "The audit log takes nothing",
        f"nothing was done, because it cannot be recorded: {shown(error)}",
        expected="somebody who looks into it, and then: fleet-server begin-audit-log" if broken else None,
    )
