"""Physical items in the evidence store: what may follow what, and the port. Values only.

An item's acts are custody events of ``item:ID``. What is written of places and people is in the index; the log has
salted hashes of it, as of every note.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Protocol, TypeAlias

import msgspec
from msgspec import Meta

from fleet_server.evidence.custody import Entered, Event

ITEM_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,63}$"
WORDS_CHARS_MAX: Final = 120
ItemId: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]


class ItemState(StrEnum):
    """Where an item is in its life; ``handed_over`` is its end here."""

    TAKEN_IN = "taken_in"
    STORED = "stored"
    LENT = "lent"
    RETURNED = "returned"
    HANDED_OVER = "handed_over"


class ItemAct(StrEnum):
    """What is done with an item."""

    STORE = "store"
    LEND = "lend"
    RETURN = "return"
    HAND_OVER = "hand-over"


TRANSITIONS: Final[Mapping[tuple[ItemState, ItemAct], ItemState]] = {
    (ItemState.TAKEN_IN, ItemAct.STORE): ItemState.STORED,
    (ItemState.TAKEN_IN, ItemAct.HAND_OVER): ItemState.HANDED_OVER,
    (ItemState.STORED, ItemAct.STORE): ItemState.STORED,  # to another place
    (ItemState.STORED, ItemAct.LEND): ItemState.LENT,
    (ItemState.STORED, ItemAct.HAND_OVER): ItemState.HANDED_OVER,
    (ItemState.LENT, ItemAct.RETURN): ItemState.RETURNED,
    (ItemState.RETURNED, ItemAct.STORE): ItemState.STORED,
    (ItemState.RETURNED, ItemAct.HAND_OVER): ItemState.HANDED_OVER,
}
EVENTS: Final[Mapping[ItemAct, Event]] = {
    ItemAct.STORE: Event.ITEM_STORED,
    ItemAct.LEND: Event.ITEM_LENT,
    ItemAct.RETURN: Event.ITEM_RETURNED,
    ItemAct.HAND_OVER: Event.ITEM_HANDED_OVER,
}


@dataclass(frozen=True, slots=True)
class Item:
    """An item. ``path``: of the organisation node whose store has it; ``place``: where it is kept, of one that is not
    there: was; ``with_whom``: who has it instead, ``due_ms``: until when.
    """

    item: str
    path: str
    description: str
    case_name: str
    state: ItemState
    place: str
    with_whom: str
    due_ms: int | None
    taken_in_ms: int
    changed_ms: int


@dataclass(frozen=True, slots=True)
class Doing:
    """An act and its words: STORE needs a place, LEND and HAND_OVER somebody, LEND a time; the others none."""

    act: ItemAct
    place: str = ""
    with_whom: str = ""
    due_ms: int | None = None
    note: str = ""


def refusal(state: ItemState, doing: Doing) -> str:
    """Why it cannot be done with an item in this state; empty if it can."""
    if (state, doing.act) not in TRANSITIONS:
        may = ", ".join(act for act in ItemAct if (state, act) in TRANSITIONS) or "nothing"
        return f"it is {state}: expected {may}, got {doing.act}"
    needs = {
        "place": doing.act is ItemAct.STORE,
        "with_whom": doing.act in {ItemAct.LEND, ItemAct.HAND_OVER},
        "due_ms": doing.act is ItemAct.LEND,
    }
    for name, needed in needs.items():
        if needed != bool(getattr(doing, name)):
            return f"{doing.act}: expected {'a' if needed else 'no'} {name}"
    return ""


def words(**said: str | int | None) -> str:
    """What was written, as one note; empty values are left out."""
    return msgspec.json.encode({name: value for name, value in said.items() if value}).decode()


class Items(Protocol):
    """The index of items. See :mod:`fleet_server.evidence.store` for what every act keeps and raises."""

    def item(self, item: str) -> Item | None:
        """One of them."""

    def items(
        self,
        *,
        state: ItemState | None,
        case_name: str | None,
        within: Sequence[str] | None,
        after: str,
        rows_max: int,
    ) -> Sequence[Item]:
        """By id, behind *after*; *within*: at one of these nodes or below, None is anywhere."""

    def take_in(
        self, item: str, *, path: str, description: str, case_name: str, note: str, by: str, now_ms: int
    ) -> Item:
        """Raises RefusedError: there is one of that id."""

    def do(self, item: str, doing: Doing, *, by: str, now_ms: int) -> Item:
        """Raises UnknownPieceError, RefusedError: its state does not allow it, and see :func:`refusal`."""

    def history(self, item: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """Its events, by number. Raises UnknownPieceError."""
