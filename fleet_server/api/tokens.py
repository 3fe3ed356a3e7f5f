"""``/v1/tokens`` and ``/v1/me``: who may ask this server what."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Path, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.access import acting, people
from fleet_server.access.people import (
    GRANTS_MAX,
    BeyondScopeError,
    LastAdministratorError,
    NodeGrant,
    PeopleError,
    Principal,
    SamePersonError,
    TakenTokenError,
    TooManyTokensError,
    UnknownTokenError,
)
from fleet_server.access.people_store import People
from fleet_server.access.persons import HOLDER, UnknownPersonError
from fleet_server.access.roles import Permission, Role
from fleet_server.api import pages, times
from fleet_server.api.bodies import SECRET
from fleet_server.api.problems import ProblemError, bad_request, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.registry.model import NAME_CHARS_MAX, SLUG_PATTERN, TEXT_PATTERN, UnknownError

DAYS_MAX: Final = 3_650
_CONFLICTS: Final[dict[type[PeopleError], str]] = {
    TakenTokenError: "taken",
    SamePersonError: "same-person",
    LastAdministratorError: "last-administrator",
    TooManyTokensError: "too-many",
}
CHANGE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

TokenId: TypeAlias = Annotated[str, Path(pattern=SLUG_PATTERN, examples=["grafana"])]


class Grant(BaseModel):
    """A role at an organisation node and everything below it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    node: Annotated[str, Field(pattern=SLUG_PATTERN)] | None = Field(
        None, description="null: everywhere.", examples=["station-7"]
    )


class TokenIn(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(pattern=SLUG_PATTERN, description="Its id.", examples=["grafana"])]
    name: Annotated[
        str,
        Field(min_length=1, max_length=NAME_CHARS_MAX, pattern=TEXT_PATTERN, examples=["Dashboards of station 7"]),
    ]
    grants: Annotated[list[Grant], Field(min_length=1, max_length=GRANTS_MAX)]
    days: Annotated[int, Field(ge=1, le=DAYS_MAX, description="How long it is good.", examples=[90])] | None = None


class Token(BaseModel):
    """A token as it is listed, without its secret."""

    token: str = Field(examples=["grafana"])
    name: str = Field(examples=["Dashboards of station 7"])
    grants: list[Grant]
    made_by: str = Field(examples=["first-administrator"])
    approved_by: str | None = Field(description="The second person, where one was needed.")
    pending: bool = Field(description="It waits for a second person, and is good for nothing.")
    created_ms: TimeMs
    created_at: TimeAt
    expires_ms: TimeMs | None
    expires_at: TimeAt
    used_ms: TimeMs | None = Field(description="When it was last used, within a minute.")
    used_at: TimeAt
    revoked_ms: TimeMs | None
    revoked_at: TimeAt

    @classmethod
    def of(cls, token: people.Token) -> "Token":
        """As it is kept."""
        return cls(**_fields(token))


class TokenMade(Token):
    """A token and its secret, which is not told again."""

    secret: str = Field(examples=["ff_…"])


class TokenPage(BaseModel):
    """Tokens by id; `next` is null on the last page."""

    tokens: list[Token]
    next: str | None = Field(description="The cursor of the next page.")


class Place(BaseModel):
    """A grant at a node's path."""

    role: Role
    org: str | None = Field(description="The node's path; null: everywhere.", examples=["hq/station-7"])


class Me(BaseModel):
    """Whose token or session it is, and what it is good for; one of `token` and `person` is null."""

    token: str | None = Field(examples=["grafana"])
    person: str | None = Field(examples=["a-meyer"])
    name: str = Field(examples=["Dashboards of station 7"])
    grants: list[Place]
    permissions: dict[Permission, list[str]] = Field(
        description="Where each is held: paths of nodes, an empty one is everywhere.",
        examples=[{"fleet:read": ["hq/station-7"]}],
    )


def routes(people: People, clock: times.Clock) -> Routes:
    """The routes of tokens. Every one blocks on *people*, so the framework runs it in a thread."""
    router = Routes(tags=["people"])

    @router.get("/v1/me", summary="Who asks")
    def me() -> Me:
        """What the token or the session of this request is good for."""
        return _me(acting.principal())

    @router.get("/v1/tokens", summary="Every token")
    def tokens(limit: pages.Limit = pages.LIMIT_DEFAULT, cursor: pages.Cursor = None) -> TokenPage:
        """By id, those that have ended too; without their secrets."""
        after = pages.read_cursor(cursor, str, "")
        page, follows = pages.cut(people.tokens(after=after, rows_max=limit + 1), limit)
        return TokenPage(
            tokens=[Token.of(each) for each in page], next=pages.write_cursor(page[-1].token) if follows else None
        )

    @router.get("/v1/tokens/{token}", summary="One token", responses=responses(HTTPStatus.NOT_FOUND))
    def token(token: TokenId) -> Token:
        """Without its secret."""
        found = people.token(token)
        if found is None:
            raise not_found("token", f"there is no token {token}", expected="an id of /v1/tokens")
        return Token.of(found)

    @router.post(
        "/v1/tokens",
        summary="Make a token",
        status_code=HTTPStatus.CREATED,
        responses=responses(HTTPStatus.CONFLICT),
    )
    def make(body: TokenIn, response: Response) -> TokenMade:
        """The answer has the secret; it is not told again. Nobody gives what they do not have. Once there are two
        administrators, a token for another one, or for who reviews evidence, waits for the second of them.
        """
        now_ms = clock()
        expires_ms = None if body.days is None else now_ms + body.days * times.DAY_MS
        grants = [NodeGrant(each.role, each.node) for each in body.grants]
        with refusals():
            made = people.make_token(
                body.token, body.name, grants, giver=acting.principal(), expires_ms=expires_ms, now_ms=now_ms
            )
        response.headers.update(SECRET)
        return TokenMade(secret=made.secret, **_fields(made.token))

    @router.post("/v1/tokens/{token}/approve", summary="Agree to a token", responses=responses(*CHANGE))
    def approve(token: TokenId) -> Token:
        """By another administrator than the one who made it."""
        with refusals():
            return Token.of(people.approve(token, approver=acting.principal()))

    @router.post("/v1/tokens/{token}/revoke", summary="Revoke a token", responses=responses(*CHANGE))
    def revoke(token: TokenId) -> Token:
        """It is good for nothing from now on. The last administrator stays."""
        with refusals():
            return Token.of(people.revoke(token, giver=acting.principal(), now_ms=clock()))

    return router


def _me(principal: Principal) -> Me:
    scopes = {permission: principal.scope(permission) for permission in Permission}
    person = principal.holder.removeprefix(HOLDER) if principal.holder.startswith(HOLDER) else None
    return Me(
        token=principal.holder if person is None else None,
        person=person,
        name=principal.name,
        grants=[Place(role=grant.role, org=grant.path or None) for grant in principal.grants],
        permissions={name: list(scope.paths) for name, scope in scopes.items() if not scope.nowhere},
    )


def _fields(token: people.Token) -> dict[str, Any]:
    times_ms = {name: getattr(token, f"{name}_ms") for name in ("created", "expires", "used", "revoked")}
    return {
        "token": token.token,
        "name": token.name,
        "grants": [Grant(role=each.role, node=each.node) for each in token.grants],
        "made_by": token.made_by,
        "approved_by": token.approved_by,
        "pending": token.pending,
        **{f"{name}_ms": at_ms for name, at_ms in times_ms.items()},
        **{f"{name}_at": rfc3339(at_ms) for name, at_ms in times_ms.items()},
    }


@contextmanager
def refusals() -> Iterator[None]:
    """Why people are not changed, as problems."""
    try:
        yield
    except UnknownTokenError as error:
        raise not_found("token", str(error), expected="an id of /v1/tokens") from error
    except UnknownPersonError as error:
        raise not_found("person", str(error), expected="an id of /v1/people") from error
    except UnknownError as error:
        raise bad_request("body.grants", expected="a node of /v1/org-nodes", got=error.name) from error
    except BeyondScopeError as error:
        raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", "Not yours to do", str(error)) from error
    except (TakenTokenError, SamePersonError, LastAdministratorError, TooManyTokensError) as error:
        raise ProblemError(HTTPStatus.CONFLICT, _CONFLICTS[type(error)], "It cannot be done", str(error)) from error
    except PeopleError as error:
        raise ProblemError(HTTPStatus.CONFLICT, "refused", "It cannot be done", str(error)) from error
