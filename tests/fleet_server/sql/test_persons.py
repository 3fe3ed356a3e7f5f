"""A person is whom the provider vouches for, may what was granted by hand and by group, and is signed in until a
session ends, is over or was idle.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from fleet_server.access.people import (
    ROOT,
    BeyondScopeError,
    LastAdministratorError,
    NodeGrant,
    PeopleError,
    Principal,
    SamePersonError,
)
from fleet_server.access.persons import (
    SESSIONS_A_PERSON_MAX,
    DisabledPersonError,
    Identity,
    SessionRules,
    SignedIn,
    UnknownPersonError,
)
from fleet_server.access.roles import Grant, Role
from fleet_server.adapters.sql.people import SqlPeople
from fleet_server.adapters.sql.persons import SqlPersons
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.registry.model import InUseError, StaleError, UnknownError

ADMIN = NodeGrant(Role.ADMINISTRATOR, None)
VIEWER = NodeGrant(Role.VIEWER, "station-7")
MANAGER = NodeGrant(Role.EQUIPMENT_MANAGER, "station-7")
ANNA = Identity("https://login.example", "1001", "Anna Meyer", "a.meyer@police.example")
BORIS = Identity("https://login.example", "1002", "Boris", "")
FIRST_TOKEN = "ff_" + "t" * 43
HOUR_MS = 3_600_000
RULES = SessionRules(whole_ms=12 * HOUR_MS, idle_ms=HOUR_MS)


@pytest.fixture
def people(engine: Engine, registry: SqlRegistry) -> SqlPeople:
    """With the first administrator's token."""
    assert registry.nodes()
    people = SqlPeople(engine, persons=True)
    people.ensure_first(FIRST_TOKEN, now_ms=0)
    return people


@pytest.fixture
def persons(engine: Engine, people: SqlPeople) -> SqlPersons:
    """Nobody yet."""
    assert people.tokens(after="", rows_max=1)
    return SqlPersons(engine, RULES)


def enter(persons: SqlPersons, who: Identity = ANNA, *groups: NodeGrant, now_ms: int = 0) -> SignedIn:
    return persons.sign_in(who, groups, instead_of=None, now_ms=now_ms)


def give(persons: SqlPersons, person: str, *grants: NodeGrant, giver: Principal = ROOT) -> int:
    return persons.put_grants(person, grants, expected=None, giver=giver, now_ms=0).revision


def test_who_signs_in_for_the_first_time_may_nothing(persons: SqlPersons, engine: Engine) -> None:
    signed_in = enter(persons, now_ms=5)
    assert signed_in.principal == Principal("person:a-meyer", "Anna Meyer", ())
    assert persons.of_session(signed_in.session, now_ms=6) == signed_in.principal
    found = persons.person("a-meyer")
    assert found is not None
    assert (found.identity, found.first_ms, found.last_ms, found.revision) == (ANNA, 5, 5, 1)
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT * FROM session")).one()
    assert signed_in.session.encode() not in repr(kept).encode()


def test_who_comes_back_is_the_same_person_whatever_they_are_called_now(persons: SqlPersons) -> None:
    enter(persons)
    renamed = Identity(ANNA.issuer, ANNA.subject, "Anna Schmidt", "a.schmidt@police.example")
    assert enter(persons, renamed, now_ms=9).principal == Principal("person:a-meyer", "Anna Schmidt", ())
    elsewhere = Identity("https://other.example", ANNA.subject, ANNA.name, ANNA.email)
    assert enter(persons, elsewhere).principal.holder == "person:a-meyer-2"
    assert [each.person for each in persons.persons(after="", rows_max=9)] == ["a-meyer", "a-meyer-2"]
    assert [each.person for each in persons.persons(after="a-meyer", rows_max=1)] == ["a-meyer-2"]


def test_groups_add_to_what_was_given_by_hand_and_are_as_of_the_last_sign_in(persons: SqlPersons) -> None:
    enter(persons)
    give(persons, "a-meyer", VIEWER)
    both = enter(persons, ANNA, MANAGER, NodeGrant(Role.VIEWER, "nowhere"))
    assert both.principal.grants == (
        Grant(Role.EQUIPMENT_MANAGER, "hq/station-7"),
        Grant(Role.VIEWER, "hq/station-7"),
    )
    found = persons.person("a-meyer")
    assert found is not None
    assert (found.grants, found.by_group) == ((VIEWER,), (MANAGER,))
    enter(persons)
    later = persons.of_session(both.session, now_ms=1)
    assert later is not None
    assert later.grants == (Grant(Role.VIEWER, "hq/station-7"),)


@pytest.mark.parametrize(
    ("used_at_min", "asked_at_min", "good"),
    [
        ([], 59, True),
        ([], 60, False),  # idle for an hour
        ([59], 118, True),
        ([59], 119, False),
        ([59, 118, 177, 236, 295, 354, 413, 472, 531, 590, 649, 708], 719, True),
        ([59, 118, 177, 236, 295, 354, 413, 472, 531, 590, 649, 708], 720, False),  # twelve hours, however busy
    ],
)
def test_a_session_ends_when_it_was_idle_and_when_it_is_over(
    persons: SqlPersons, used_at_min: list[int], asked_at_min: int, good: bool
) -> None:
    session = enter(persons).session
    for at_min in used_at_min:
        assert persons.of_session(session, now_ms=at_min * 60_000) is not None
    assert (persons.of_session(session, now_ms=asked_at_min * 60_000) is not None) == good


def test_shorter_rules_shorten_what_has_begun(persons: SqlPersons, engine: Engine) -> None:
    session = enter(persons).session
    shorter = SqlPersons(engine, SessionRules(whole_ms=1_000, idle_ms=1_000))
    assert shorter.of_session(session, now_ms=1_000) is None


def test_a_session_is_ended_by_sign_out_and_takes_the_place_of_another(persons: SqlPersons) -> None:
    first = enter(persons).session
    second = persons.sign_in(ANNA, (), instead_of=first, now_ms=1).session
    assert persons.of_session(first, now_ms=2) is None
    assert persons.of_session(second, now_ms=2) is not None
    persons.sign_out(second)
    persons.sign_out("no session of ours")
    assert persons.of_session(second, now_ms=3) is None


@pytest.mark.parametrize("secret", ["", "x" * 43, "é" * 43, "x" * 44, "ff_" + "x" * 43])
def test_what_is_no_session_is_nobodys(persons: SqlPersons, secret: str) -> None:
    enter(persons)
    assert persons.of_session(secret, now_ms=0) is None


def test_the_oldest_session_of_too_many_ends_and_old_ones_are_forgotten(persons: SqlPersons, engine: Engine) -> None:
    sessions = [enter(persons, now_ms=n).session for n in range(SESSIONS_A_PERSON_MAX + 2)]
    good = [persons.of_session(each, now_ms=100) is not None for each in sessions]
    assert good == [False, False] + [True] * SESSIONS_A_PERSON_MAX
    enter(persons, BORIS, now_ms=13 * HOUR_MS)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM session")).scalar_one() == 1


def test_who_is_disabled_is_out_at_once_and_does_not_come_back(persons: SqlPersons) -> None:
    session = enter(persons).session
    assert persons.disable("a-meyer", giver=ROOT, now_ms=7).disabled_ms == 7
    assert persons.of_session(session, now_ms=8) is None
    with pytest.raises(DisabledPersonError):
        enter(persons)
    assert persons.disable("a-meyer", giver=ROOT, now_ms=9).disabled_ms == 7
    assert persons.enable("a-meyer", giver=ROOT).disabled_ms is None
    assert persons.of_session(session, now_ms=10) is None
    enter(persons)


def test_grants_are_changed_by_who_saw_them(persons: SqlPersons) -> None:
    enter(persons)
    assert give(persons, "a-meyer", VIEWER) == 2
    with pytest.raises(StaleError):
        persons.put_grants("a-meyer", [], expected=1, giver=ROOT, now_ms=0)
    assert persons.put_grants("a-meyer", [], expected=2, giver=ROOT, now_ms=0).grants == ()
    with pytest.raises(UnknownPersonError):
        give(persons, "nobody", VIEWER)
    with pytest.raises(UnknownError):
        give(persons, "a-meyer", NodeGrant(Role.VIEWER, "nowhere"))


def test_nobody_gives_or_takes_away_what_they_do_not_have(persons: SqlPersons) -> None:
    station = Principal("local", "local", (Grant(Role.ADMINISTRATOR, "hq/station-7"),))
    enter(persons)
    give(persons, "a-meyer", VIEWER, giver=station)
    give(persons, "a-meyer", giver=station)
    with pytest.raises(BeyondScopeError):
        give(persons, "a-meyer", NodeGrant(Role.VIEWER, "hq"), giver=station)
    give(persons, "a-meyer", NodeGrant(Role.VIEWER, "hq"))
    with pytest.raises(BeyondScopeError):
        give(persons, "a-meyer", giver=station)
    with pytest.raises(BeyondScopeError):
        persons.disable("a-meyer", giver=station, now_ms=0)


def test_a_second_administrator_must_agree_once_there_are_two(persons: SqlPersons) -> None:
    first = Principal("first-administrator", "", (Grant(Role.ADMINISTRATOR, ""),))
    anna = Principal("person:a-meyer", "", (Grant(Role.ADMINISTRATOR, ""),))
    enter(persons)
    give(persons, "a-meyer", ADMIN, giver=first)  # the second one, so that there are two to ask
    enter(persons, BORIS)
    give(persons, "boris", VIEWER, giver=first)
    proposed = persons.put_grants(
        "boris", [VIEWER, NodeGrant(Role.EVIDENCE_REVIEWER, "hq")], expected=None, giver=anna, now_ms=0
    )
    assert (proposed.grants, proposed.proposed_by) == ((VIEWER,), "person:a-meyer")
    assert enter(persons, BORIS).principal.grants == (Grant(Role.VIEWER, "hq/station-7"),)
    with pytest.raises(SamePersonError):
        persons.approve("boris", approver=anna, now_ms=0)
    with pytest.raises(BeyondScopeError):
        persons.approve("boris", approver=Principal("v", "v", (Grant(Role.VIEWER, ""),)), now_ms=0)
    approved = persons.approve("boris", approver=first, now_ms=0)
    assert (set(approved.grants), approved.proposed, approved.proposed_by) == (
        {VIEWER, NodeGrant(Role.EVIDENCE_REVIEWER, "hq")},
        (),
        None,
    )
    with pytest.raises(PeopleError, match="nothing is proposed"):
        persons.approve("boris", approver=first, now_ms=0)


def test_the_last_administrator_stays_be_it_a_token_or_a_person(persons: SqlPersons, people: SqlPeople) -> None:
    enter(persons, ANNA, ADMIN)  # by a group, which may be gone tomorrow
    with pytest.raises(LastAdministratorError):
        people.revoke("first-administrator", giver=ROOT, now_ms=0)
    enter(persons, BORIS)
    first = Principal("first-administrator", "", (Grant(Role.ADMINISTRATOR, ""),))
    give(persons, "boris", ADMIN, giver=first)
    persons.approve("boris", approver=ROOT, now_ms=0)
    people.revoke("first-administrator", giver=ROOT, now_ms=0)
    with pytest.raises(LastAdministratorError):
        give(persons, "boris", VIEWER)
    with pytest.raises(LastAdministratorError):
        persons.disable("boris", giver=ROOT, now_ms=0)
    assert not people.ensure_first(FIRST_TOKEN, now_ms=0)


def test_of_two_administrators_who_are_taken_away_at_once_one_stays(persons: SqlPersons, people: SqlPeople) -> None:
    enter(persons)
    give(persons, "a-meyer", ADMIN)

    def refused(take_away: Callable[[], object]) -> bool:
        try:
            take_away()
        except LastAdministratorError:
            return True
        return False

    with ThreadPoolExecutor(2) as threads:
        tried = threads.map(
            refused,
            (
                lambda: people.revoke("first-administrator", giver=ROOT, now_ms=0),
                lambda: persons.disable("a-meyer", giver=ROOT, now_ms=0),
            ),
        )
        assert sorted(tried) == [False, True]


def test_persons_administer_nothing_where_they_cannot_sign_in(persons: SqlPersons, engine: Engine) -> None:
    enter(persons)
    give(persons, "a-meyer", ADMIN)
    with pytest.raises(LastAdministratorError):
        SqlPeople(engine).revoke("first-administrator", giver=ROOT, now_ms=0)


def test_a_node_stays_while_a_person_has_a_grant_for_it(persons: SqlPersons, registry: SqlRegistry) -> None:
    enter(persons)
    give(persons, "a-meyer", VIEWER)
    with pytest.raises(InUseError):
        registry.drop_node("station-7", expected=None)
