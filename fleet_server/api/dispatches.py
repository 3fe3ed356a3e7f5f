"""``/v1/evidence/dispatches``: calls, the recordings that answer them, and explanations of those that none does."""

from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

import msgspec
from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from broker_config.ids import DEVICE_ID_PATTERN
from broker_config.text import shown
from fleet_server.access import acting
from fleet_server.api import pages, times, walks
from fleet_server.api.devices import From, To
from fleet_server.api.evidence import CHANGE, path_of, refusals
from fleet_server.api.evidence_models import NotesErased
from fleet_server.api.imports import CsvBody, DryRun, line_name, sound, told_of
from fleet_server.api.problems import Fault, invalid, not_found, responses
from fleet_server.api.registry_models import Imported
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.evidence import dispatches
from fleet_server.evidence.custody import NOTE_CHARS_MAX
from fleet_server.evidence.dispatches import (
    WORDS_PATTERN,
    After,
    Dispatches,
    DispatchFilter,
    DispatchLine,
    Judged,
    Outcome,
    Rate,
    Why,
)
from fleet_server.evidence.ledger import Span, Standing
from fleet_server.evidence.pieces import RefusedError
from fleet_server.evidence.reconciling import Books
from fleet_server.registry import imports
from fleet_server.registry.model import SLUG_PATTERN, TEXT_PATTERN
from fleet_server.registry.store import Registry

JUDGED_A_PAGE: Final = 100
"""Each asks for the recordings of a few devices."""
BODY_MAX: Final = 1_000

DispatchId: TypeAlias = Annotated[str, Path(pattern=SLUG_PATTERN, examples=["call-2026-117"])]
Few: TypeAlias = Annotated[int, Query(ge=1, le=JUDGED_A_PAGE, description=f"At most {JUDGED_A_PAGE}.")]
Words: TypeAlias = Annotated[str, Field(pattern=WORDS_PATTERN)]


class DispatchIn(BaseModel):
    """A call as the control room has it: of an officer, a device, or both."""

    model_config = ConfigDict(extra="forbid")

    dispatch: Annotated[str, Field(pattern=SLUG_PATTERN, examples=["call-2026-117"])]
    node: Annotated[str, Field(pattern=SLUG_PATTERN, examples=["station-7"])]
    begin: Annotated[str, Field(max_length=40, description="RFC 3339.", examples=["2026-01-01T08:00:00Z"])]
    end: Annotated[str, Field(max_length=40)] | None = Field(default=None, description="null: it lasts.")
    holder: Words = Field(default="", description="The officer.", examples=["4711"])
    device: Annotated[str, Field(pattern=SLUG_PATTERN)] | None = None
    unit: Annotated[str, Field(pattern=SLUG_PATTERN)] | None = None
    kind: Words = Field(default="", examples=["traffic"])


class DispatchesIn(BaseModel):
    """Calls that begin, end, or are other than was said."""

    model_config = ConfigDict(extra="forbid")

    dispatches: Annotated[list[DispatchIn], Field(min_length=1, max_length=BODY_MAX)]


class ExplanationIn(BaseModel):
    """Why there is no recording."""

    model_config = ConfigDict(extra="forbid")

    why: Why
    note: Annotated[str, Field(max_length=NOTE_CHARS_MAX, pattern=TEXT_PATTERN)] = ""


class EvidenceDispatch(BaseModel):
    """A call, and the recording that answers it or why there is none."""

    dispatch: str = Field(examples=["call-2026-117"])
    org: str | None = Field(description="As at import.", examples=["hq/station-7"])
    holder: str | None = Field(examples=["4711"])
    device: str | None = Field(examples=["cam-7"])
    unit: str | None = Field(examples=["unit-4"])
    kind: str | None = Field(examples=["traffic"])
    begin_ms: TimeMs
    begin_at: TimeAt
    end_ms: TimeMs | None = Field(description="null: it lasts.")
    end_at: TimeAt
    outcome: Outcome
    answered_by: str | None = Field(description="The device whose recording answers it.", examples=["cam-7"])
    recording: str | None = Field(examples=["r-20260101-0800"])
    standing: Standing | None = Field(description="Of that recording.")
    why: Why | None = Field(description="The explanation, given once.")
    note: str | None
    explained_by: str | None = Field(examples=["person:a-meyer"])
    explained_ms: TimeMs | None
    explained_at: TimeAt

    @classmethod
    def of(cls, judged: Judged) -> "EvidenceDispatch":
        """As it was found."""
        call, row, told = judged.dispatch, judged.row, judged.dispatch.explanation
        return cls(
            dispatch=call.dispatch,
            org=call.path or None,
            holder=call.holder or None,
            device=call.device or None,
            unit=call.unit or None,
            kind=call.kind or None,
            begin_ms=call.begin_ms,
            begin_at=rfc3339(call.begin_ms),
            end_ms=call.end_ms,
            end_at=rfc3339(call.end_ms),
            outcome=judged.outcome,
            answered_by=judged.device or None,
            recording=None if row is None else row.recording,
            standing=None if row is None else row.standing,
            why=None if told is None else told.why,
            note=None if told is None else told.note or None,
            explained_by=None if told is None else told.by,
            explained_ms=None if told is None else told.at_ms,
            explained_at=None if told is None else rfc3339(told.at_ms),
        )


class EvidenceDispatches(BaseModel):
    """By begin; `next` is null on the last page."""

    dispatches: list[EvidenceDispatch]
    next: str | None = Field(description="The cursor of the next page; a page may be empty and have one.")


class DispatchRate(BaseModel):
    """Calls of a node and day, counted. What has a node or a day in common adds up."""

    org: str | None = Field(examples=["hq/station-7"])
    day_ms: TimeMs = Field(description="Its first moment, UTC.")
    day_at: TimeAt
    dispatches: int
    recorded: int
    pending: int
    unexplained: int
    explained: int


class DispatchRates(BaseModel):
    """Of a page of calls; `next` is null on the last page, and all pages add up."""

    rates: list[DispatchRate]
    next: str | None = Field(description="The cursor of the next page.")


def routes(calls: Dispatches, books: Books, registry: Registry, clock: times.Clock) -> Routes:
    """The routes of dispatches. Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["ledger"])

    def page(wanted: DispatchFilter, limit: int, cursor: str | None) -> tuple[list[Judged], str | None]:
        after = pages.read_cursor(cursor, After, After(wanted.span.from_ms, ""))
        found, follows = pages.cut(calls.dispatches(wanted, after=after, rows_max=limit + 1), limit)
        with walks.bounded():
            judged = [books.judge(each, now_ms=clock()) for each in found]
        return judged, pages.write_cursor(After(found[-1].begin_ms, found[-1].dispatch)) if follows else None

    def put(lines: list[DispatchLine], where: list[str], *, dry_run: bool) -> Imported:
        paths = {placed.node.node: placed.path for placed in registry.nodes()}
        faults = [
            Fault(where=at, expected="node: a node of /v1/org-nodes", got=line.node)
            for at, line in zip(where, lines, strict=True)
            if line.node not in paths
        ]
        if faults:
            raise invalid(faults)
        with refusals():
            rows = [dispatches.of_line(line, paths[line.node]) for line in lines]
            return told_of(calls.put(rows, dry_run=dry_run), dry_run=dry_run)

    @router.get("/v1/evidence/dispatches", summary="Calls, and whether they were recorded")
    def listed(
        node: walks.Node = None,
        holder: Annotated[str | None, Query(pattern=WORDS_PATTERN)] = None,
        device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN)] = None,
        unit: Annotated[str | None, Query(pattern=SLUG_PATTERN)] = None,
        outcome: Annotated[Outcome | None, Query(description="Only these.")] = None,
        from_: From = None,
        to: To = None,
        limit: Few = JUDGED_A_PAGE,
        cursor: pages.Cursor = None,
    ) -> EvidenceDispatches:
        """Calls that began in a time; the last day if none is given."""
        wanted = _wanted(registry, clock, node, from_, to, holder=holder, device=device, unit=unit)
        judged, next_ = page(wanted, limit, cursor)
        chosen = [EvidenceDispatch.of(each) for each in judged if outcome in {None, each.outcome}]
        return EvidenceDispatches(dispatches=chosen, next=next_)

    @router.get("/v1/evidence/dispatch-rates", summary="Calls, counted by node and day")
    def rated(
        node: walks.Node = None,
        from_: From = None,
        to: To = None,
        limit: Few = JUDGED_A_PAGE,
        cursor: pages.Cursor = None,
    ) -> DispatchRates:
        """`limit` is of the calls that a page counts."""
        judged, next_ = page(_wanted(registry, clock, node, from_, to), limit, cursor)
        found = dispatches.rates(judged)
        return DispatchRates(rates=[_rate(path, day, rate) for (path, day), rate in found.items()], next=next_)

    @router.get("/v1/evidence/dispatches/{dispatch}", summary="One call", responses=responses(HTTPStatus.NOT_FOUND))
    def one(dispatch: DispatchId) -> EvidenceDispatch:
        """With the recording that answers it."""
        return EvidenceDispatch.of(judged(dispatch))

    def judged(dispatch: str) -> Judged:
        found = calls.dispatch(dispatch)
        if found is None:
            raise not_found("dispatch", f"there is no {dispatch}", expected="an id of /v1/evidence/dispatches")
        with walks.bounded():
            return books.judge(found, now_ms=clock())

    @router.post("/v1/evidence/dispatches", summary="Enter calls", responses=responses(HTTPStatus.CONFLICT))
    def enter(body: DispatchesIn, *, dry_run: DryRun = False) -> Imported:
        """All of them or none; one that is there gets exactly what is said now, unless it is explained."""
        lines: list[DispatchLine] = []
        faults: list[Fault] = []
        names: set[str] = set()
        for at, each in enumerate(body.dispatches):
            where = f"body.dispatches.{at}"
            try:
                line = msgspec.convert(each.model_dump(), DispatchLine)
            except msgspec.ValidationError as error:
                faults.append(Fault(where=where, expected=shown(error), got=shown(each.dispatch)))
                continue
            wrong = dispatches.fault_of(line) or ("each dispatch once" if line.dispatch in names else "")
            if wrong:
                faults.append(Fault(where=where, expected=wrong, got=shown(each.dispatch)))
            names.add(line.dispatch)
            lines.append(line)
        if faults:
            raise invalid(faults[: imports.FAULTS_MAX])
        return put(lines, [f"body.dispatches.{at}" for at in range(len(lines))], dry_run=dry_run)

    @router.post(
        "/v1/imports/dispatches",
        summary="Enter calls from CSV",
        responses=responses(HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    )
    def from_csv(body: CsvBody, *, dry_run: DryRun = False) -> Imported:
        """Columns dispatch, node, begin, and any of end, holder, device, unit, kind. All rows or none."""
        read = sound(dispatches.read_csv(body))
        return put(read.rows, [line_name(line) for line in read.lines], dry_run=dry_run)

    @router.post(
        "/v1/evidence/dispatches/{dispatch}/explanation", summary="Explain a call", responses=responses(*CHANGE)
    )
    def explain(dispatch: DispatchId, body: ExplanationIn) -> EvidenceDispatch:
        """Why nothing answers it. It is given once, and not changed afterwards."""
        found = judged(dispatch)
        with refusals():
            if found.outcome not in {Outcome.UNEXPLAINED, Outcome.EXPLAINED}:
                raise RefusedError(f"{dispatch} is {found.outcome}: there is nothing to explain")
            calls.explain(dispatch, body.why, body.note, by=acting.principal().holder, now_ms=clock())
        return EvidenceDispatch.of(judged(dispatch))

    @router.post(
        "/v1/evidence/dispatches/{dispatch}/erase-notes",
        summary="Erase what was written of it",
        responses=responses(*CHANGE),
    )
    def erase_notes(dispatch: DispatchId) -> NotesErased:
        """Beside its explanation, whose reason stays. The log keeps a salted hash, and that it was erased."""
        with refusals():
            return NotesErased(notes=calls.erase_notes(dispatch, by=acting.principal().holder, now_ms=clock()))

    return router


def _wanted(
    registry: Registry,
    clock: times.Clock,
    node: str | None,
    from_: int | None,
    to: int | None,
    *,
    holder: str | None = None,
    device: str | None = None,
    unit: str | None = None,
) -> DispatchFilter:
    path = None if node is None else path_of(registry, node, "query.node")
    span = times.span(from_, to, now_ms=clock(), default_ms=times.DAY_MS, span_ms_max=walks.SPAN_MS_MAX)
    return DispatchFilter(Span(*span), path, holder, device, unit)


def _rate(path: str, day_ms: int, rate: Rate) -> DispatchRate:
    counts = {name: getattr(rate, name) for name in Rate.__slots__}
    return DispatchRate(org=path or None, day_ms=day_ms, day_at=rfc3339(day_ms), **counts)
