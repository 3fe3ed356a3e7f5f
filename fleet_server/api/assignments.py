"""``/v1/assignments`` and what devices and officers have of them: who had what when, and what was said of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Path, Query, Response

from broker_config.ids import DEVICE_ID_PATTERN
from fleet_server.access import acting
from fleet_server.api import assignment_models as models
from fleet_server.api import pages, times, walks
from fleet_server.api.conditions import IfMatch, etag, to_change
from fleet_server.api.devices import DeviceName, From, To
from fleet_server.api.evidence import path_of
from fleet_server.api.imports import CsvBody, DryRun, sound, told_of
from fleet_server.api.problems import Fault, ProblemError, not_found, responses
from fleet_server.api.readiness import Judges, registered
from fleet_server.api.refusals import CHANGE, translated
from fleet_server.api.registry_models import Imported
from fleet_server.api.routes import Routes
from fleet_server.registry import assignments as book
from fleet_server.registry import readiness
from fleet_server.registry.assignment_store import BEGINNING, After, AssignmentFilter, Assignments
from fleet_server.registry.assignments import (
    ASSIGNMENT_PATTERN,
    BADGE_PATTERN,
    AssignmentError,
    Correction,
    Handing,
    HeldError,
    NotHeldError,
)
from fleet_server.registry.model import SLUG_PATTERN
from fleet_server.registry.readiness import Outcome, Table
from fleet_server.registry.store import Registry

IMPORT: Final = (HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

AssignmentId: TypeAlias = Annotated[str, Path(pattern=ASSIGNMENT_PATTERN, examples=["0f" * 8])]
Officer: TypeAlias = Annotated[str, Path(pattern=BADGE_PATTERN, description="A badge's id.", examples=["4711"])]
KnownAt: TypeAlias = Annotated[
    times.TimeIn | None, Query(alias="known_at", description="By what had been said until then; now if not given.")
]
Word: TypeAlias = Annotated[str | None, Query(pattern=BADGE_PATTERN)]


@dataclass(frozen=True, slots=True)
class Assigning:
    """What the routes of assignments stand on; ``table``: what makes a device ready."""

    book: Assignments
    table: Table


def routes(said: Assignments, registry: Registry) -> Routes:
    """The routes that tell. Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["assignments"])

    @router.get("/v1/assignments", summary="Who had what")
    def listed(
        device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN)] = None,
        node: Annotated[str | None, Query(pattern=SLUG_PATTERN, description="Given out there or below.")] = None,
        vehicle: Word = None,
        shift: Word = None,
        unit: walks.Unit = None,
        lasting: Annotated[bool | None, Query(description="true: that have not ended.")] = None,
        from_: From = None,
        to: To = None,
        known_at: KnownAt = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.Assignments:
        """That touch a time; all of them if none is given. What an officer had is told by `/v1/officers`, where it is
        recorded who asked.
        """
        path = None if node is None else path_of(registry, node, "query.node")
        wanted = AssignmentFilter(
            device=device,
            vehicle=vehicle,
            shift=shift,
            unit=unit,
            from_ms=from_,
            to_ms=to,
            lasting=lasting,
            path=path,
        )
        return _page(said, wanted, known_at, limit, cursor)

    @router.get(
        "/v1/assignments/{assignment}", summary="All that was said of one", responses=responses(HTTPStatus.NOT_FOUND)
    )
    def one(assignment: AssignmentId, response: Response) -> models.AssignmentHistory:
        """Its revisions, also of one that was withdrawn; with the ETag, which a correction must give."""
        found = said.history(assignment)
        if not found:
            raise not_found("assignment", f"there is no {assignment}", expected="an id of /v1/assignments")
        response.headers["ETag"] = etag(found[-1].revision)
        return models.AssignmentHistory(
            assignment=assignment, revisions=[models.Assignment.of(each) for each in found]
        )

    @router.get(
        "/v1/devices/{device}/assignments", summary="Who had a device", responses=responses(HTTPStatus.NOT_FOUND)
    )
    def of_device(
        device: DeviceName,
        from_: From = None,
        to: To = None,
        known_at: KnownAt = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.Assignments:
        """In a time; ever, if none is given. Who had it at a moment: `to` is a ms behind `from`."""
        return _page(said, AssignmentFilter(device=device, from_ms=from_, to_ms=to), known_at, limit, cursor)

    @router.get(
        "/v1/officers/{officer}/assignments",
        summary="What an officer had",
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def of_officer(
        officer: Officer,
        from_: From = None,
        to: To = None,
        known_at: KnownAt = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.Assignments:
        """In a time; ever, if none is given."""
        known_officer(said, officer)
        return _page(said, AssignmentFilter(officer=officer, from_ms=from_, to_ms=to), known_at, limit, cursor)

    return router


def acts(said: Assignments, registry: Registry, judges: Judges, clock: times.Clock) -> Routes:
    """The routes that say something."""
    router = Routes(tags=["assignments"])

    def answer(made: book.Assignment, response: Response) -> models.Assignment:
        response.headers["ETag"] = etag(made.revision)
        return models.Assignment.of(made)

    @router.post("/v1/devices/{device}/check-out", summary="Give a device out", responses=responses(*CHANGE))
    def check_out(
        device: DeviceName, body: models.CheckOutIn, response: Response, *, dry_run: DryRun = False
    ) -> models.CheckedOut:
        """If it is with nobody and is ready; what is not ready needs `override`, its reason."""
        now_ms = clock()
        answers = judges.answers(registered(registry, device), now_ms=now_ms)
        unready = readiness.broken(answers)
        if unready and body.override is None and not dry_run:
            raise _not_ready(device, answers)
        reason = (body.override or "") if unready else ""
        handing = Handing(device, body.whom, _me(), body.at, None, reason, unready)
        with _said(device):
            made = said.check_out(handing, now_ms=now_ms, dry_run=dry_run)
        told = None if dry_run else answer(made, response)
        return models.CheckedOut(dry_run=dry_run, readiness=models.Readiness.of(device, answers), assignment=told)

    @router.post("/v1/devices/{device}/check-in", summary="Take a device back", responses=responses(*CHANGE))
    def check_in(device: DeviceName, body: models.CheckInIn, response: Response) -> models.Assignment:
        """It is with nobody from then on."""
        with _said(device):
            made = said.check_in(device, at_ms=body.at, reason="", by=_me(), now_ms=clock())
        return answer(made, response)

    @router.post("/v1/devices/{device}/hand-over", summary="From one to another", responses=responses(*CHANGE))
    def hand_over(device: DeviceName, body: models.HandingIn, response: Response) -> models.Assignment:
        """From whom it is with to another, with no moment between; in the field, where nothing is made ready."""
        with _said(device):
            made = said.hand_over(Handing(device, body.whom, _me(), body.at), now_ms=clock())
        return answer(made, response)

    @router.post(
        "/v1/assignments/{assignment}/correction",
        summary="Say something else of one",
        responses=responses(*CHANGE),
    )
    def correct(
        assignment: AssignmentId, body: models.CorrectionIn, response: Response, if_match: IfMatch = None
    ) -> models.Assignment:
        """A further revision, with its reason; what was said before is still told by `known_at`."""
        condition = to_change(if_match)
        correction = Correction(
            body.reason,
            _me(),
            officer=body.officer,
            vehicle=body.vehicle,
            shift=body.shift,
            unit=body.unit,
            from_ms=body.begin,
            to_ms=body.end,
            lasting=body.lasting,
            withdraw=body.withdraw,
        )
        with _said(assignment):
            made = said.correct(assignment, correction, expected=condition.expected, now_ms=clock())
        return answer(made, response)

    @router.post("/v1/imports/assignments", summary="Enter assignments from CSV", responses=responses(*IMPORT))
    def from_csv(body: CsvBody, *, dry_run: DryRun = False) -> Imported:
        """Columns device, begin, and any of end, officer, vehicle, shift, unit: what was so, all rows or none. One
        that is there exactly so stays as it is.
        """
        read = sound(book.read_csv(body))
        rows = [book.handing_of(line, _me()) for line in read.rows]
        with _said(None):
            return told_of(said.enter(rows, now_ms=clock(), dry_run=dry_run), dry_run=dry_run)

    return router


def known_officer(said: Assignments, officer: str) -> None:
    """Raises ProblemError: they never had anything, as far as who asks may see."""
    if not said.assignments(AssignmentFilter(officer=officer), rows_max=1):
        raise not_found("officer", f"{officer} had no device", expected="a badge of /v1/assignments")


def _page(
    said: Assignments, wanted: AssignmentFilter, known_ms: int | None, limit: int, cursor: str | None
) -> models.Assignments:
    after = pages.read_cursor(cursor, After, BEGINNING)
    found = said.assignments(wanted, known_ms=known_ms, after=after, rows_max=limit + 1)
    page, follows = pages.cut(found, limit)
    return models.Assignments(
        assignments=[models.Assignment.of(each) for each in page],
        next=pages.write_cursor((page[-1].from_ms, page[-1].assignment)) if follows else None,
    )


@contextmanager
def _said(subject: str | None) -> Iterator[None]:
    """Why nothing was said, as problems."""
    with translated(subject):
        try:
            yield
        except HeldError as error:
            raise _held(error) from error
        except NotHeldError as error:
            raise ProblemError(HTTPStatus.CONFLICT, "not-held", "It is with nobody", str(error)) from error
        except AssignmentError as error:
            raise ProblemError(HTTPStatus.CONFLICT, "refused", "Assignments have rules", str(error)) from error


def _held(error: HeldError) -> ProblemError:
    expected = f"its check-in, a hand-over, or a correction of {error.held.assignment}"
    return ProblemError(HTTPStatus.CONFLICT, "held", "It is with somebody", str(error), expected=expected)


def _not_ready(device: str, answers: list[readiness.Answer]) -> ProblemError:
    faults = [
        Fault(where=f"readiness.{each.rule}", expected=each.expected, got=f"{each.outcome}: {each.got}")
        for each in answers
        if each.outcome is not Outcome.OK
    ]
    return ProblemError(
        HTTPStatus.CONFLICT,
        "not-ready",
        "It is not ready",
        f"{device}: {', '.join(readiness.broken(answers))}",
        expected="a device that is ready, or an override with its reason",
        errors=faults,
    )


def _me() -> str:
    return acting.principal().holder
