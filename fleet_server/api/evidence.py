"""``/v1/evidence/pieces`` and ``/v1/evidence/holds``: what is kept, what happened to it, and acts on it."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, BinaryIO, Final, NamedTuple, TypeAlias

from fastapi import Path, Query
from fastapi.responses import StreamingResponse

from broker_config.ids import DEVICE_ID_PATTERN, HEX64_PATTERN, STREAM_PATTERN
from broker_config.text import shown
from fleet_server.access import acting
from fleet_server.api import evidence_models as models
from fleet_server.api import pages, times
from fleet_server.api.devices import From, To
from fleet_server.api.problems import ProblemError, bad_request, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.evidence.content import Content, ContentError, MissingContentError
from fleet_server.evidence.custodian import Custodian
from fleet_server.evidence.custody import Entered, Event
from fleet_server.evidence.dispatches import WORDS_PATTERN, Dispatches
from fleet_server.evidence.exporting import Sources
from fleet_server.evidence.items import Items
from fleet_server.evidence.pieces import (
    BEGINNING,
    PIECE_PATTERN,
    After,
    Piece,
    PieceFilter,
    Pieces,
    RefusedError,
    SecondPersonError,
    State,
    UnknownPieceError,
)
from fleet_server.evidence.store import Deletions, Keeping, Retention
from fleet_server.registry.model import SLUG_PATTERN
from fleet_server.registry.store import Registry

READ_BYTES: Final = 256 * 1024
DIGEST: Final = "Repr-Digest"
"""RFC 9530, of what the device's manifest says; whoever gets the bytes can compare."""
CHANGE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

PieceId: TypeAlias = Annotated[str, Path(pattern=PIECE_PATTERN, examples=["0f" * 16])]
Slug: TypeAlias = Annotated[str | None, Query(pattern=SLUG_PATTERN)]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the routes of evidence stand on. ``content``: where originals are read; ``delay_ms``: of deletions;
    ``sources``: of exports.
    """

    pieces: Pieces
    keeping: Keeping
    deletions: Deletions
    retention: Retention
    items: Items
    dispatches: Dispatches
    content: Content
    custodian: Custodian
    delay_ms: int
    sources: Sources


class OriginalResponse(StreamingResponse):
    """A file as the device made it; no browser is to show it as a page."""

    media_type = "application/octet-stream"


class _Number(NamedTuple):
    number: pages.RowNumber


class _Arrived(NamedTuple):
    received_ms: pages.RowNumber
    piece: str


def routes(
    pieces: Pieces, keeping: Keeping, retention: Retention, content: Content, registry: Registry, clock: times.Clock
) -> Routes:
    """The routes of pieces. Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["evidence"])

    def told(piece: Piece) -> models.EvidencePiece:
        return models.EvidencePiece.of(piece, retention.rules(now_ms=clock()))

    @router.get("/v1/evidence/pieces", summary="What is kept")
    def listed(
        device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, examples=["cam-7"])] = None,
        node: Annotated[str | None, Query(pattern=SLUG_PATTERN, description="At this node or below.")] = None,
        holder: Annotated[
            str | None,
            Query(pattern=WORDS_PATTERN, description="The officer: by the manifest, or else by assignment."),
        ] = None,
        recording: Slug = None,
        file_class: Annotated[str | None, Query(pattern=STREAM_PATTERN, examples=["recordings"])] = None,
        evidence_class: Annotated[
            str | None, Query(pattern=models.CLASS_PATTERN, description="`unclassified`: those without one.")
        ] = None,
        hold: Slug = None,
        sha256: Annotated[str | None, Query(pattern=HEX64_PATTERN)] = None,
        state: State | None = None,
        damaged: Annotated[bool | None, Query(description="Whether the last scrub found something.")] = None,
        from_: From = None,
        to: To = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.EvidencePieces:
        """Pieces in the order of their arrival; `from` and `to` are of the device's own time."""
        wanted = PieceFilter(
            device=device,
            holder=holder or None,
            path=None if node is None else path_of(registry, node, "query.node"),
            recording=recording,
            file_class=file_class,
            evidence_class=evidence_class,
            hold=hold,
            sha256=sha256,
            state=state,
            damaged=damaged,
            from_ms=from_,
            to_ms=to,
        )
        after = After(*pages.read_cursor(cursor, _Arrived, _Arrived(*BEGINNING)))
        page, follows = pages.cut(pieces.pieces(wanted, after=after, rows_max=limit + 1), limit)
        rules = retention.rules(now_ms=clock())
        return models.EvidencePieces(
            pieces=[models.EvidencePiece.of(each, rules) for each in page],
            next=pages.write_cursor((page[-1].received_ms, page[-1].piece)) if follows else None,
        )

    @router.get("/v1/evidence/pieces/{piece}", summary="One piece", responses=responses(HTTPStatus.NOT_FOUND))
    def one(piece: PieceId) -> models.EvidencePieceSigned:
        """With what the device signed."""
        return models.EvidencePieceSigned.of(known(pieces, piece), retention.rules(now_ms=clock()))

    @router.get(
        "/v1/evidence/pieces/{piece}/events", summary="What happened to it", responses=responses(HTTPStatus.NOT_FOUND)
    )
    def events(
        piece: PieceId, limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None
    ) -> models.CustodyEvents:
        """By number; each is an entry of the audit log, and `raw` is what the log's proofs are about."""
        at = pages.read_cursor(cursor, _Number, _Number(0)).number
        with refusals():
            return events_page(keeping.history(piece, from_number=at, rows_max=limit + 1), limit)

    @router.get(
        "/v1/evidence/pieces/{piece}/original",
        summary="The file",
        response_class=OriginalResponse,
        responses={
            **responses(*CHANGE),
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        },
    )
    def original(piece: PieceId) -> OriginalResponse:
        """As the device made it. That it was looked at is in the log before the first byte goes out."""
        found = known(pieces, piece)
        with refusals():
            if found.state is State.DELETED:
                raise RefusedError(f"{piece} is deleted")
            file = content.open(found.sha256)
            try:
                record(keeping, piece, Event.VIEWED, clock, sha256=found.sha256)
            except BaseException:
                file.close()
                raise
        digest = base64.b64encode(bytes.fromhex(found.sha256)).decode("ascii")
        return OriginalResponse(
            _parts(file),
            headers={
                "Content-Length": str(found.size),
                "Content-Disposition": f'attachment; filename="{piece}"',
                DIGEST: f"sha-256=:{digest}:",
            },
        )

    @router.post("/v1/evidence/pieces/{piece}/classes", summary="Classify it", responses=responses(*CHANGE))
    def classify(piece: PieceId, body: models.ClassesIn) -> models.EvidencePiece:
        """Of several classes the longest retention wins; without one it is kept for ever."""
        both = set(body.add) & set(body.remove)
        if both:
            raise bad_request("body.remove", expected="none of body.add", got=", ".join(sorted(both)))
        with refusals():
            return told(keeping.classify(piece, add=body.add, remove=body.remove, by=_me(), now_ms=clock()))

    @router.post("/v1/evidence/pieces/{piece}/holds", summary="Hold it", responses=responses(*CHANGE))
    def hold_(piece: PieceId, body: models.HoldIn) -> models.EvidencePiece:
        """It is not deleted until this hold, and every other one, is released."""
        with refusals():
            return told(keeping.hold(piece, body.hold, body.reason, by=_me(), now_ms=clock()))

    @router.post("/v1/evidence/pieces/{piece}/release", summary="Release a hold", responses=responses(*CHANGE))
    def release(piece: PieceId, body: models.HoldIn) -> models.EvidencePiece:
        """Others go on."""
        with refusals():
            return told(keeping.release(piece, body.hold, body.reason, by=_me(), now_ms=clock()))

    @router.post(
        "/v1/evidence/pieces/{piece}/erase-notes",
        summary="Erase what was written of it",
        responses=responses(*CHANGE),
    )
    def erase_notes(piece: PieceId) -> models.NotesErased:
        """Notes and reasons, of a deleted piece too. The log keeps their salted hashes, and that they were erased."""
        with refusals():
            return models.NotesErased(notes=keeping.erase_notes(piece, by=_me(), now_ms=clock()))

    @router.get("/v1/evidence/holds", summary="What is held, and why")
    def holds(
        hold: Slug = None,
        piece: Annotated[str | None, Query(pattern=PIECE_PATTERN)] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.EvidenceHolds:
        """Those that were released too."""
        after = pages.read_cursor(cursor, tuple[str, str], ("", ""))
        page, follows = pages.cut(keeping.holds(hold=hold, piece=piece, after=after, rows_max=limit + 1), limit)
        return models.EvidenceHolds(
            holds=[models.EvidenceHold.of(each) for each in page],
            next=pages.write_cursor((page[-1].hold, page[-1].piece)) if follows else None,
        )

    return router


def known(pieces: Pieces, piece: str) -> Piece:
    """Raises ProblemError."""
    found = pieces.piece(piece)
    if found is None:
        raise not_found("piece", f"there is no piece {piece}", expected="an id of /v1/evidence/pieces")
    return found


def record(keeping: Keeping, piece: str, event: Event, clock: times.Clock, **data: str) -> None:
    """Enter that somebody looked at a piece, or takes it along."""
    keeping.record(piece, event, by=_me(), data=data, now_ms=clock())


def events_page(found: Sequence[Entered], limit: int) -> models.CustodyEvents:
    """A page of a chain of events."""
    page, follows = pages.cut(found, limit)
    return models.CustodyEvents(
        events=[models.CustodyEvent.of(each) for each in page],
        next=pages.write_cursor((page[-1].number + 1,)) if follows else None,
    )


def path_of(registry: Registry, node: str, where: str) -> str:
    """A node's path. Raises ProblemError."""
    placed = next((placed for placed in registry.nodes() if placed.node.node == node), None)
    if placed is None:
        raise bad_request(where, expected="a node of /v1/org-nodes", got=node)
    return placed.path


@contextmanager
def refusals() -> Iterator[None]:
    """Why nothing was done, as problems."""
    try:
        yield
    except UnknownPieceError as error:
        raise not_found(error.what, str(error), expected=f"a {error.what} of /v1/evidence") from error
    except RefusedError as error:
        kind = "same-person" if isinstance(error, SecondPersonError) else "refused"
        raise ProblemError(HTTPStatus.CONFLICT, kind, "It cannot be done", str(error)) from error
    except MissingContentError as error:
        detail = "its content is not in the store; a scrub names all that is missing"
        raise ProblemError(HTTPStatus.CONFLICT, "content-missing", "The content is not there", detail) from error
    except ContentError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable", "The store is down", shown(error)
        ) from error


def _me() -> str:
    return acting.principal().holder


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while part := file.read(READ_BYTES):
            yield part
