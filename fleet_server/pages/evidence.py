"""``/evidence``: files on their way, and what has arrived; and the history of one piece, from the custody log."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple, TypeAlias

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from broker_config.ids import DEVICE_ID_PATTERN
from fleet_server.access import acting
from fleet_server.access.audit import read
from fleet_server.access.roles import Permission
from fleet_server.api import pages
from fleet_server.api.problems import not_found
from fleet_server.evidence.custody import NOTE, NUMBER, PREV, Entered, Event
from fleet_server.evidence.facts import Progress
from fleet_server.evidence.pieces import PIECE_PATTERN, After, PieceFilter, Pieces, State
from fleet_server.evidence.store import Keeping
from fleet_server.pages import tree, words
from fleet_server.pages.shell import PageRoute, Shell
from fleet_server.registry.store import Registry
from fleet_server.texts import marked

REFRESH_S: Final = 2
HISTORY_REFRESH_S: Final = 15
MOVING_SHOWN_MAX: Final = 50
PIECES_A_PAGE: Final = 50
EVENTS_A_PAGE: Final = 100
STALE_MS: Final = 60_000
"""Of which nothing came for so long, it stands still."""

UnderWay: TypeAlias = Callable[[], Sequence[Progress]]


class _Arrived(NamedTuple):
    received_ms: pages.RowNumber
    piece: str


class Happened(NamedTuple):
    """An event of a piece; ``data``: what the log has of it beside its place in the chain."""

    number: int
    at_ms: int
    key: str
    actor: str
    data: dict[str, str]
    note: str | None
    log: int
    entry: int


def routes(shell: Shell, registry: Registry, pieces: Pieces, keeping: Keeping, under_way: UnderWay) -> APIRouter:
    """Pages of evidence. Every one blocks on its ports, so the framework runs it in a thread."""
    router = APIRouter(route_class=PageRoute)

    @router.get("/evidence")
    def listed(
        request: Request,
        device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN)] = None,
        cursor: pages.Cursor = None,
    ) -> Response:
        moving = [each for each in _theirs(registry, under_way()) if device in {None, each.device}]
        place = pages.read_cursor(cursor, _Arrived | None, None)  # type: ignore[arg-type]
        before = None if place is None else After(*place)
        found = pieces.newest(PieceFilter(device=device), before=before, rows_max=PIECES_A_PAGE + 1)
        page, follows = pages.cut(found, PIECES_A_PAGE)
        return shell.page(
            request,
            "evidence.html",
            shell.texts(request)(marked("Evidence")),
            refresh_s=REFRESH_S,
            device=device,
            moving=moving[:MOVING_SHOWN_MAX],
            more_moving=max(0, len(moving) - MOVING_SHOWN_MAX),
            stale_ms=STALE_MS,
            pieces=[(piece, words.DAMAGES[piece.damage]) for piece in page],
            kept=State.KEPT,
            following=pages.write_cursor((page[-1].received_ms, page[-1].piece)) if follows else None,
            first=cursor is None,
        )

    @router.get("/evidence/pieces/{piece}")
    def one(
        request: Request,
        piece: Annotated[str, Path(pattern=PIECE_PATTERN)],
        number: Annotated[int, Query(ge=0, le=2**53)] = 0,
    ) -> Response:
        found = pieces.piece(piece)
        if found is None:
            raise not_found("piece", f"there is no piece {piece}", expected="one of /evidence")
        events, follows = pages.cut(
            keeping.history(piece, from_number=number, rows_max=EVENTS_A_PAGE + 1), EVENTS_A_PAGE
        )
        return shell.page(
            request,
            "piece.html",
            found.name,
            refresh_s=HISTORY_REFRESH_S,
            piece=found,
            trail=tree.trail(registry.nodes(), found.path),
            damage=words.DAMAGES[found.damage],
            holder_by=None if found.holder_by is None else words.HOLDERS[found.holder_by],
            kept=found.state is State.KEPT,
            # the original is the API's: to get it is an act of its own, which it enters
            may_get=acting.principal().scope(Permission.EVIDENCE_READ).covers(found.path),
            events=[_happened(each) for each in events],
            following=events[-1].number + 1 if follows else None,
        )

    return router


def _theirs(registry: Registry, found: Sequence[Progress]) -> list[Progress]:
    """Of devices that who acts may see; each is asked for once."""
    if acting.scope().everywhere:
        return list(found)
    seen = {device for device in {each.device for each in found} if registry.device(device) is not None}
    return [each for each in found if each.device in seen]


def _happened(found: Entered) -> Happened:
    entry = read(found.raw)
    key = words.CUSTODY.get(Event(entry.action), entry.action) if entry.action in set(Event) else entry.action
    data = {name: value for name, value in entry.data.items() if name not in {NUMBER, PREV, NOTE}}
    return Happened(found.number, entry.at_ms, key, entry.actor, data, found.note, found.log, found.entry)
