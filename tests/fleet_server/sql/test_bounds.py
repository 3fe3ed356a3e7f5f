"""Of what operators make there is never more than its bound says, and what is refused leaves nothing behind."""

import pytest
from sqlalchemy import Engine

from fleet_server.access.enrolment import Claim, TooManyClaimsError, claim_digest
from fleet_server.access.people import ROOT, NodeGrant, TooManyTokensError
from fleet_server.access.roles import Role
from fleet_server.adapters.sql import database, enrolment, org_rows, people, registry
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.adapters.sql.people import SqlPeople
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.registry.model import DutyUnit, FullError, NodeKind, OrgNode

DAY_MS = 86_400_000


@pytest.fixture
def registered(engine: Engine) -> SqlRegistry:
    database.migrate(engine)
    return SqlRegistry(engine)


def station(number: int) -> OrgNode:
    return OrgNode(f"n-{number}", NodeKind.STATION if number else NodeKind.CENTRE, "x", "n-0" if number else None)


def test_nodes(registered: SqlRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "NODES_MAX", 3)
    registered.import_nodes([station(number) for number in range(3)], now_ms=0, dry_run=False)
    with pytest.raises(FullError, match="at most 3 nodes"):
        registered.put_node(station(3), expected=None, create=True, now_ms=0)
    for dry_run in (True, False):
        with pytest.raises(FullError):
            registered.import_nodes([station(2), station(3)], now_ms=0, dry_run=dry_run)
    assert [placed.node for placed in registered.nodes()] == [station(number) for number in range(3)]
    moved = OrgNode("n-2", NodeKind.STATION, "another name", "n-0")
    assert registered.put_node(moved, expected=None, create=False, now_ms=0).node == moved
    registered.drop_node("n-1", expected=None)
    registered.put_node(station(3), expected=None, create=True, now_ms=0)


def test_units(registered: SqlRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(org_rows, "UNITS_MAX", 2)
    units = [DutyUnit(f"u-{number}", "x") for number in range(3)]
    with pytest.raises(FullError, match="at most 2 units"):
        registered.import_units(units, dry_run=False)
    assert registered.units() == []
    registered.import_units(units[:2], dry_run=False)
    with pytest.raises(FullError):
        registered.put_unit(units[2], expected=None, create=True)
    registered.put_unit(DutyUnit("u-1", "another name"), expected=None, create=False)


def test_tokens(registered: SqlRegistry, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "TOKENS_MAX", 2)
    assert registered.nodes() == []
    kept, viewer = SqlPeople(engine), [NodeGrant(Role.VIEWER, None)]
    kept.make_token("a", "x", viewer, giver=ROOT, expires_ms=None, now_ms=0)
    kept.make_token("b", "x", viewer, giver=ROOT, expires_ms=DAY_MS, now_ms=0)
    with pytest.raises(TooManyTokensError, match="at most 2 tokens"):
        kept.make_token("c", "x", viewer, giver=ROOT, expires_ms=None, now_ms=1)
    kept.make_token("c", "x", viewer, giver=ROOT, expires_ms=None, now_ms=DAY_MS)  # one has run out
    with pytest.raises(TooManyTokensError):
        kept.make_token("d", "x", viewer, giver=ROOT, expires_ms=None, now_ms=DAY_MS)
    kept.revoke("a", giver=ROOT, now_ms=DAY_MS)
    kept.make_token("d", "x", viewer, giver=ROOT, expires_ms=None, now_ms=DAY_MS)
    assert [each.token for each in kept.tokens(after="", rows_max=9)] == ["a", "b", "c", "d"]


def test_claims(registered: SqlRegistry, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "CLAIMS_OPEN_MAX", 2)
    assert registered.nodes() == []
    kept = SqlEnrolments(engine)

    def claim(number: int, device: str, *, at_ms: int = 0) -> tuple[Claim, bytes]:
        made = Claim(f"{number:010x}", device, "operator", at_ms, at_ms + DAY_MS)
        return made, claim_digest(f"ffc_{number:032x}")

    kept.add_claims([claim(1, "car-1"), claim(2, "car-2")])
    kept.add_claims([claim(3, "car-2")])  # in place of the one before
    with pytest.raises(TooManyClaimsError, match="at most 2 claims"):
        kept.add_claims([claim(4, "car-2"), claim(5, "car-3")])
    of_car_2 = kept.claims(device="car-2", after="", rows_max=9)
    assert [each.claim for each in of_car_2 if each.withdrawn_ms is None] == [f"{3:010x}"]
    kept.add_claims([claim(6, "car-3", at_ms=DAY_MS)])  # the others are over
