"""``/v1/latest`` and ``/v1/gaps``: across all devices."""

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query

from broker_config.ids import DEVICE_ID_PATTERN
from fleet_server.api import models, pages, times
from fleet_server.api.devices import From, To
from fleet_server.telemetry.view import Gap, GapReason, TelemetryView


class GapPlace(NamedTuple):
    """Where a gap stands in the list's order."""

    device: str = ""
    stream: str = ""
    life: str = ""
    first_seq: int = 0
    from_ms: int = 0
    reason: str = ""


def routes(view: TelemetryView, clock: times.Clock) -> APIRouter:
    """The routes across devices. Every one blocks on *view*, so the framework runs it in a thread."""
    router = APIRouter(tags=["telemetry"])

    @router.get("/v1/latest", summary="Newest readings of all devices")
    def latest(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> models.LatestPage:
        """The newest readings of every stream, by device and stream."""
        after = pages.read_cursor(cursor, tuple[str, str], ("", ""))
        rows = sorted(view.latest(), key=lambda row: (row.device, row.stream))
        page, follows = pages.cut((row for row in rows if (row.device, row.stream) > after), limit)
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


def _place(gap: Gap) -> GapPlace:
    return GapPlace(gap.device, gap.stream, gap.life, gap.first_seq, gap.from_ms or 0, gap.reason)
