"""``/v1/officers/{officer}/series``: what devices measured while one officer had them."""

from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Query

from fleet_server.api import assignment_models as models
from fleet_server.api import devices, pages, times
from fleet_server.api.assignments import Officer, known_officer
from fleet_server.api.devices import POINTS_MAX, RAW_SPAN_MS_MAX, Fields, From, StreamName, To
from fleet_server.api.problems import responses
from fleet_server.api.routes import Routes
from fleet_server.registry.assignment_store import After, AssignmentFilter, Assignments
from fleet_server.registry.assignments import Assignment
from fleet_server.telemetry.view import TelemetryView

HELD_A_PAGE: Final = 20
"""Each costs a range of a series."""

Few: TypeAlias = Annotated[
    int, Query(ge=1, le=HELD_A_PAGE, description=f"Assignments a page, at most {HELD_A_PAGE}.")
]


def routes(said: Assignments, view: TelemetryView, clock: times.Clock) -> Routes:
    """The route of an officer's readings. It blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["assignments"])

    @router.get(
        "/v1/officers/{officer}/series/{stream}",
        summary="Readings while an officer had the device",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def series(
        officer: Officer,
        stream: StreamName,
        from_: From = None,
        to: To = None,
        points: Annotated[
            int | None,
            Query(ge=1, le=POINTS_MAX, description="Buckets at most, of each; needed for more than a day."),
        ] = None,
        fields: Fields = None,
        limit: Few = HELD_A_PAGE,
        cursor: pages.Cursor = None,
    ) -> models.OfficerSeries:
        """Of every device that they had and that has such a stream, each cut to when they had it; the last day if no
        times are given. Devices time their readings by their own clocks, assignments are by the server's.
        """
        known_officer(said, officer)
        span = times.span(
            from_,
            to,
            now_ms=clock(),
            default_ms=times.DAY_MS,
            span_ms_max=RAW_SPAN_MS_MAX if points is None else times.SPAN_MS_MAX,
        )
        wanted = AssignmentFilter(officer=officer, from_ms=span.from_ms, to_ms=span.to_ms)
        after = pages.read_cursor(cursor, After, After(-(2**62), ""))
        page, follows = pages.cut(said.assignments(wanted, after=after, rows_max=limit + 1), limit)
        names = None if fields is None else fields.split(",")
        held: list[models.OfficerReadings] = []
        for each in page:
            summary = view.device(each.device)
            if summary is None or stream not in {has.stream for has in summary.streams}:
                continue
            cut = _cut(each, span)
            found = view.series(each.device, stream, from_ms=cut.from_ms, to_ms=cut.to_ms, points=points)
            told = devices.series_of(each.device, stream, cut, found, names)
            held.append(models.OfficerReadings(assignment=each.assignment, series=told))
        return models.OfficerSeries(
            officer=officer,
            stream=stream,
            held=held,
            next=pages.write_cursor((page[-1].from_ms, page[-1].assignment)) if follows else None,
        )

    return router


def _cut(held: Assignment, span: times.Span) -> times.Span:
    """To when they had it."""
    to_ms = span.to_ms if held.to_ms is None else min(span.to_ms, held.to_ms)
    return times.Span(max(span.from_ms, held.from_ms), to_ms)
