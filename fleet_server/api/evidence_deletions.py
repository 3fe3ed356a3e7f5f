"""``/v1/evidence/deletions`` and ``/v1/evidence/retention``: what may be deleted, by whom, and when."""

from http import HTTPStatus
from typing import Annotated, NamedTuple, TypeAlias

from fastapi import Path, Query

from fleet_server.access import acting
from fleet_server.api import evidence_models as models
from fleet_server.api import pages, times
from fleet_server.api.evidence import CHANGE, PieceId, known, refusals
from fleet_server.api.problems import not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.evidence.pieces import Pieces
from fleet_server.evidence.retention import RECORDING_FLOOR_D, Deletion
from fleet_server.evidence.store import Deletions, Retention

ID_PATTERN = r"^[0-9a-f]{16}$"

DeletionId: TypeAlias = Annotated[str, Path(pattern=ID_PATTERN, examples=["0f" * 8])]
ChangeId: TypeAlias = Annotated[str, Path(pattern=ID_PATTERN, examples=["0f" * 8])]
ClassId: TypeAlias = Annotated[str, Path(pattern=models.CLASS_PATTERN, examples=["traffic_stop"])]


class _Asked(NamedTuple):
    asked_ms: pages.RowNumber
    deletion: str


def deletion_routes(pieces: Pieces, deletions: Deletions, *, delay_ms: int, clock: times.Clock) -> Routes:
    """The routes of deletions. Every one blocks on its ports, so the framework runs it in a thread."""
    router = Routes(tags=["evidence"])

    def told(deletion: Deletion) -> models.EvidenceDeletion:
        return models.EvidenceDeletion.of(deletion, known(pieces, deletion.piece), delay_ms=delay_ms)

    @router.post("/v1/evidence/pieces/{piece}/deletion", summary="Ask for a deletion", responses=responses(*CHANGE))
    def ask(piece: PieceId, body: models.ReasonIn) -> models.EvidenceDeletion:
        """Done once somebody else has agreed and the delay is over, unless it is held by then."""
        with refusals():
            return told(deletions.ask(piece, body.reason, by=acting.principal().holder, now_ms=clock()))

    @router.get("/v1/evidence/deletions", summary="What is to be deleted, and what was")
    def listed(
        *,
        open_: Annotated[bool, Query(alias="open", description="Only those that may still be done.")] = False,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.EvidenceDeletions:
        """By when they were asked for."""
        after = pages.read_cursor(cursor, _Asked, _Asked(0, ""))
        page, follows = pages.cut(deletions.deletions(open_only=open_, after=after, rows_max=limit + 1), limit)
        return models.EvidenceDeletions(
            deletions=[models.EvidenceDeletion.of(each, piece, delay_ms=delay_ms) for each, piece in page],
            next=pages.write_cursor((page[-1][0].asked_ms, page[-1][0].deletion)) if follows else None,
        )

    @router.get(
        "/v1/evidence/deletions/{deletion}", summary="One deletion", responses=responses(HTTPStatus.NOT_FOUND)
    )
    def one(deletion: DeletionId) -> models.EvidenceDeletion:
        """As it stands."""
        found = deletions.deletion(deletion)
        if found is None:
            raise not_found(
                "deletion", f"there is no deletion {deletion}", expected="an id of /v1/evidence/deletions"
            )
        return models.EvidenceDeletion.of(*found, delay_ms=delay_ms)

    @router.post(
        "/v1/evidence/deletions/{deletion}/approve", summary="Agree to a deletion", responses=responses(*CHANGE)
    )
    def approve(deletion: DeletionId) -> models.EvidenceDeletion:
        """By another one than who asked."""
        with refusals():
            return told(deletions.approve(deletion, by=acting.principal().holder, now_ms=clock()))

    @router.post(
        "/v1/evidence/deletions/{deletion}/withdraw", summary="Take a deletion back", responses=responses(*CHANGE)
    )
    def withdraw(deletion: DeletionId, body: models.ReasonIn) -> models.EvidenceDeletion:
        """Until it is done. What retention asks for is asked for again; a hold keeps it."""
        with refusals():
            by = acting.principal().holder
            return told(deletions.withdraw(deletion, body.reason, by=by, now_ms=clock()))

    return router


def retention_routes(retention: Retention, clock: times.Clock) -> Routes:
    """The routes of retention."""
    router = Routes(tags=["evidence"])

    @router.get("/v1/evidence/retention", summary="How long each class is kept")
    def state() -> models.RetentionState:
        """What counts now, and every change that was ever proposed."""
        rules = retention.rules(now_ms=clock())
        return models.RetentionState(
            rules=[models.RetentionRule(evidence_class=name, keep_days=rules[name]) for name in sorted(rules)],
            recordings_floor_days=RECORDING_FLOOR_D,
            changes=[models.RetentionChange.of(each) for each in retention.changes()],
        )

    @router.put(
        "/v1/evidence/retention/{evidence_class}",
        summary="Propose a retention",
        responses=responses(HTTPStatus.CONFLICT),
    )
    def propose(
        evidence_class: ClassId,
        body: models.RetentionIn,
        *,
        dry_run: Annotated[bool, Query(description="Only tell what it would do; say false to propose it.")] = True,
    ) -> models.RetentionProposal:
        """Which pieces it is about, and from when they might be deleted. It counts once another one has agreed and
        a delay is over.
        """
        effects = retention.effects(evidence_class, body.keep_days, now_ms=clock())
        if dry_run:
            return models.RetentionProposal.of(effects, None)
        with refusals():
            by = acting.principal().holder
            change = retention.propose(evidence_class, body.keep_days, body.reason, by=by, now_ms=clock())
        return models.RetentionProposal.of(effects, change)

    @router.post(
        "/v1/evidence/retention/changes/{change}/approve",
        summary="Agree to a retention",
        responses=responses(*CHANGE),
    )
    def approve(change: ChangeId) -> models.RetentionChange:
        """By another one than who proposed it."""
        with refusals():
            return models.RetentionChange.of(retention.approve(change, by=acting.principal().holder, now_ms=clock()))

    @router.post(
        "/v1/evidence/retention/changes/{change}/withdraw", summary="Take a change back", responses=responses(*CHANGE)
    )
    def withdraw(change: ChangeId) -> models.RetentionChange:
        """Until it counts."""
        with refusals():
            return models.RetentionChange.of(retention.withdraw(change, by=acting.principal().holder, now_ms=clock()))

    return router
