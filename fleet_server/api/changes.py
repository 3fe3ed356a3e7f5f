"""``/v1/changes`` and ``/v1/happenings``: what happened, as it happens and as a list."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Header, Query
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from broker_config import limits
from broker_config.ids import DEVICE_ID_PATTERN
from fleet_server.api import outbound_models as models
from fleet_server.api import pages
from fleet_server.api.problems import ProblemError, bad_request
from fleet_server.api.routes import Routes
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.events import frame, truncated
from fleet_server.outbound.happenings import Kind, Severity
from fleet_server.outbound.store import Feed, FeedPage, Filter
from fleet_server.registry.model import PATH_PATTERN
from fleet_server.telemetry.store import StoreError

STREAMS_MAX: Final = 64
"""At once; each holds a connection of the API's."""
HEARTBEAT_S: Final = 15.0
"""A comment after so much silence, so that nobody on the way takes the connection for dead."""
STREAM_S_MAX: Final = 900.0
"""Then it ends and the client comes back, so that a token that was revoked meanwhile is asked for."""
ROWS_MAX: Final = 500
"""Read of the feed at once."""
RECONNECT_MS: Final = 2_000
KINDS_CHARS_MAX: Final = 512
PATH_CHARS_MAX: Final = 512

HEARTBEAT: Final = b": still here\n\n"
HELLO: Final = f"retry: {RECONNECT_MS}\n: fieldfleet\n\n".encode()

After: TypeAlias = Annotated[
    int | None,
    Query(
        ge=0,
        le=limits.SEQ_MAX,
        description="Begin behind this id; 0 is the oldest that is kept, and without it only what comes is told.",
    ),
]
LastEventId: TypeAlias = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=r"^[0-9]{1,16}$",
        description="What a client that comes back has seen; it wins over `after`.",
    ),
]


class EventStream(StreamingResponse):
    """Server-Sent Events."""

    media_type = "text/event-stream"


def filter_of(
    kinds: Annotated[
        str | None,
        Query(
            max_length=KINDS_CHARS_MAX,
            description="Only these, comma between; all if not given.",
            examples=["device.connected,device.disconnected"],
        ),
    ] = None,
    severity: Annotated[Severity, Query(description="Only of at least this severity.")] = Severity.INFO,
    device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, description="Only of this device.")] = None,
    org: Annotated[
        str | None,
        Query(pattern=PATH_PATTERN, max_length=PATH_CHARS_MAX, description="Only of this place or below: its path."),
    ] = None,
) -> Filter:
    """Raises ProblemError: no such kind."""
    names = [] if kinds is None else kinds.split(",")
    unknown = [name for name in names if name not in set(Kind)]
    if unknown:
        raise bad_request("query.kinds", expected=f"of {', '.join(Kind)}", got=",".join(unknown))
    return Filter(frozenset(map(Kind, names)), severity, device or "", org or "")


Chosen: TypeAlias = Annotated[Filter, Depends(filter_of)]


def routes(feed: Feed, bell: Bell) -> Routes:
    """The routes of the feed."""
    router = Routes(tags=["happenings"])

    @router.get("/v1/happenings", summary="What happened")
    def happenings(
        chosen: Chosen, limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None
    ) -> models.HappeningPage:
        """The newest first."""
        before = pages.read_cursor(cursor, pages.RowNumber, -1)
        found = feed.before(None if before < 0 else before, chosen, rows_max=limit + 1)
        page, follows = pages.cut(found, limit)
        return models.HappeningPage(
            happenings=[models.Happening.of(each) for each in page],
            next=pages.write_cursor(page[-1].id) if follows else None,
        )

    @router.get("/v1/changes", summary="What happens, as it happens", response_class=EventStream)
    async def changes(chosen: Chosen, after: After = None, last_event_id: LastEventId = None) -> EventStream:
        """Server-Sent Events: `id` is the happening's, `event` its kind, `data` the happening.

        A client that comes back with `Last-Event-ID` misses nothing that is kept. If something is not,
        `feed.truncated` says so first. A comment comes every 15 s.
        """
        if len(bell) >= STREAMS_MAX:
            raise _too_many()
        place = after if last_event_id is None else int(last_event_id)
        if place is not None and place > limits.SEQ_MAX:
            raise bad_request("header.last-event-id", expected="an id of this feed", got=str(place))
        first = await run_in_threadpool(feed.after, place if place is not None else 0, chosen, rows_max=ROWS_MAX)
        if place is None:
            place, first = first.newest, FeedPage((), first.newest, 0, first.newest)
        return EventStream(_events(feed, bell, place, first, chosen))

    return router


async def _events(feed: Feed, bell: Bell, place: int, page: FeedPage, chosen: Filter) -> AsyncIterator[bytes]:
    yield HELLO
    end_s = asyncio.get_running_loop().time() + STREAM_S_MAX
    with bell.listening() as more:
        # what was recorded between the first reading and now has rung for nobody: so do not wait before the second
        waits = False
        while not bell.closed and asyncio.get_running_loop().time() < end_s:
            if place < page.pruned:
                yield truncated(place, page.pruned)
            elif place > page.newest:
                yield truncated(place, page.newest)
            for happening in page.happenings:
                yield frame(happening)
            place = page.up_to if place <= page.newest else page.newest
            # a page may be short and not the last: what is not for this client was left out
            if waits and place >= page.newest and not await _rung(more):
                yield HEARTBEAT
            waits = True
            more.clear()
            try:
                page = await run_in_threadpool(feed.after, place, chosen, rows_max=ROWS_MAX)
            except StoreError:
                return  # the client comes back, and behind what it has seen


async def _rung(more: asyncio.Event) -> bool:
    """Whether there is more, or the server stops, within the time of a heartbeat."""
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            await more.wait()
    except TimeoutError:
        return False
    return True


def _too_many() -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too-many-streams",
        "Too many follow the changes",
        f"{STREAMS_MAX} streams are open",
        expected=f"at most {STREAMS_MAX} at once",
        headers={"Retry-After": "10"},
    )
