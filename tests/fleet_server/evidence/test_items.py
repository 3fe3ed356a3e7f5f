"""What may follow what of a physical item: every pair that is not in the table is refused."""

from itertools import product

import pytest

from fleet_server.evidence.items import TRANSITIONS, Doing, ItemAct, ItemState, refusal

WORDS = {
    ItemAct.STORE: Doing(ItemAct.STORE, place="shelf 14"),
    ItemAct.LEND: Doing(ItemAct.LEND, with_whom="laboratory", due_ms=1),
    ItemAct.RETURN: Doing(ItemAct.RETURN),
    ItemAct.HAND_OVER: Doing(ItemAct.HAND_OVER, with_whom="the owner"),
}


@pytest.mark.parametrize(("state", "act"), list(product(ItemState, ItemAct)))
def test_only_what_the_table_says_can_be_done(state: ItemState, act: ItemAct) -> None:
    assert (refusal(state, WORDS[act]) == "") == ((state, act) in TRANSITIONS)


def test_what_was_handed_over_never_comes_back() -> None:
    assert not any(state is ItemState.HANDED_OVER for state, _ in TRANSITIONS)


@pytest.mark.parametrize(
    ("state", "doing", "why"),
    [
        (ItemState.TAKEN_IN, Doing(ItemAct.STORE), "expected a place"),
        (ItemState.TAKEN_IN, Doing(ItemAct.STORE, place="x", with_whom="y"), "expected no with_whom"),
        (ItemState.STORED, Doing(ItemAct.LEND, with_whom="y"), "expected a due_ms"),
        (ItemState.STORED, Doing(ItemAct.HAND_OVER), "expected a with_whom"),
        (ItemState.LENT, Doing(ItemAct.RETURN, place="x"), "expected no place"),
    ],
)
def test_an_act_has_its_words_and_no_others(state: ItemState, doing: Doing, why: str) -> None:
    assert why in refusal(state, doing)
