"""A token is good for what it was granted where, until it ends; nobody gives what they do not have."""

import pytest
from sqlalchemy import Engine, text

from fleet_server.access.people import (
    FIRST,
    ROOT,
    BeyondScopeError,
    LastAdministratorError,
    NodeGrant,
    PeopleError,
    Principal,
    SamePersonError,
    TakenTokenError,
    UnknownTokenError,
    new_secret,
)
from fleet_server.access.roles import Grant, Role
from fleet_server.adapters.sql.people import SqlPeople
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.registry.model import InUseError, NodeKind, OrgNode, UnknownError

ADMIN = NodeGrant(Role.ADMINISTRATOR, None)
VIEWER = NodeGrant(Role.VIEWER, "station-7")


@pytest.fixture
def people(engine: Engine, registry: SqlRegistry) -> SqlPeople:
    """Nobody yet."""
    assert registry.nodes()
    return SqlPeople(engine)


def make(
    people: SqlPeople, token: str, *grants: NodeGrant, giver: Principal = ROOT, ends_ms: int | None = None
) -> str:
    return people.make_token(token, token, grants, giver=giver, expires_ms=ends_ms, now_ms=1_000).secret


def test_a_token_is_whom_it_was_made_for_and_its_secret_is_nowhere(people: SqlPeople, engine: Engine) -> None:
    secret = make(people, "grafana", VIEWER)
    found = people.authenticate(secret, now_ms=2_000)
    assert found == Principal("grafana", "grafana", (Grant(Role.VIEWER, "hq/station-7"),))
    token = people.token("grafana")
    assert token is not None
    assert (token.used_ms, token.made_by, token.pending) == (2_000, "_server", False)
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT * FROM token")).one()
    assert secret.encode() not in repr(kept).encode()
    assert secret.removeprefix("ff_") not in repr(kept)


@pytest.mark.parametrize("secret", ["", "ff_", "ff_" + "x" * 43, "Bearer x", "ff_" + "é" * 43, "ff_" + "Q" * 43])
def test_what_is_no_token_is_nobody(people: SqlPeople, secret: str) -> None:
    make(people, "grafana", VIEWER)
    assert people.authenticate(secret, now_ms=2_000) is None


def test_a_token_ends_by_itself_and_by_revocation(people: SqlPeople) -> None:
    ending, revoked = make(people, "a", VIEWER, ends_ms=5_000), make(people, "b", VIEWER)
    assert people.authenticate(ending, now_ms=4_999) is not None
    assert people.authenticate(ending, now_ms=5_000) is None
    assert people.revoke("b", giver=ROOT, now_ms=3_000).revoked_ms == 3_000
    assert people.authenticate(revoked, now_ms=3_000) is None
    assert people.revoke("b", giver=ROOT, now_ms=9_000).revoked_ms == 3_000


def test_nobody_gives_what_they_do_not_have(people: SqlPeople) -> None:
    station = Principal("local", "local", (Grant(Role.ADMINISTRATOR, "hq/station-7"),))
    make(people, "v", VIEWER, giver=station)
    for grants in ((NodeGrant(Role.VIEWER, "hq"),), (NodeGrant(Role.VIEWER, None),)):
        with pytest.raises(BeyondScopeError):
            make(people, "w", *grants, giver=station)
    with pytest.raises(BeyondScopeError):
        make(people, "w", VIEWER, giver=Principal("m", "m", (Grant(Role.EQUIPMENT_MANAGER, ""),)))
    make(people, "top", NodeGrant(Role.VIEWER, "hq"))
    with pytest.raises(BeyondScopeError):
        people.revoke("top", giver=station, now_ms=2_000)
    assert people.token("w") is None


def test_what_cannot_be_made(people: SqlPeople) -> None:
    make(people, "v", VIEWER)
    with pytest.raises(TakenTokenError):
        make(people, "v", VIEWER)
    with pytest.raises(UnknownError):
        make(people, "w", NodeGrant(Role.VIEWER, "nowhere"))
    with pytest.raises(UnknownTokenError):
        people.revoke("w", giver=ROOT, now_ms=2_000)


def test_the_first_administrator_is_made_once(people: SqlPeople) -> None:
    secret = new_secret()
    assert people.ensure_first(secret, now_ms=1_000)
    assert not people.ensure_first(new_secret(), now_ms=2_000)
    found = people.authenticate(secret, now_ms=3_000)
    assert found is not None
    assert (found.holder, found.grants) == (FIRST, (Grant(Role.ADMINISTRATOR, ""),))
    with pytest.raises(LastAdministratorError):
        people.revoke(FIRST, giver=found, now_ms=4_000)


def test_the_first_administrator_finds_an_id_that_is_free(people: SqlPeople) -> None:
    for taken in (FIRST, f"{FIRST}-3"):
        make(people, taken, VIEWER)
    secret = new_secret()
    assert people.ensure_first(secret, now_ms=2_000)
    found = people.authenticate(secret, now_ms=3_000)
    assert found is not None
    assert found.holder == f"{FIRST}-2"


def test_a_default_or_made_up_secret_is_refused(people: SqlPeople) -> None:
    for secret in ("admin", "ff_changeme", ""):
        with pytest.raises(PeopleError):
            people.ensure_first(secret, now_ms=1_000)


def test_once_there_are_two_administrators_another_one_needs_both(people: SqlPeople) -> None:
    first = Principal("one", "one", (Grant(Role.ADMINISTRATOR, ""),))
    second = Principal("two", "two", (Grant(Role.ADMINISTRATOR, ""),))
    make(people, "one", ADMIN)
    assert people.authenticate(make(people, "two", ADMIN, giver=first), now_ms=2_000) is not None
    third = make(people, "three", ADMIN, giver=first)
    assert people.authenticate(third, now_ms=2_000) is None
    with pytest.raises(SamePersonError):
        people.approve("three", approver=first)
    with pytest.raises(BeyondScopeError):
        people.approve("three", approver=Principal("v", "v", (Grant(Role.VIEWER, ""),)))
    approved = people.approve("three", approver=second)
    assert (approved.pending, approved.approved_by) == (False, "two")
    assert people.authenticate(third, now_ms=2_000) is not None
    assert people.authenticate(make(people, "v", VIEWER, giver=first), now_ms=2_000) is not None


def test_a_grant_moves_with_its_node_which_stays_while_it_is_there(people: SqlPeople, registry: SqlRegistry) -> None:
    secret = make(people, "v", VIEWER)
    registry.put_node(OrgNode("east", NodeKind.CENTRE, "East", "hq"), expected=None, create=True, now_ms=0)
    registry.put_node(
        OrgNode("station-7", NodeKind.STATION, "Seventh", "east"), expected=None, create=False, now_ms=0
    )
    found = people.authenticate(secret, now_ms=2_000)
    assert found is not None
    assert found.grants == (Grant(Role.VIEWER, "hq/east/station-7"),)
    with pytest.raises(InUseError):
        registry.drop_node("station-7", expected=None)


def test_tokens_come_in_pages(people: SqlPeople) -> None:
    for name in "abc":
        make(people, name, VIEWER)
    assert [each.token for each in people.tokens(after="a", rows_max=1)] == ["b"]
