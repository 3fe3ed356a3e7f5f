"""What a person was granted is changed by who saw it, and told with how it came."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from fleet_server.access.people import NodeGrant
from fleet_server.access.persons import Identity
from fleet_server.access.roles import Role
from fleet_server.api.app import create_app
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, Fleet

ANNA = Identity("https://login.example", "1001", "Anna Meyer", "a.meyer@police.example")
GRANTS = "/v1/people/a-meyer/grants"
ANY = {"If-Match": "*"}
VIEWER, ADMIN = {"role": "viewer", "node": None}, {"role": "administrator", "node": None}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "store.db")
    fleet.persons.sign_in(ANNA, [NodeGrant(Role.VIEWER, None)], instead_of=None, now_ms=NOW)
    yield fleet
    fleet.store.close()


@pytest.fixture
async def asking(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(fleet.ports, clock=lambda: NOW)) as client:
        yield client


async def test_a_person_is_told_with_what_was_granted_by_what(asking: httpx.AsyncClient) -> None:
    answer = await asking.get("/v1/people/a-meyer")
    assert answer.headers["etag"] == '"1"'
    told = answer.json()
    assert told == {
        "person": "a-meyer",
        "name": "Anna Meyer",
        "email": "a.meyer@police.example",
        "issuer": "https://login.example",
        "subject": "1001",
        "grants": [{**VIEWER, "by": "group"}],
        "proposed": None,
        "proposed_by": None,
        "revision": 1,
        "first_ms": NOW,
        "first_at": told["first_at"],
        "last_ms": NOW,
        "last_at": told["first_at"],
        "disabled_ms": None,
        "disabled_at": None,
    }
    assert (await asking.get("/v1/people")).json() == {"people": [told], "next": None}
    assert (await asking.get("/v1/people/nobody")).status_code == 404


async def test_grants_are_replaced_by_who_saw_them(asking: httpx.AsyncClient) -> None:
    body = {"grants": [VIEWER]}
    assert (await asking.put(GRANTS, json=body)).status_code == 428
    assert (await asking.put(GRANTS, json=body, headers={"If-Match": '"9"'})).status_code == 412
    given = await asking.put(GRANTS, json=body, headers={"If-Match": '"1"'})
    assert (given.status_code, given.headers["etag"]) == (200, '"2"')
    assert given.json()["grants"] == [{**VIEWER, "by": "hand"}, {**VIEWER, "by": "group"}]
    assert (await asking.put("/v1/people/nobody/grants", json=body, headers=ANY)).status_code == 404
    nowhere = {"grants": [{"role": "viewer", "node": "nowhere"}]}
    assert (await asking.put(GRANTS, json=nowhere, headers=ANY)).status_code == 422


async def test_the_second_person_is_another_one_and_the_last_administrator_stays(asking: httpx.AsyncClient) -> None:
    assert (await asking.put(GRANTS, json={"grants": [ADMIN]}, headers=ANY)).json()["proposed"] is None
    review = {"grants": [ADMIN, {"role": "evidence_reviewer", "node": None}]}
    waiting = (await asking.put(GRANTS, json=review, headers=ANY)).json()
    assert (waiting["proposed"], waiting["proposed_by"]) == (
        [{"role": "administrator", "node": None}, {"role": "evidence_reviewer", "node": None}],
        "first-administrator",
    )
    same = await asking.post("/v1/people/a-meyer/approve")
    assert (same.status_code, same.json()["type"]) == (409, "urn:fieldfleet:problem:same-person")
    assert (await asking.post("/v1/tokens/first-administrator/revoke")).status_code == 200
    assert (await asking.get("/v1/me")).status_code == 401
