"""``/v1/devices``: who was ever heard of, and what they say."""

import itertools
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

import msgspec
from fastapi import Depends, Path, Query

from broker_config import device_classes
from broker_config.ids import DEVICE_ID_PATTERN, STREAM_PATTERN
from broker_config.telemetry import JOURNAL
from fleet_server.api import models, pages, times
from fleet_server.api.filters import filters_of
from fleet_server.api.problems import bad_request, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.registry.model import DeviceFilter
from fleet_server.registry.store import Registry
from fleet_server.telemetry.store import EventFact, Series
from fleet_server.telemetry.view import DeviceSummary, TelemetryView, never_heard_of

POINTS_MAX: Final = 10_000
RAW_SPAN_MS_MAX: Final = times.DAY_MS
"""A longer range must be asked for in points."""
FIELDS_CHARS_MAX: Final = 2_048
EVENTS_SKIPPED_MAX: Final = 10_000
"""Events of one and the same ms that a cursor may stand behind."""

DeviceName: TypeAlias = Annotated[str, Path(pattern=DEVICE_ID_PATTERN, examples=["car-7"])]
StreamName: TypeAlias = Annotated[str, Path(pattern=STREAM_PATTERN, examples=["cpu"])]
From: TypeAlias = Annotated[times.TimeIn | None, Query(alias="from", description="Inclusive.")]
To: TypeAlias = Annotated[times.TimeIn | None, Query(alias="to", description="Exclusive; now if not given.")]
Fields: TypeAlias = Annotated[
    str | None,
    Query(
        max_length=FIELDS_CHARS_MAX,
        description="Names, comma between; all if not given.",
        examples=["cpu_pct"],
    ),
]


def routes(view: TelemetryView, registry: Registry, clock: times.Clock) -> Routes:
    """The routes of devices. Every one blocks on *view* or *registry*, so the framework runs it in a thread."""
    router = Routes(tags=["devices"])
    filtered = filters_of(registry)

    def known(device: str) -> DeviceSummary:
        found = view.device(device)
        if found is None and registry.device(device) is None:
            raise not_found("device", f"{device} was never heard of", expected="an id of /v1/devices")
        return found or never_heard_of(device)

    @router.get("/v1/devices", summary="Every device")
    def devices(
        wanted: Annotated[DeviceFilter, Depends(filtered)],
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.DevicePage:
        """All devices registered or ever heard of that the filters let through, by id.

        The filters `connected`, `reporting` and `healthy` go by what was last recorded, a few seconds ago at most;
        the facts in the answer are those of now.
        """
        after = pages.read_cursor(cursor, str, "")
        page, follows = pages.cut(registry.devices(wanted, after=after, rows_max=limit + 1), limit)
        return models.DevicePage(
            devices=[
                models.Device.of(entry, view.device(entry.device) or never_heard_of(entry.device)) for entry in page
            ],
            next=pages.write_cursor(page[-1].device) if follows else None,
        )

    @router.get("/v1/devices/{device}", summary="One device", responses=responses(HTTPStatus.NOT_FOUND))
    def device(device: DeviceName) -> models.Device:
        """What the server knows of one device."""
        summary = known(device)
        return models.Device.of(registry.device(device), summary)

    @router.get("/v1/devices/{device}/latest", summary="Newest readings", responses=responses(HTTPStatus.NOT_FOUND))
    def latest(device: DeviceName) -> list[models.Latest]:
        """The newest readings of each of a device's streams."""
        known(device)
        return [models.Latest.of(row) for row in sorted(view.latest(device), key=lambda row: row.stream)]

    @router.get(
        "/v1/devices/{device}/series/{stream}",
        summary="Readings over time",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def series(
        device: DeviceName,
        stream: StreamName,
        from_: From = None,
        to: To = None,
        points: Annotated[
            int | None,
            Query(ge=1, le=POINTS_MAX, description="Buckets at most; needed if the range is more than a day."),
        ] = None,
        fields: Fields = None,
    ) -> models.Series:
        """Readings of one stream between two times, the last hour if none are given; raw, or in at most `points`."""
        summary = known(device)
        if stream == JOURNAL or stream not in {each.stream for each in summary.streams}:
            has = ", ".join(sorted({each.stream for each in summary.streams} - {JOURNAL})) or "none yet"
            raise not_found("stream", f"{device} has no readings called {stream}", expected=f"one of: {has}")
        span = times.span(
            from_,
            to,
            now_ms=clock(),
            default_ms=times.HOUR_MS,
            span_ms_max=RAW_SPAN_MS_MAX if points is None else times.SPAN_MS_MAX,
        )
        found = view.series(device, stream, from_ms=span.from_ms, to_ms=span.to_ms, points=points)
        return series_of(device, stream, span, found, None if fields is None else fields.split(","))

    @router.get("/v1/devices/{device}/events", summary="The journal", responses=responses(HTTPStatus.NOT_FOUND))
    def events(
        device: DeviceName,
        from_: From = None,
        to: To = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.EventPage:
        """What happened on a device, oldest first; the last day if no times are given."""
        known(device)
        span = times.span(from_, to, now_ms=clock(), default_ms=times.DAY_MS, span_ms_max=times.SPAN_MS_MAX)
        from_ms, skip = pages.read_cursor(cursor, tuple[int, int], (span.from_ms, 0))
        if not (span.from_ms <= from_ms < span.to_ms and 0 <= skip <= EVENTS_SKIPPED_MAX):
            raise bad_request("query.cursor", expected="a cursor of the same from and to", got=cursor or "")
        facts = view.events(device, from_ms=from_ms, to_ms=span.to_ms, rows_max=skip + limit + 1)
        page, follows = pages.cut(facts[skip:], limit)
        return models.EventPage(
            device=device,
            events=[_event(fact) for fact in page],
            next=pages.write_cursor(_behind(facts[: skip + limit])) if follows else None,
        )

    return router


def series_of(device: str, stream: str, span: times.Span, found: Series, names: list[str] | None) -> models.Series:
    """As the API tells it; *names*: of fields, None is all. Raises ProblemError: there is no such field."""
    held = found.columns.keys()
    if names is None:
        names = list(held)
    known_names = held | device_classes.known_streams().get(stream, frozenset())
    unknown = [name for name in names if name not in known_names]
    if unknown:
        raise bad_request("query.fields", expected=f"of {', '.join(sorted(known_names))}", got=",".join(unknown))
    nulls: list[float | None] = [None] * len(found.times_ms)
    sampled = found.bucket_ms > 0
    return models.Series(
        device=device,
        stream=stream,
        from_ms=span.from_ms,
        from_at=times.rfc3339(span.from_ms),
        to_ms=span.to_ms,
        to_at=times.rfc3339(span.to_ms),
        bucket_ms=found.bucket_ms,
        rows_total=found.rows_total,
        times_ms=found.times_ms,
        columns={name: found.columns.get(name, nulls) for name in names},
        lows={name: found.lows.get(name, nulls) for name in names} if sampled else {},
        highs={name: found.highs.get(name, nulls) for name in names} if sampled else {},
        counts={name: found.counts.get(name, [0] * len(nulls)) for name in names} if sampled else {},
    )


def _event(fact: EventFact) -> models.Event:
    return models.Event(
        time_ms=fact.at_ms,
        time_at=times.rfc3339(fact.at_ms),
        kind=fact.kind,
        data=msgspec.json.decode(fact.data_json, type=dict[str, float | bool | str | None]),
        boot=fact.boot,
        mono_ms=fact.mono,
        stream=fact.key.stream,
        life=fact.key.life,
        seq=fact.seq,
        place=fact.place,
    )


def _behind(shown: list[EventFact]) -> tuple[int, int]:
    """The last event's time, and how many of *shown* have it."""
    at_ms = shown[-1].at_ms
    return at_ms, sum(1 for _ in itertools.takewhile(lambda fact: fact.at_ms == at_ms, reversed(shown)))
