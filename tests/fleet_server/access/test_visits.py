"""A session of who showed a token is as good as the token, and no longer than its time."""

from dataclasses import dataclass, field

import pytest

from fleet_server.access import visits
from fleet_server.access.people import Principal
from fleet_server.access.persons import SessionRules
from fleet_server.access.visits import Visits

RULES = SessionRules(whole_ms=10_000, idle_ms=1_000)
ANN = Principal("ann", "Ann", ())


@dataclass
class Tokens:
    """A store of tokens that knows some."""

    good: set[str] = field(default_factory=lambda: {"a", "b"})

    def authenticate(self, secret: str, *, now_ms: int) -> Principal | None:
        return ANN if secret in self.good else None


def begun(kept: Visits, *, token: str = "a", instead_of: str | None = None, now_ms: int = 0) -> str:
    found = kept.begin(token, instead_of=instead_of, now_ms=now_ms)
    assert found is not None
    return found.session


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def kept(tokens: Tokens) -> Visits:
    return Visits(tokens, RULES)  # type: ignore[arg-type] # only this much of it is asked


def test_a_bad_token_begins_nothing(kept: Visits) -> None:
    assert kept.begin("stranger", instead_of=None, now_ms=0) is None


def test_use_keeps_a_session_alive_until_its_whole_time_is_over(kept: Visits) -> None:
    session = begun(kept)
    for now_ms in range(900, 10_000, 900):
        assert kept.of_session(session, now_ms=now_ms) == ANN
    assert kept.of_session(session, now_ms=10_000) is None


def test_who_does_nothing_is_out(kept: Visits) -> None:
    session = begun(kept)
    assert kept.of_session(session, now_ms=1_000) is None
    assert kept.of_session(session, now_ms=500) is None  # and stays so, whatever the clock says


def test_a_revoked_token_ends_its_sessions(kept: Visits, tokens: Tokens) -> None:
    session = begun(kept)
    tokens.good.clear()
    assert kept.of_session(session, now_ms=1) is None


def test_another_sign_in_ends_the_browsers_former_session(kept: Visits) -> None:
    former = begun(kept)
    session = begun(kept, token="b", instead_of=former)
    assert kept.of_session(former, now_ms=1) is None
    assert kept.of_session(session, now_ms=1) == ANN


@pytest.mark.parametrize("text", ["", "a", "é" * 43, "\0" * 43, "x" * 43])
def test_what_is_no_session_is_nobodys(kept: Visits, text: str) -> None:
    begun(kept)
    assert kept.of_session(text, now_ms=1) is None
    kept.end(text)


def test_the_one_used_longest_ago_makes_room(kept: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "VISITS_MAX", 2)
    first, second = begun(kept), begun(kept)
    assert kept.of_session(first, now_ms=1) == ANN
    third = begun(kept)
    assert kept.of_session(second, now_ms=2) is None
    assert kept.of_session(first, now_ms=2) == kept.of_session(third, now_ms=2) == ANN
