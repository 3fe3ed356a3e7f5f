"""``/v1/people``: who signs in, and what they were granted."""

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Path, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.access import acting, persons
from fleet_server.access.people import GRANTS_MAX, NodeGrant
from fleet_server.access.person_store import Persons
from fleet_server.api import pages, times
from fleet_server.api.conditions import IfMatch, etag, to_change
from fleet_server.api.problems import not_found, responses
from fleet_server.api.refusals import translated
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.api.tokens import Grant, refusals
from fleet_server.registry.model import SLUG_PATTERN

CHANGE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
CONDITIONAL: Final = (*CHANGE, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED)

PersonId: TypeAlias = Annotated[str, Path(pattern=SLUG_PATTERN, examples=["a-meyer"])]


class Given(StrEnum):
    """How a grant came: by hand at this server, or by a group at the provider."""

    HAND = "hand"
    GROUP = "group"


class GivenGrant(Grant):
    """A grant, and how it came."""

    by: Given


class GrantsIn(BaseModel):
    """All that a person is to be granted by hand."""

    model_config = ConfigDict(extra="forbid")

    grants: Annotated[list[Grant], Field(max_length=GRANTS_MAX)]


class Person(BaseModel):
    """Somebody who signed in at least once."""

    person: str = Field(examples=["a-meyer"])
    name: str = Field(description="What the provider calls them.", examples=["Anna Meyer"])
    email: str = Field(examples=["a.meyer@police.example"])
    issuer: str = Field(description="The provider.", examples=["https://login.police.example"])
    subject: str = Field(description="Who they are at the provider, for ever.")
    grants: list[GivenGrant]
    proposed: list[Grant] | None = Field(
        description="What would take the place of the grants by hand, once a second administrator agrees."
    )
    proposed_by: str | None
    revision: int = Field(description="Of the grants; it is the ETag.")
    first_ms: TimeMs = Field(description="When they first signed in.")
    first_at: TimeAt
    last_ms: TimeMs = Field(description="When they last signed in.")
    last_at: TimeAt
    disabled_ms: TimeMs | None
    disabled_at: TimeAt

    @classmethod
    def of(cls, found: persons.Person) -> "Person":
        """As it is kept."""
        given = ((Given.HAND, found.grants), (Given.GROUP, found.by_group))
        return cls(
            person=found.person,
            name=found.identity.name,
            email=found.identity.email,
            issuer=found.identity.issuer,
            subject=found.identity.subject,
            grants=[GivenGrant(role=each.role, node=each.node, by=by) for by, grants in given for each in grants],
            proposed=None if found.proposed_by is None else _grants(found.proposed),
            proposed_by=found.proposed_by,
            revision=found.revision,
            first_ms=found.first_ms,
            first_at=rfc3339(found.first_ms),
            last_ms=found.last_ms,
            last_at=rfc3339(found.last_ms),
            disabled_ms=found.disabled_ms,
            disabled_at=rfc3339(found.disabled_ms),
        )


class PersonPage(BaseModel):
    """People by id; `next` is null on the last page."""

    people: list[Person]
    next: str | None = Field(description="The cursor of the next page.")


def routes(store: Persons, clock: times.Clock) -> Routes:
    """The routes of people. Every one blocks on *store*, so the framework runs it in a thread."""
    router = Routes(tags=["people"])

    def told(found: persons.Person, response: Response) -> Person:
        response.headers["ETag"] = etag(found.revision)
        return Person.of(found)

    @router.get("/v1/people", summary="Everybody who signed in")
    def everybody(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> PersonPage:
        """By id, those who are disabled too."""
        after = pages.read_cursor(cursor, str, "")
        page, follows = pages.cut(store.persons(after=after, rows_max=limit + 1), limit)
        return PersonPage(
            people=[Person.of(each) for each in page], next=pages.write_cursor(page[-1].person) if follows else None
        )

    @router.get("/v1/people/{person}", summary="One person", responses=responses(HTTPStatus.NOT_FOUND))
    def one(person: PersonId, response: Response) -> Person:
        """With what they were granted, and by what."""
        found = store.person(person)
        if found is None:
            raise not_found("person", f"there is no person {person}", expected="an id of /v1/people")
        return told(found, response)

    @router.put("/v1/people/{person}/grants", summary="Grant by hand", responses=responses(*CONDITIONAL))
    def put_grants(person: PersonId, body: GrantsIn, response: Response, if_match: IfMatch = None) -> Person:
        """In the place of all that was granted by hand before; what came by groups stays. Nobody gives or takes away
        what they do not have. Once there are two administrators, another one, and who reviews evidence, are proposed
        until the second of them agrees. The last administrator stays.
        """
        grants = [NodeGrant(each.role, each.node) for each in body.grants]
        expected = to_change(if_match).expected
        with translated(None), refusals():
            found = store.put_grants(person, grants, expected=expected, giver=acting.principal(), now_ms=clock())
        return told(found, response)

    @router.post("/v1/people/{person}/approve", summary="Agree to what is proposed", responses=responses(*CHANGE))
    def approve(person: PersonId, response: Response) -> Person:
        """By another administrator than the one who proposed it."""
        with refusals():
            return told(store.approve(person, approver=acting.principal(), now_ms=clock()), response)

    @router.post("/v1/people/{person}/disable", summary="Keep somebody out", responses=responses(*CHANGE))
    def disable(person: PersonId, response: Response) -> Person:
        """Ends their sessions at once. The last administrator stays."""
        with refusals():
            return told(store.disable(person, giver=acting.principal(), now_ms=clock()), response)

    @router.post("/v1/people/{person}/enable", summary="Let somebody in again", responses=responses(*CHANGE))
    def enable(person: PersonId, response: Response) -> Person:
        """With the grants that they have."""
        with refusals():
            return told(store.enable(person, giver=acting.principal()), response)

    return router


def _grants(grants: tuple[NodeGrant, ...]) -> list[Grant]:
    return [Grant(role=each.role, node=each.node) for each in grants]
