"""``/v1/evidence/scrubs``: whether everything that is kept is still what it was."""

from http import HTTPStatus
from typing import Final, NamedTuple

from pydantic import BaseModel, Field

from fleet_server.api import pages
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.evidence.custodian import Custodian
from fleet_server.evidence.scrub import Progress, Scrub

NEWEST: Final = 2**53


class ScrubProgress(BaseModel):
    """Of one that runs."""

    begun_ms: TimeMs
    begun_at: TimeAt
    pieces: int = Field(description="Looked at so far.", examples=[40])
    of: int = Field(examples=[120])
    bytes: int = Field(description="Read so far.", examples=[41943040])

    @classmethod
    def of_(cls, progress: Progress) -> "ScrubProgress":
        """As it is."""
        return cls(**progress._asdict(), begun_at=rfc3339(progress.begun_ms))


class EvidenceScrub(BaseModel):
    """What one came to."""

    begun_ms: TimeMs
    begun_at: TimeAt
    ended_ms: TimeMs
    ended_at: TimeAt
    pieces: int = Field(examples=[120])
    bytes: int = Field(examples=[125829120])
    missing: int = Field(examples=[0])
    altered: int = Field(examples=[0])
    unreadable: int = Field(examples=[0])
    unlike_log: int = Field(description="The index does not say what the log says.", examples=[0])
    unexpected: int = Field(description="Lies in the store, and belongs to no piece.", examples=[0])
    names: list[str] = Field(description="The first of them.", examples=[["altered 0f0f store"]])
    why: str = Field(description="Why it was not finished; empty: it was.", examples=[""])

    @classmethod
    def of(cls, scrub: Scrub) -> "EvidenceScrub":
        """As it is kept."""
        same = {**scrub._asdict(), "names": list(scrub.names)}
        return cls(**same, begun_at=rfc3339(scrub.begun_ms), ended_at=rfc3339(scrub.ended_ms))


class EvidenceScrubs(BaseModel):
    """The newest first; `next` is null on the last page."""

    running: ScrubProgress | None
    scrubs: list[EvidenceScrub]
    next: str | None = Field(description="The cursor of the next page.")


class _Begun(NamedTuple):
    begun_ms: pages.RowNumber


def routes(custodian: Custodian) -> Routes:
    """The routes of scrubs."""
    router = Routes(tags=["evidence"])

    def listed(limit: int, cursor: str | None) -> EvidenceScrubs:
        before = pages.read_cursor(cursor, _Begun, _Begun(NEWEST)).begun_ms
        found = custodian.scrubber.scrubs.all(before_ms=before, rows_max=limit + 1)
        page, follows = pages.cut(found, limit)
        running = custodian.scrubber.progress
        return EvidenceScrubs(
            running=None if running is None else ScrubProgress.of_(running),
            scrubs=[EvidenceScrub.of(each) for each in page],
            next=pages.write_cursor((page[-1].begun_ms,)) if follows else None,
        )

    @router.get("/v1/evidence/scrubs", summary="What was found when everything was read again")
    def scrubs(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> EvidenceScrubs:
        """And how far the one is that runs."""
        return listed(limit, cursor)

    @router.post("/v1/evidence/scrubs", summary="Read everything again", status_code=HTTPStatus.ACCEPTED)
    def scrub() -> EvidenceScrubs:
        """Begins soon, unless one runs; `GET` tells how far it is."""
        if custodian.scrubber.progress is None:
            custodian.scrub_soon()
        return listed(pages.LIMIT_DEFAULT, None)

    return router
