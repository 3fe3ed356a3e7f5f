"""``/v1/evidence/ledger``: what devices say they recorded, and what of it is here, verified."""

from typing import Annotated, NamedTuple

from fastapi import Query
from pydantic import BaseModel, Field

from broker_config.ranges import Ranges
from fleet_server.api import pages, times, walks
from fleet_server.api.devices import From, To
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.evidence import ledger
from fleet_server.evidence.ledger import Row, Standing, Totals
from fleet_server.evidence.pieces import HolderBy
from fleet_server.evidence.reconciling import Books
from fleet_server.registry.model import Device
from fleet_server.registry.store import Registry


class LedgerRow(BaseModel):
    """A recording that was expected, and how it stands."""

    device: str = Field(examples=["cam-7"])
    org: str | None = Field(description="Of the node at its arrival; of what has not come, now.")
    unit: str | None = Field(description="The duty unit of the device, now.", examples=["unit-4"])
    recording: str | None = Field(description="null: a start that nothing followed, or a file that stands alone.")
    upload: str | None = Field(description="Of a file that stands alone.", examples=["0f" * 16])
    file_class: str | None = Field(examples=["recordings"])
    holder: str | None = Field(description="Who had the device when it began.", examples=["4711"])
    holder_by: HolderBy | None = Field(description="Who says so.")
    trigger: str = Field(examples=["button"])
    reason: str = Field(description="Why it ended.", examples=["button"])
    begin_ms: TimeMs
    begin_at: TimeAt
    end_ms: TimeMs | None = Field(description="null: not ended, or not known.")
    end_at: TimeAt
    closed: bool = Field(description="The device has said how many segments there are.")
    segments: int = Field(description="So many, or known of so far.", examples=[12])
    sealed: Ranges = Field(description="Segments that the device has signed.", examples=[[[1, 12]]])
    verified: Ranges = Field(description="Segments that are here.", examples=[[[1, 11]]])
    skipped: Ranges = Field(description="Segments that never were, as the device says.", examples=[[]])
    missing: Ranges = Field(description="Segments that are neither.", examples=[[[12, 12]]])
    size: int = Field(description="Bytes of what is here.", examples=[1048576])
    done_ms: TimeMs | None = Field(description="When all was here.")
    done_at: TimeAt
    due_ms: TimeMs = Field(description="When all is to be here.")
    due_at: TimeAt
    late_ms: int = Field(description="How long after that it was, or is not yet.", examples=[0])
    standing: Standing

    @classmethod
    def of(cls, device: Device, row: Row, *, now_ms: int) -> "LedgerRow":
        """As it was found."""
        same = {name: getattr(row, name) for name in cls.model_fields if name in Row.__slots__}
        told = {
            "device": device.device,
            "org": row.path or device.path or None,
            "unit": device.registration.unit,
            "recording": row.recording or None,
            "upload": row.upload or None,
            "file_class": row.file_class or None,
            "holder": row.holder or None,
            "late_ms": row.late_ms(now_ms),
            **{f"{name}_at": rfc3339(same[f"{name}_ms"]) for name in ("begin", "end", "done", "due")},
        }
        return cls(**{**same, **told})


class LedgerRows(BaseModel):
    """By device and begin; `next` is null on the last page."""

    rows: list[LedgerRow]
    next: str | None = Field(description="The cursor of the next page; a page may be empty and have one.")


class LedgerDay(BaseModel):
    """A device's recordings that began on a day, counted. What has a node, a unit or a day in common adds up."""

    device: str = Field(examples=["cam-7"])
    org: str | None = Field(description="The device's node now.", examples=["hq/station-7"])
    unit: str | None = Field(examples=["unit-4"])
    day_ms: TimeMs = Field(description="Its first moment, UTC.")
    day_at: TimeAt
    expected: int
    closed: int
    verified: int
    incomplete: int
    damaged: int
    overdue: int
    late: int = Field(description="All here, after it was due.")
    late_ms_max: int
    begun_only: int = Field(description="Of which the journal has the start alone.")
    segments_missing: int
    size: int = Field(description="Bytes of what is here.")


class LedgerDays(BaseModel):
    """By device and day; `next` is null on the last page."""

    days: list[LedgerDay]
    next: str | None = Field(description="The cursor of the next page; a page may be empty and have one.")


class _Day(NamedTuple):
    day_ms: int
    totals: Totals


def routes(books: Books, registry: Registry, clock: times.Clock) -> Routes:
    """The routes of the ledger. Every one blocks on *books*, so the framework runs it in a thread."""
    router = Routes(tags=["ledger"])

    @router.get("/v1/evidence/ledger", summary="Expected, recorded, uploaded, verified")
    def rows(
        device: walks.DeviceOnly = None,
        node: walks.Node = None,
        unit: walks.Unit = None,
        standing: Annotated[Standing | None, Query(description="Only these.")] = None,
        from_: From = None,
        to: To = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> LedgerRows:
        """Recordings that began in a time, by the device's clock: known from its journal, or because they came."""
        now_ms = clock()
        asked = walks.meant(registry, device, node, unit, from_, to, now_ms)

        def of(each: Device) -> list[Row]:
            found = books.rows(each.device, asked.span, now_ms=now_ms)
            return [row for row in found if standing in {None, row.standing}]

        with walks.bounded():
            page, next_ = walks.page(registry, asked, of, _place, limit=limit, cursor=cursor)
        return LedgerRows(rows=[LedgerRow.of(*each, now_ms=now_ms) for each in page], next=next_)

    @router.get("/v1/evidence/ledger-days", summary="The ledger, counted by device and day")
    def days(
        device: walks.DeviceOnly = None,
        node: walks.Node = None,
        unit: walks.Unit = None,
        from_: From = None,
        to: To = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> LedgerDays:
        """What of a page has something in common adds up, but for `late_ms_max`."""
        now_ms = clock()
        asked = walks.meant(registry, device, node, unit, from_, to, now_ms)

        def of(each: Device) -> list[_Day]:
            found = ledger.days(books.rows(each.device, asked.span, now_ms=now_ms), now_ms=now_ms)
            return [_Day(day_ms, totals) for day_ms, totals in found.items()]

        with walks.bounded():
            page, next_ = walks.page(
                registry, asked, of, lambda each: (each.day_ms, "day"), limit=limit, cursor=cursor
            )
        return LedgerDays(days=[_day(*each) for each in page], next=next_)

    return router


def _place(row: Row) -> tuple[int, str]:
    return row.begin_ms, f"{row.file_class}/{row.recording or row.upload}"


def _day(device: Device, day: _Day) -> LedgerDay:
    return LedgerDay(
        device=device.device,
        org=device.path or None,
        unit=device.registration.unit,
        day_ms=day.day_ms,
        day_at=rfc3339(day.day_ms),
        **{name: getattr(day.totals, name) for name in Totals.__slots__},
    )
