"""A witness signs every log that only grew, and no other."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config import merkle
from fleet_server.access import audit, notes, tlog, witness
from fleet_server.access.notes import COSIGNATURE, Checkpoint, Signer
from fleet_server.access.tlog import Leaves, Node
from fleet_server.access.witness import RefusedError, State
from tests.fleet_server.access.drafts import LOG, SIGNER, SITE

WITNESS = Signer("witness.example/w1", bytes(range(1, 33)), COSIGNATURE)
NOTHING = State(SIGNER.verifier.text(), WITNESS.verifier.text(), {})
SIZE = 40


class Log:
    """A history, and what its server shows of it."""

    def __init__(self, entries: Sequence[str], number: int = LOG) -> None:
        self._frontier, self._held = tlog.Frontier(), dict[Node, bytes]()
        self._origin = audit.origin(SITE, number)
        for entry in entries:
            self._held.update(self._frontier.append(merkle.leaf_hash(entry.encode())))

    def note(self, size: int) -> str:
        return SIGNER.sign(Checkpoint(self._origin, size, tlog.hash_of(Leaves(0, size), self._held)).text())

    def proof(self, old: int, size: int) -> list[bytes]:
        return [tlog.hash_of(each, self._held) for each in tlog.consistency(old, size)] if old else []

    def shown_to(self, state: State, size: int, *, new_log: bool = False) -> State:
        ask = witness.look(state, self.note(size), new_log=new_log)
        proof = self.proof(ask.old.size if ask.old else 0, size)
        return witness.cosigned(state, ask, self.note(size), proof, WITNESS, at_s=7)


HONEST = Log([f"entry {index}" for index in range(SIZE)])


@given(sizes=st.lists(st.integers(1, SIZE), min_size=1, max_size=6).map(sorted))
@settings(max_examples=100, deadline=None)
def test_a_log_that_grows_is_signed(sizes: list[int]) -> None:
    state = NOTHING
    for size in sizes:
        state = HONEST.shown_to(state, size)
    (note,) = state.seen.values()
    assert notes.checkpoint_of(note).size == sizes[-1]
    assert notes.opened(note, WITNESS.verifier) == (7,)


@given(seen=st.integers(1, SIZE), now=st.integers(1, SIZE), changed=st.integers(0, SIZE - 1))
@settings(max_examples=200, deadline=None)
def test_another_history_is_signed_only_where_nothing_of_it_was_seen(seen: int, now: int, changed: int) -> None:
    state = HONEST.shown_to(NOTHING, seen)
    other = Log([f"{'other' if index == changed else 'entry'} {index}" for index in range(SIZE)])
    if now >= seen and changed >= seen:
        other.shown_to(state, now)  # what came later could have been anything
    else:
        with pytest.raises(RefusedError):
            other.shown_to(state, now)


@given(seen=st.integers(2, SIZE), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_log_that_shrank_is_refused(seen: int, data: st.DataObject) -> None:
    state = HONEST.shown_to(NOTHING, seen)
    with pytest.raises(RefusedError, match="entries were seen, and now"):
        HONEST.shown_to(state, data.draw(st.integers(1, seen - 1)))


def test_a_log_that_began_anew_is_refused_until_somebody_says_so() -> None:
    state, after = HONEST.shown_to(NOTHING, 5), Log(["again"], LOG + 1)
    with pytest.raises(RefusedError, match="another log"):
        after.shown_to(state, 1)
    followed = after.shown_to(state, 1, new_log=True)
    assert len(followed.seen) == 2, "what was seen of the old one stays"


def test_what_the_server_did_not_sign_is_refused() -> None:
    forged = Signer(SIGNER.name, bytes(32)).sign(notes.checkpoint_of(HONEST.note(3)).text())
    for note in (forged, "", HONEST.note(3)[:-9]):
        with pytest.raises(RefusedError, match="not the server's"):
            witness.look(NOTHING, note, new_log=False)
