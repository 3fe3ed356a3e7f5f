"""``/v1/evidence/items``: physical items, where they are and who has them."""

from http import HTTPStatus
from typing import Annotated, NamedTuple, TypeAlias

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.access import acting
from fleet_server.api import evidence_models as models
from fleet_server.api import pages, times
from fleet_server.api.evidence import CHANGE, events_page, path_of, refusals
from fleet_server.api.problems import not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeIn, TimeMs, rfc3339
from fleet_server.evidence.custody import NOTE_CHARS_MAX
from fleet_server.evidence.items import ITEM_PATTERN, WORDS_CHARS_MAX, Doing, Item, ItemAct, Items, ItemState
from fleet_server.registry.model import SLUG_PATTERN, TEXT_PATTERN
from fleet_server.registry.store import Registry

ItemName: TypeAlias = Annotated[str, Path(pattern=ITEM_PATTERN, examples=["bag-117"])]
Words: TypeAlias = Annotated[str, Field(max_length=WORDS_CHARS_MAX, pattern=TEXT_PATTERN)]
ItemNote: TypeAlias = Annotated[
    str, Field(max_length=NOTE_CHARS_MAX - 2 * WORDS_CHARS_MAX - 60, pattern=TEXT_PATTERN)
]


class ItemIn(BaseModel):
    """An item that is taken in."""

    model_config = ConfigDict(extra="forbid")

    item: Annotated[str, Field(pattern=ITEM_PATTERN, description="Such as the bag's number.", examples=["bag-117"])]
    node: Annotated[str, Field(pattern=SLUG_PATTERN, description="Whose store has it.", examples=["station-7"])]
    description: Annotated[Words, Field(min_length=1, examples=["a knife, sealed"])]
    case: Words = ""
    note: ItemNote = ""


class StoreIn(BaseModel):
    """Where it is put."""

    model_config = ConfigDict(extra="forbid")

    place: Annotated[Words, Field(min_length=1, examples=["room 2, shelf 14"])]
    note: ItemNote = ""


class LendIn(BaseModel):
    """Who takes it, and until when."""

    model_config = ConfigDict(extra="forbid")

    with_whom: Annotated[Words, Field(min_length=1, examples=["laboratory"])]
    due: TimeIn
    note: ItemNote = ""


class ReturnIn(BaseModel):
    """It is back."""

    model_config = ConfigDict(extra="forbid")

    note: ItemNote = ""


class HandOverIn(BaseModel):
    """Who gets it for good."""

    model_config = ConfigDict(extra="forbid")

    with_whom: Annotated[Words, Field(min_length=1, examples=["the owner"])]
    note: ItemNote = ""


class EvidenceItem(BaseModel):
    """A physical item, where it is and who has it."""

    item: str = Field(examples=["bag-117"])
    org: str | None = Field(examples=["hq/station-7"])
    description: str = Field(examples=["a knife, sealed"])
    case: str = Field(examples=["case-2026-117"])
    state: ItemState
    place: str = Field(description="Where it is kept; of one that is not there: was.", examples=["room 2, shelf 14"])
    with_whom: str = Field(description="Who has it instead.", examples=[""])
    due_ms: TimeMs | None = Field(description="When it is to be back.")
    due_at: TimeAt
    overdue: bool
    taken_in_ms: TimeMs
    taken_in_at: TimeAt
    changed_ms: TimeMs
    changed_at: TimeAt

    @classmethod
    def of(cls, item: Item, *, now_ms: int) -> "EvidenceItem":
        """As it is kept."""
        return cls(
            item=item.item,
            org=item.path or None,
            description=item.description,
            case=item.case_name,
            state=item.state,
            place=item.place,
            with_whom=item.with_whom,
            due_ms=item.due_ms,
            due_at=rfc3339(item.due_ms),
            overdue=item.due_ms is not None and item.due_ms < now_ms,
            taken_in_ms=item.taken_in_ms,
            taken_in_at=rfc3339(item.taken_in_ms),
            changed_ms=item.changed_ms,
            changed_at=rfc3339(item.changed_ms),
        )


class EvidenceItems(BaseModel):
    """By id; `next` is null on the last page."""

    items: list[EvidenceItem]
    next: str | None = Field(description="The cursor of the next page.")


class _Number(NamedTuple):
    number: pages.RowNumber


def routes(items: Items, registry: Registry, clock: times.Clock) -> Routes:
    """The routes of items. Every one blocks on *items*, so the framework runs it in a thread."""
    router = Routes(tags=["evidence"])

    def done(item: str, doing: Doing) -> EvidenceItem:
        with refusals():
            found = items.do(item, doing, by=acting.principal().holder, now_ms=clock())
        return EvidenceItem.of(found, now_ms=clock())

    @router.get("/v1/evidence/items", summary="Physical items")
    def listed(
        state: ItemState | None = None,
        case: Annotated[str | None, Query(max_length=WORDS_CHARS_MAX)] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> EvidenceItems:
        """By id."""
        after = pages.read_cursor(cursor, str, "")
        found = items.items(state=state, case_name=case, within=None, after=after, rows_max=limit + 1)
        page, follows = pages.cut(found, limit)
        return EvidenceItems(
            items=[EvidenceItem.of(each, now_ms=clock()) for each in page],
            next=pages.write_cursor(page[-1].item) if follows else None,
        )

    @router.post(
        "/v1/evidence/items",
        summary="Take an item in",
        status_code=HTTPStatus.CREATED,
        responses=responses(HTTPStatus.CONFLICT),
    )
    def take_in(body: ItemIn) -> EvidenceItem:
        """Into the store of an organisation node."""
        path = path_of(registry, body.node, "body.node")
        with refusals():
            made = items.take_in(
                body.item,
                path=path,
                description=body.description,
                case_name=body.case,
                note=body.note,
                by=acting.principal().holder,
                now_ms=clock(),
            )
        return EvidenceItem.of(made, now_ms=clock())

    @router.get("/v1/evidence/items/{item}", summary="One item", responses=responses(HTTPStatus.NOT_FOUND))
    def one(item: ItemName) -> EvidenceItem:
        """Where it is."""
        found = items.item(item)
        if found is None:
            raise not_found("item", f"there is no item {item}", expected="an id of /v1/evidence/items")
        return EvidenceItem.of(found, now_ms=clock())

    @router.get(
        "/v1/evidence/items/{item}/events", summary="What happened to it", responses=responses(HTTPStatus.NOT_FOUND)
    )
    def events(
        item: ItemName, limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None
    ) -> models.CustodyEvents:
        """By number."""
        at = pages.read_cursor(cursor, _Number, _Number(0)).number
        with refusals():
            return events_page(items.history(item, from_number=at, rows_max=limit + 1), limit)

    @router.post("/v1/evidence/items/{item}/store", summary="Put an item in its place", responses=responses(*CHANGE))
    def store(item: ItemName, body: StoreIn) -> EvidenceItem:
        """Or in another one."""
        return done(item, Doing(ItemAct.STORE, place=body.place, note=body.note))

    @router.post("/v1/evidence/items/{item}/lend", summary="Lend an item", responses=responses(*CHANGE))
    def lend(item: ItemName, body: LendIn) -> EvidenceItem:
        """Until a time."""
        return done(item, Doing(ItemAct.LEND, with_whom=body.with_whom, due_ms=body.due, note=body.note))

    @router.post("/v1/evidence/items/{item}/return", summary="An item is back", responses=responses(*CHANGE))
    def return_(item: ItemName, body: ReturnIn) -> EvidenceItem:
        """And waits to be put in its place."""
        return done(item, Doing(ItemAct.RETURN, note=body.note))

    @router.post("/v1/evidence/items/{item}/hand-over", summary="Hand an item over", responses=responses(*CHANGE))
    def hand_over(item: ItemName, body: HandOverIn) -> EvidenceItem:
        """For good; nothing follows."""
        return done(item, Doing(ItemAct.HAND_OVER, with_whom=body.with_whom, note=body.note))

    return router
