"""``/v1/evidence/interviews``: how far each was recorded, and its signed certificate."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field

from broker_config import device_classes, limits
from broker_config.device_classes import UnknownClassError
from fleet_server.access import acting
from fleet_server.access.auditor import Auditor
from fleet_server.api import pages, times, walks
from fleet_server.api.devices import DeviceName, From, To
from fleet_server.api.evidence import refusals
from fleet_server.api.problems import not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.evidence import certificate
from fleet_server.evidence.interviews import Cause, Interview
from fleet_server.evidence.journal import Noted
from fleet_server.evidence.ledger import Span
from fleet_server.evidence.pieces import RefusedError
from fleet_server.evidence.reconciling import Books
from fleet_server.registry.model import Device
from fleet_server.registry.store import Registry


class InterviewGap(BaseModel):
    """A part that is not recorded, in ms after the begin."""

    from_ms: int
    to_ms: int
    cause: Cause
    detail: str


class InterviewSegment(BaseModel):
    """A piece, and what of the interview it covers, in ms after the begin."""

    piece: str
    recording: str
    number: int
    from_ms: int
    to_ms: int
    sha256: str
    log: int
    entry: int


class EvidenceInterview(BaseModel):
    """An interview, and how far it was recorded."""

    device: str = Field(examples=["room-1"])
    org: str | None = Field(examples=["hq/station-7"])
    reference: str | None = Field(examples=["i-2026-117"])
    begin_ms: TimeMs
    begin_at: TimeAt
    end_ms: TimeMs | None = Field(description="null: it lasts, or its end is not known.")
    end_at: TimeAt
    length_ms: int
    covered_ms: int
    whole: bool = Field(description="It has ended, all of it is here, and sound.")
    gaps_total: int
    gaps: list[InterviewGap]
    segments: list[InterviewSegment]

    @classmethod
    def of(cls, device: Device, found: Interview) -> "EvidenceInterview":
        """As it was found."""
        end_ms = None if found.end is None else found.end.at_ms
        return cls(
            device=device.device,
            org=device.path or None,
            reference=found.reference or None,
            begin_ms=found.begin.at_ms,
            begin_at=rfc3339(found.begin.at_ms),
            end_ms=end_ms,
            end_at=rfc3339(end_ms),
            length_ms=found.length_ms,
            covered_ms=found.covered_ms,
            whole=found.whole,
            gaps_total=found.gaps_total,
            gaps=[
                InterviewGap(from_ms=each.part.from_ms, to_ms=each.part.to_ms, cause=each.cause, detail=each.detail)
                for each in found.gaps
            ],
            segments=[
                InterviewSegment(
                    piece=each.piece.piece,
                    recording=each.piece.recording,
                    number=each.piece.segment,
                    from_ms=each.part.from_ms,
                    to_ms=each.part.to_ms,
                    sha256=each.piece.sha256,
                    log=each.piece.log,
                    entry=each.piece.entry,
                )
                for each in found.segments
            ],
        )


class EvidenceInterviews(BaseModel):
    """By device and begin; `next` is null on the last page."""

    interviews: list[EvidenceInterview]
    next: str | None = Field(description="The cursor of the next page; a page may be empty and have one.")


class SessionCertificate(BaseModel):
    """The file that `fieldfleet evidence certificate` checks."""

    document: str = Field(description="JSON, canonical.")
    note: str = Field(description="A C2SP signed note of the readable text, by the audit log's key.")


def routes(books: Books, registry: Registry, auditor: Auditor, clock: times.Clock) -> Routes:
    """The routes of interviews. Every one blocks on *books*, so the framework runs it in a thread."""
    router = Routes(tags=["ledger"])

    @router.get("/v1/evidence/interviews", summary="Interviews, and how far they were recorded")
    def listed(
        device: walks.DeviceOnly = None,
        node: walks.Node = None,
        from_: From = None,
        to: To = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> EvidenceInterviews:
        """That began in a time, by the room's clock; the last day if none is given."""
        now_ms = clock()
        asked = walks.meant(registry, device, node, None, from_, to, now_ms)

        def of(each: Device) -> list[Interview]:
            return books.interviews(each.device, asked.span, now_ms=now_ms) if _has_interviews(each) else []

        with walks.bounded():
            page, next_ = walks.page(registry, asked, of, _place, limit=limit, cursor=cursor)
        return EvidenceInterviews(interviews=[EvidenceInterview.of(*each) for each in page], next=next_)

    @router.post(
        "/v1/evidence/interviews/{device}/{begin_ms}/certificate",
        summary="Certify an interview",
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    )
    def certify(
        device: DeviceName, begin_ms: Annotated[int, Path(ge=-limits.TIME_MS_MAX, le=limits.TIME_MS_MAX)]
    ) -> SessionCertificate:
        """What the room's journal and the custody log say of it now, signed by the audit log's key."""
        now_ms, entry = clock(), registry.device(device)
        with walks.bounded():
            found = books.interviews(device, Span(begin_ms, begin_ms + 1), now_ms=now_ms)
        if not found or entry is None:
            raise not_found(
                "interview",
                f"no interview began at {device} at {begin_ms}",
                expected="device and begin_ms of /v1/evidence/interviews",
            )
        if found[0].end is None:
            with refusals():
                raise RefusedError("it has not ended, or its end is not known")
        checkpoint = auditor.sign()
        document = certificate.document(
            found[0],
            device=device,
            org=entry.path,
            issued_ms=now_ms,
            issued_by=acting.principal().holder,
            checkpoint=checkpoint or "",
        )
        note = auditor.vouch(certificate.text(document))
        return SessionCertificate(document=certificate.encoded(document), note=note)

    return router


def _has_interviews(device: Device) -> bool:
    """Whether its class can tell of any; of most devices nothing need be read."""
    try:
        return Noted.INTERVIEW_BEGUN.value in device_classes.load(device.registration.device_class).events
    except UnknownClassError:
        return False


def _place(found: Interview) -> tuple[int, str]:
    begin = found.begin
    return begin.at_ms, f"{begin.life}/{begin.seq}/{begin.place}"
