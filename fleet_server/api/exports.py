"""``/v1/evidence/exports``: bundles that a stranger can check; asked for first, entered in the log, then taken."""

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Path
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker_config.ids import DEVICE_ID_PATTERN
from broker_config.text import shown
from fleet_server.access import acting
from fleet_server.access.notes import NOTE_CHARS_MAX
from fleet_server.api import times
from fleet_server.api.evidence import CHANGE, path_of, refusals
from fleet_server.api.problems import responses
from fleet_server.api.routes import Routes
from fleet_server.evidence.content import ContentError
from fleet_server.evidence.exporting import WAIT_MS, Export, Exporter, Wanted
from fleet_server.evidence.pieces import PIECE_PATTERN, PieceFilter
from fleet_server.registry.model import SLUG_PATTERN
from fleet_server.registry.store import Registry

NAMED_MAX: Final = 500
WITNESSED_MAX: Final = 8
MEDIA_TYPE: Final = "application/zip"
PARTS_BYTES: Final = 256 * 1024

ExportId: TypeAlias = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", examples=["0f" * 8])]
PieceName: TypeAlias = Annotated[str, Field(pattern=PIECE_PATTERN, examples=["0f" * 16])]
Slug: TypeAlias = Annotated[str, Field(pattern=SLUG_PATTERN)]

logger = logging.getLogger(__name__)


class BundleResponse(StreamingResponse):
    """A zip whose members are stored."""

    media_type = MEDIA_TYPE


class ExportIn(BaseModel):
    """What is wanted: `pieces`, or else all that is kept of a `recording`, or of a time, by the device's clock."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    pieces: list[PieceName] = Field(default=[], max_length=NAMED_MAX)
    recording: Slug | None = Field(default=None, examples=["r-20260101-0800"])
    device: str | None = Field(default=None, pattern=DEVICE_ID_PATTERN, examples=["cam-7"])
    node: Slug | None = Field(default=None, description="At this node or below, when it arrived.", examples=["hq"])
    from_: times.TimeIn | None = Field(default=None, alias="from")
    to: times.TimeIn | None = None
    witnessed: list[Annotated[str, Field(max_length=NOTE_CHARS_MAX)]] = Field(
        default=[], max_length=WITNESSED_MAX, description="Checkpoints of the log that a witness has signed."
    )

    @model_validator(mode="after")
    def _means_something(self) -> "ExportIn":
        filtered = self.recording is not None or (self.device or self.node) is not None
        if bool(self.pieces) == filtered:
            raise ValueError("expected pieces, or else a recording, a device or a node")
        if self.pieces and (self.from_ is not None or self.to is not None):
            raise ValueError("expected no time with pieces")
        return self


class EvidenceExport(BaseModel):
    """A bundle that waits to be taken, by whoever asked for it."""

    export: str = Field(examples=["0f" * 8])
    pieces: int = Field(examples=[3])
    size_bytes: int = Field(description="Of its members; the file is a little larger.", examples=[1048576])
    until_ms: times.TimeMs
    until_at: times.TimeAt

    @classmethod
    def of(cls, made: Export) -> "EvidenceExport":
        """As it waits."""
        until_ms = made.made_ms + WAIT_MS
        return cls(
            export=made.export,
            pieces=len(made.pieces),
            size_bytes=made.size_bytes,
            until_ms=until_ms,
            until_at=times.rfc3339(until_ms),
        )


def routes(exporter: Exporter, registry: Registry, clock: times.Clock) -> Routes:
    """The routes of exports. Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["evidence"])

    @router.post(
        "/v1/evidence/exports",
        status_code=HTTPStatus.CREATED,
        summary="Put a bundle together",
        responses=responses(*CHANGE),
    )
    def ask(body: ExportIn) -> EvidenceExport:
        """Of what is kept. That it was exported is in the log of each piece, with the digest of what goes out."""
        filtered = None
        if not body.pieces:
            path = None if body.node is None else path_of(registry, body.node, "body.node")
            filtered = PieceFilter(
                device=body.device, recording=body.recording, path=path, from_ms=body.from_, to_ms=body.to
            )
        with refusals():
            wanted = Wanted(body.pieces, filtered, body.witnessed)
            return EvidenceExport.of(exporter.ask(wanted, by=acting.principal().holder, now_ms=clock()))

    @router.get(
        "/v1/evidence/exports/{export}",
        summary="Take a bundle",
        response_class=BundleResponse,
        responses={
            **responses(HTTPStatus.NOT_FOUND),
            200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
        },
    )
    def take(export: ExportId) -> BundleResponse:
        """A zip, for `verify.py`. It ends early, and is no zip then, if a content is not what was entered."""
        with refusals():
            made = exporter.waiting(export, by=acting.principal().holder, now_ms=clock())
        name = f"evidence-{export}.zip"
        return BundleResponse(
            _told(_gathered(exporter.parts(made)), export),
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return router


def _gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same in fewer parts: most members are small."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PARTS_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _told(parts: Iterator[bytes], export: str) -> Iterator[bytes]:
    try:
        yield from parts
    except ContentError as error:
        logger.error("a bundle ended early", extra={"export": export, "error": shown(error)})  # noqa: TRY400
        raise
