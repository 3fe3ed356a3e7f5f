"""A webhook's receiver on loopback that answers as it is told, and checks what it gets with others' libraries."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from standardwebhooks import Webhook

from tests.servers import HOST

TOLERANCE_S: Final = 300
REQUEST_BYTES_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """``reset``: no answer at all; ``hang``: none until the receiver ends; ``accepts``: whether what came is kept."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    reset: bool = False
    hang: bool = False
    keeps: bool = True


Decide = Callable[[int, dict[str, Any]], Answer]
"""From the number of the request, from 1, and its event's data."""


@dataclass(frozen=True, slots=True)
class Got:
    """A request whose signature and form were right."""

    id: str
    type: str
    subject: str | None
    source: str
    sequence: str
    headers: dict[str, str]
    data: dict[str, Any]


@dataclass(slots=True)
class Receiver:
    """``kept``: what it answered for; ``asked``: every request, in the order they came."""

    url: str
    secret: str
    decide: Decide
    asked: list[Got] = field(default_factory=list)
    kept: dict[str, Got] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    ahead_ms: Callable[[], int] = lambda: 0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                if not await self._answer(*request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, head: list[str], headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            got = self._check(head, headers, body)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it is the claim's business
            self.faults.append(f"{type(error).__name__}: {error}")
            answer = Answer(400)
        else:
            self.asked.append(got)
            answer = self.decide(len(self.asked), got.data)
            if answer.keeps and answer.status < 300 and not answer.reset and not answer.hang:
                self.kept[got.id] = got
        if answer.reset:
            writer.transport.abort()
            return False
        if answer.hang:
            await self._ended.wait()
            return False
        lines = [f"HTTP/1.1 {answer.status} Said", f"Content-Length: {len(answer.body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
        await writer.drain()
        return True

    def _check(self, head: list[str], headers: dict[str, str], body: bytes) -> Got:
        assert head[0] == "POST", head
        self._verify(headers, body)
        event = from_structured_event(HTTPMessage(headers, body))
        data = event.get_data()
        assert isinstance(data, dict)
        assert event.get_id() == headers["webhook-id"]
        return Got(
            event.get_id(),
            event.get_type(),
            event.get_subject(),
            event.get_source(),
            event.get_extension("sequence"),
            headers,
            data,
        )

    def _verify(self, headers: dict[str, str], body: bytes) -> None:
        """As the convention's own library does, with a clock that a test may have moved."""
        checker = Webhook(self.secret)
        if not self.ahead_ms():
            checker.verify(body, headers, json_parse=False)
            return
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert abs(at.timestamp() - time.time() - self.ahead_ms() / 1000) < TOLERANCE_S
        assert headers["webhook-signature"] == checker.sign(headers["webhook-id"], at, body.decode())

    def end(self) -> None:
        self._ended.set()


async def _read(reader: asyncio.StreamReader) -> tuple[list[str], dict[str, str], bytes] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    assert length <= REQUEST_BYTES_MAX
    return first.split(" "), headers, await reader.readexactly(length)


@asynccontextmanager
async def receiving(
    secret: str, decide: Decide | Sequence[Answer] = (), *, security: ssl.SSLContext | None = None, host: str = HOST
) -> AsyncIterator[Receiver]:
    """A receiver on a free port. *decide* may be what it answers in turn; behind that, and without, it takes all."""
    rule = decide if callable(decide) else _in_turn(decide)
    receiver = Receiver("", secret, rule)
    server = await asyncio.start_server(receiver.serve, HOST, 0, ssl=security)
    scheme = "https" if security else "http"
    receiver.url = f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        receiver.end()
        server.close()


def _in_turn(answers: Sequence[Answer]) -> Decide:
    return lambda number, _data: answers[number - 1] if number <= len(answers) else Answer()


def missing(recorded: Sequence[int], receiver: Receiver) -> set[int]:
    """Ids that were recorded and that the receiver did not keep."""
    return set(recorded) - {int(got.data["id"]) for got in receiver.kept.values()}
