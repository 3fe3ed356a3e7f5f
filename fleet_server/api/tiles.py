"""``/v1/audit/logs/{log}``: a log in the C2SP formats, for whoever has a client of those."""

import base64
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple, TypeAlias

from fastapi import Path, Response
from pydantic import BaseModel, Field

from fleet_server.access import audit, tiles, tlog
from fleet_server.access.auditor import Auditor
from fleet_server.access.notes import Checkpoint
from fleet_server.access.timestamps import Timestamp, Timestamps
from fleet_server.access.tlog import Leaves
from fleet_server.api import pages
from fleet_server.api.audit import NoteResponse, signed
from fleet_server.api.problems import bad_request, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339

NOT_THERE: Final = responses(HTTPStatus.NOT_FOUND)

Log: TypeAlias = Annotated[int, Path(ge=0, le=audit.INDEX_MAX, description="Its number.", examples=[1767254400000])]
TilePlace: TypeAlias = Annotated[
    str,
    Path(
        pattern=tiles.PLACE_PATTERN,
        description="The tile's number in groups of three digits, and `.p/` with the width of a partial one.",
        examples=["x001/x234/067", "000.p/20"],
    ),
]


class OctetResponse(Response):
    """Hashes, or entries each behind its length."""

    media_type = "application/octet-stream"


class LogTimestamp(BaseModel):
    """That a checkpoint was there at a time, by an authority outside (RFC 3161)."""

    size: int = Field(description="Entries of the log then.", examples=[41])
    at_ms: TimeMs = Field(description="By the server's clock, when it came; the authority's time is in the token.")
    at: TimeAt
    tsa: str = Field(examples=["https://tsa.example"])
    note: str = Field(description="The checkpoint, whose bytes are stamped.")
    token: str = Field(description="TimeStampResp, DER, in base64: for `openssl ts -verify -in TOKEN -data NOTE`.")

    @classmethod
    def of(cls, kept: Timestamp) -> "LogTimestamp":
        """As it is kept."""
        token = base64.b64encode(kept.token).decode("ascii")
        same = {name: getattr(kept, name) for name in ("size", "at_ms", "tsa", "note")}
        return cls(**same, at=rfc3339(kept.at_ms), token=token)


class LogTimestamps(BaseModel):
    """By size; `next` is null on the last page."""

    timestamps: list[LogTimestamp]
    next: str | None = Field(description="The cursor of the next page.")


class _From(NamedTuple):
    size: pages.RowNumber


def routes(auditor: Auditor, timestamps: Timestamps | None) -> Routes:
    """The routes of tiles. Every one blocks on its stores, so the framework runs it in a thread.

    *timestamps*: None if there are none.
    """
    router = Routes(tags=["audit"])

    @router.get(
        "/v1/audit/logs/{log}/checkpoint",
        summary="What was signed last of a log",
        response_class=NoteResponse,
        responses=NOT_THERE,
    )
    def checkpoint(log: Log) -> NoteResponse:
        """C2SP tlog-checkpoint; `/v1/audit/logs/{log}` is the prefix of C2SP tlog-tiles."""
        return NoteResponse(signed(auditor.store, log).note)

    @router.get(
        "/v1/audit/logs/{log}/tile/entries/{place:path}",
        summary="Entries in a bundle",
        response_class=OctetResponse,
        responses=NOT_THERE,
    )
    def entries(log: Log, place: TilePlace) -> OctetResponse:
        """Up to 256, each behind its length as two bytes, big-endian (C2SP tlog-tiles)."""
        wanted = _leaves(0, place, signed(auditor.store, log).checkpoint)
        found = auditor.store.entries(log, from_index=wanted[0].begin, rows_max=len(wanted))
        return OctetResponse(tiles.bundle(found))

    @router.get(
        "/v1/audit/logs/{log}/tile/{level}/{place:path}",
        summary="Hashes of the tree, in a tile",
        response_class=OctetResponse,
        responses=NOT_THERE,
    )
    def tile(log: Log, level: Annotated[int, Path(ge=0, le=63, examples=[0])], place: TilePlace) -> OctetResponse:
        """Up to 256 of 32 bytes (C2SP tlog-tiles); of what the last checkpoint covers."""
        wanted = _leaves(level, place, signed(auditor.store, log).checkpoint)
        return OctetResponse(b"".join(auditor.store.hashes(log, wanted)))

    @router.get(
        "/v1/audit/logs/{log}/proofs/{index}",
        summary="That an entry is in the log, as a file",
        response_class=NoteResponse,
        responses=NOT_THERE,
    )
    def proof(log: Log, index: Annotated[int, Path(ge=0, le=audit.INDEX_MAX, examples=[41])]) -> NoteResponse:
        """C2SP tlog-proof, under the last checkpoint; whoever has the entry checks it with the log's key alone."""
        last = signed(auditor.store, log)
        size = last.checkpoint.size
        if index >= size:
            raise not_found("entry", f"{index} is not among the {size} that are signed", expected="a smaller index")
        hashes = auditor.store.hashes(log, tlog.inclusion(index, size))
        return NoteResponse(tiles.proof_text(index, hashes, last.note))

    @router.get("/v1/audit/logs/{log}/timestamps", summary="When checkpoints were there")
    def stamped(log: Log, limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> LogTimestamps:
        """Of those that an authority outside has stamped."""
        at = pages.read_cursor(cursor, _From, _From(0)).size
        found = [] if timestamps is None else timestamps.all(log, from_size=at, rows_max=limit + 1)
        page, follows = pages.cut(found, limit)
        return LogTimestamps(
            timestamps=[LogTimestamp.of(each) for each in page],
            next=pages.write_cursor((page[-1].size + 1,)) if follows else None,
        )

    return router


def _leaves(level: int, place: str, checkpoint: Checkpoint) -> tuple[Leaves, ...]:
    try:
        wanted = tiles.Place.parse(place)
    except tiles.TileError as error:
        raise bad_request("path.place", expected=str(error), got=place) from error
    try:
        return tiles.leaves_of(level, wanted, checkpoint.size)
    except tiles.TileError as error:
        raise not_found("tile", str(error), expected="a tile of what the checkpoint covers") from error
