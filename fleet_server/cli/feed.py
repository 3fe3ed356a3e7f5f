"""Server-Sent Events as lines come, and a reader that comes back behind what it has seen."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from fleet_server.cli.server import CommandError, Exit

TRUNCATED: Final = "feed.truncated"
RECONNECT_S: Final = 2.0
EVENT_CHARS_MAX: Final = 1_000_000
"""More is no event of ours."""

Connect = Callable[[str | None], Iterable[str]]
"""Opens the feed behind an id and gives its lines."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event; ``id`` is what to come back with."""

    id: str
    event: str
    data: str


def events(lines: Iterable[str]) -> Iterator[FeedEvent]:
    """Whole events; one that was cut off is none. Comments and fields of no use to us are passed over."""
    id_, event, size = "", "message", 0
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield FeedEvent(id_, event, "\n".join(data))
            event, data, size = "message", [], 0
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        size += len(value)
        if size > EVENT_CHARS_MAX:
            raise CommandError(Exit.UNREACHABLE, f"expected an event of at most {EVENT_CHARS_MAX} characters")
        if name == "id":
            id_ = value
        elif name == "event":
            event = value
        elif name == "data":
            data.append(value)


def follow(connect: Connect, wait: Callable[[float], None], lost: Callable[[str], None]) -> Iterator[FeedEvent]:
    """Events for ever: after a loss, from behind the last one.

    Args:
        connect: see there; what it raises the first time is raised.
        wait: sleeps so many seconds.
        lost: hears why, once for each time that the server is away; a stream that was ended in order is no loss.

    Raises:
        CommandError: the server was never there, or it refuses.
    """
    seen: str | None = None
    known = away = False
    while True:
        try:
            for event in events(connect(seen)):
                seen, known, away = event.id or seen, True, False
                yield event
            known = True
        except CommandError as error:
            if error.code is not Exit.UNREACHABLE or not known:
                raise
            if not away:
                lost(str(error).splitlines()[0])
            away = True
        wait(RECONNECT_S)
