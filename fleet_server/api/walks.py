"""Lists over devices that cost something for each: a page looks at a few of them, and says where the next goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final, NamedTuple, TypeAlias, TypeVar

from fastapi import Query

from broker_config.ids import DEVICE_ID_PATTERN
from fleet_server.api import pages, times
from fleet_server.api.evidence import path_of
from fleet_server.api.problems import bad_request
from fleet_server.evidence.ledger import Span
from fleet_server.evidence.reconciling import TooMuchError
from fleet_server.registry.model import SLUG_PATTERN, Device, DeviceFilter
from fleet_server.registry.store import Registry

DEVICES_A_PAGE: Final = 50
"""Looked at; a page may have fewer entries than were asked for, none even, and there is a next one all the same."""
SPAN_MS_MAX: Final = 31 * times.DAY_MS

T = TypeVar("T")

DeviceOnly: TypeAlias = Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, examples=["cam-7"])]
Node: TypeAlias = Annotated[str | None, Query(pattern=SLUG_PATTERN, description="At this node or below, now.")]
Unit: TypeAlias = Annotated[str | None, Query(pattern=SLUG_PATTERN, description="Of this duty unit, now.")]


class Walked(NamedTuple):
    """Where a page ended: a device, and the place of its last entry; ``name`` is empty behind all of it."""

    device: str = ""
    begin_ms: int = 0
    name: str = ""


class Meant(NamedTuple):
    """Which devices, and which time."""

    device: str | None
    wanted: DeviceFilter
    span: Span


def meant(
    registry: Registry,
    device: str | None,
    node: str | None,
    unit: str | None,
    from_ms: int | None,
    to_ms: int | None,
    now_ms: int,
) -> Meant:
    """What a request means; the last day if no times are given. Raises ProblemError."""
    path = None if node is None else path_of(registry, node, "query.node")
    span = times.span(from_ms, to_ms, now_ms=now_ms, default_ms=times.DAY_MS, span_ms_max=SPAN_MS_MAX)
    return Meant(device, DeviceFilter(path=path, unit=unit), Span(*span))


def page(
    registry: Registry,
    asked: Meant,
    entries_of: Callable[[Device], list[T]],
    place_of: Callable[[T], tuple[int, str]],
    *,
    limit: int,
    cursor: str | None,
) -> tuple[list[tuple[Device, T]], str | None]:
    """Entries by device and place, and the cursor of the next page.

    *place_of*: names no entry with an empty text; entries of a device are in its order.
    """
    after = pages.read_cursor(cursor, Walked, Walked())
    found: list[tuple[Device, T]] = []
    for looked, device in enumerate(_devices(registry, asked, after), start=1):
        here = [(device, entry) for entry in entries_of(device)]
        if device.device == after.device:
            here = [each for each in here if place_of(each[1]) > (after.begin_ms, after.name)]
        room = limit - len(found)
        found += here[:room]
        if len(here) > room:
            last, entry = found[-1]
            return found, pages.write_cursor(Walked(last.device, *place_of(entry)))
        if len(found) == limit or looked >= DEVICES_A_PAGE:
            return found, pages.write_cursor(Walked(device.device))
    return found, None


def _devices(registry: Registry, asked: Meant, after: Walked) -> Iterator[Device]:
    """From the one where the last page ended, if it was not through with it."""
    if asked.device is not None:
        one = registry.device(asked.device)
        if one is not None and not (after.device and not after.name):
            yield one
        return
    if after.name:
        one = registry.device(after.device)
        if one is not None:
            yield one
    behind = after.device
    while True:
        some = registry.devices(asked.wanted, after=behind, rows_max=DEVICES_A_PAGE)
        yield from some
        if len(some) < DEVICES_A_PAGE:
            return
        behind = some[-1].device


@contextmanager
def bounded() -> Iterator[None]:
    """What is too much to be read at once, as a problem."""
    try:
        yield
    except TooMuchError as error:
        raise bad_request("query.from", expected="a shorter time", got=str(error)) from error
