"""``/v1/sinks``: the time series for others, how far they are, and having them written again."""

from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Path, Query
from pydantic import BaseModel, Field

from broker_config.text import shown
from fleet_server.api import times
from fleet_server.api.problems import ProblemError, bad_request, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.projection.feed import DeadLetter, LeftOutReason, UnknownSinkError
from fleet_server.projection.view import SinkState, SinkStatus, SinkView

ROWS_MAX: Final = 1_000
LINE_CHARS_MAX: Final = 2_000

SinkName: TypeAlias = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,31}$", examples=["influx"])]


class Sink(BaseModel):
    """A projection of the batch store. Counters are from 0 at the server's start, but for `dead_letters`."""

    name: str = Field(examples=["influx"])
    state: SinkState
    behind_commits: int = Field(description="Commits that it has not had.", examples=[0])
    stale_places: int = Field(description="Hours of streams that are to be written again.", examples=[0])
    oldest_age_ms: int = Field(description="For how long the oldest of what it has not had waits.", examples=[0])
    points_written: int = Field(examples=[104_190])
    points_refused: int = Field(description="Points that it takes under no circumstances.", examples=[0])
    points_left_out: dict[LeftOutReason, int] = Field(examples=[{"too_old": 12}])
    dead_letters: int = Field(description="Points that it ever refused.", examples=[0])
    posts: int = Field(examples=[530])
    posts_failed: int = Field(examples=[2])
    last_error: str = Field(examples=["503 Service Unavailable"])
    last_error_ms: TimeMs | None
    last_error_at: TimeAt
    last_written_ms: TimeMs | None
    last_written_at: TimeAt

    @classmethod
    def of(cls, status: SinkStatus) -> "Sink":
        """As the projection has it."""
        return cls(
            name=status.name,
            state=status.state,
            behind_commits=status.behind_commits,
            stale_places=status.stale_places,
            oldest_age_ms=status.oldest_age_ms,
            points_written=status.points_written,
            points_refused=status.points_refused,
            points_left_out=dict(status.points_left_out),
            dead_letters=status.dead_letters,
            posts=status.posts,
            posts_failed=status.posts_failed,
            last_error=status.last_error,
            last_error_ms=status.last_error_ms,
            last_error_at=rfc3339(status.last_error_ms),
            last_written_ms=status.last_written_ms,
            last_written_at=rfc3339(status.last_written_ms),
        )


class Sinks(BaseModel):
    """Every sink that is configured."""

    sinks: list[Sink]


class Rebuild(BaseModel):
    """What will be written again."""

    sink: str = Field(examples=["influx"])
    hours: int = Field(description="Hours of streams.", examples=[336])


class Refused(BaseModel):
    """A point that a sink took under no circumstances."""

    at_ms: TimeMs
    at: TimeAt
    line: str = Field(examples=["power,device=car-7 battery_pct=83.4 1767225600000000000"])
    reason: str = Field(examples=["field type conflict"])

    @classmethod
    def of(cls, letter: DeadLetter) -> "Refused":
        """As the feed kept it."""
        return cls(
            at_ms=letter.at_ms,
            at=rfc3339(letter.at_ms),
            line=shown(letter.line, chars_max=LINE_CHARS_MAX),
            reason=shown(letter.reason),
        )


class RefusedList(BaseModel):
    """The newest first."""

    refused: list[Refused]


def routes(sinks: SinkView, clock: times.Clock) -> Routes:
    """The routes of sinks. Every one blocks on *sinks*, so the framework runs it in a thread."""
    router = Routes(tags=["series"])

    @router.get("/v1/sinks", summary="Time series for others")
    def every() -> Sinks:
        """How far each projection is."""
        return Sinks(sinks=[Sink.of(status) for status in sinks.sinks()])

    @router.post(
        "/v1/sinks/{sink}/rebuild",
        summary="Write a time series again",
        status_code=HTTPStatus.ACCEPTED,
        responses=responses(HTTPStatus.NOT_FOUND),
    )
    def rebuild(
        sink: SinkName,
        from_: Annotated[times.TimeIn, Query(alias="from", description="Everything from this time on.")],
    ) -> Rebuild:
        """From the batch store, beside what is new. The same points again: nothing is doubled."""
        if from_ > clock():
            raise bad_request("query.from", expected="a time that is not ahead of the server's", got=str(from_))
        try:
            return Rebuild(sink=sink, hours=sinks.rebuild(sink, from_))
        except UnknownSinkError as error:
            raise _unknown(sink) from error

    @router.get(
        "/v1/sinks/{sink}/refused", summary="What a time series refused", responses=responses(HTTPStatus.NOT_FOUND)
    )
    def refused(
        sink: SinkName, limit: Annotated[int, Query(ge=1, le=ROWS_MAX, description="Entries at most.")] = 100
    ) -> RefusedList:
        """Points as they were written, each with the sink's own word."""
        try:
            letters = sinks.dead_letters(sink, rows_max=limit)
        except UnknownSinkError as error:
            raise _unknown(sink) from error
        return RefusedList(refused=[Refused.of(letter) for letter in letters])

    return router


def _unknown(sink: str) -> ProblemError:
    return not_found("sink", f"no sink {sink} is configured", expected="a name of /v1/sinks")
