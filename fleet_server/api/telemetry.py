"""``/v1/latest`` and ``/v1/gaps``: across all devices."""

from collections.abc import Iterator
from typing import Annotated, Final, NamedTuple

from fastapi import Depends, Query

from broker_config.ids import DEVICE_ID_PATTERN
from fleet_server.api import models, pages, times
from fleet_server.api.devices import From, To
from fleet_server.api.filters import filters_of
from fleet_server.api.routes import Routes
from fleet_server.registry.model import DeviceFilter
from fleet_server.registry.store import Registry
from fleet_server.telemetry.store import Latest
from fleet_server.telemetry.view import Gap, GapReason, TelemetryView

DEVICES_A_READ: Final = 100


class GapPlace(NamedTuple):
    """Where a gap stands in the list's order."""

    device: str = ""
    stream: str = ""
    life: str = ""
    first_seq: int = 0
    from_ms: int = 0
    reason: str = ""


def routes(view: TelemetryView, registry: Registry, clock: times.Clock) -> Routes:
    """The routes across devices. Every one blocks on *view*, so the framework runs it in a thread."""
    router = Routes(tags=["telemetry"])

    filtered = filters_of(registry)

    @router.get("/v1/latest", summary="Newest readings of all devices")
    def latest(
        wanted: Annotated[DeviceFilter, Depends(filtered)],
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.LatestPage:
        """The newest readings of every stream of the devices that the filters let through, by device and stream."""
        after = pages.read_cursor(cursor, tuple[str, str], ("", ""))
        page, follows = pages.cut(_latest(view, registry, wanted, after), limit)
        return models.LatestPage(
            latest=[models.Latest.of(row) for row in page],
            next=pages.write_cursor((page[-1].device, page[-1].stream)) if follows else None,
        )

    @router.get("/v1/gaps", summary="What is not there, and why")
    def gaps(
        device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, description="All if not given.")] = None,
        from_: From = None,
        to: To = None,
        reason: Annotated[GapReason | None, Query(description="Only these; all if not given.")] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.GapPage:
        """Every gap that touches the range; the last day if no times are given."""
        span = times.span(from_, to, now_ms=clock(), default_ms=times.DAY_MS, span_ms_max=times.SPAN_MS_MAX)
        after = pages.read_cursor(cursor, GapPlace, GapPlace())
        found = view.gaps(device, from_ms=span.from_ms, to_ms=span.to_ms)
        chosen = sorted((gap for gap in found if reason in {None, gap.reason}), key=_place)
        page, follows = pages.cut((gap for gap in chosen if _place(gap) > after), limit)
        return models.GapPage(
            gaps=[models.Gap.of(gap) for gap in page],
            next=pages.write_cursor(_place(page[-1])) if follows else None,
        )

    return router


def _latest(
    view: TelemetryView, registry: Registry, wanted: DeviceFilter, after: tuple[str, str]
) -> Iterator[Latest]:
    """Rows behind *after*, read a few devices at a time as they are asked for."""
    device, stream = after
    if device:
        yield from (row for row in _of_device(view, device) if row.stream > stream)
    while True:
        entries = registry.devices(wanted, after=device, rows_max=DEVICES_A_READ)
        for entry in entries:
            yield from _of_device(view, entry.device)
        if len(entries) < DEVICES_A_READ:
            return
        device = entries[-1].device


def _of_device(view: TelemetryView, device: str) -> list[Latest]:
    return sorted(view.latest(device), key=lambda row: row.stream)


def _place(gap: Gap) -> GapPlace:
    return GapPlace(gap.device, gap.stream, gap.life, gap.first_seq, gap.from_ms or 0, gap.reason)
