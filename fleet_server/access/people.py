"""Who asks: tokens of programs and people, what they were granted, and when a grant needs a second person. Pure.

A token's secret is shown once and kept as its SHA-256: 256 random bits need no slow hash. The token that ``init``
writes is the first administrator's.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fleet_server.access.roles import Grant, Permission, Role, Scope, scope_of

TOKEN_PREFIX: Final = "ff_"  # noqa: S105 - so that a leaked one is found by its beginning
TOKEN_BYTES: Final = 32
GRANTS_MAX: Final = 32
TOKENS_MAX: Final = 1_000
"""That are good, or wait for a second person; what was revoked or has run out is only kept."""
"""Of one holder."""
USED_EVERY_MS: Final = 60_000
"""When a token was last used is noted no more often."""
NEEDS_TWO: Final = frozenset({Role.ADMINISTRATOR, Role.EVIDENCE_REVIEWER})
"""Roles that one administrator alone does not give, once there are two."""
FIRST: Final = "first-administrator"
"""The id of the token that ``init`` wrote."""

_TOKEN: Final = re.compile(r"ff_[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody whose token or session was good. ``holder``: the token's id, or ``person:`` and the person's id; the
    audit log names it.
    """

    holder: str
    name: str
    grants: tuple[Grant, ...]

    def scope(self, permission: Permission) -> Scope:
        """Where they may do it."""
        return scope_of(self.grants, permission)


ROOT: Final = Principal("_server", "the server itself", (Grant(Role.ADMINISTRATOR, ""),))


@dataclass(frozen=True, slots=True)
class NodeGrant:
    """A grant as people say it: at a node by its name, None is everywhere."""

    role: Role
    node: str | None


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is listed; never its secret.

    ``made_by``: the holder who made it. ``approved_by``: who else agreed, None if nobody had to or nobody did;
    ``pending``: it waits for that, and is good for nothing. Times are ms since the epoch; ``expires_ms`` None: never.
    """

    token: str
    name: str
    grants: tuple[NodeGrant, ...]
    made_by: str
    approved_by: str | None
    pending: bool
    created_ms: int
    expires_ms: int | None
    used_ms: int | None
    revoked_ms: int | None


class PeopleError(Exception):
    """It cannot be done; nothing was changed."""


class UnknownTokenError(PeopleError):
    """There is no such token."""


class TakenTokenError(PeopleError):
    """There is a token of that id."""


class TooManyTokensError(PeopleError):
    """There are TOKENS_MAX."""


class BeyondScopeError(PeopleError):
    """Nobody gives what they do not have."""


class SamePersonError(PeopleError):
    """The second person must be another one."""


class LastAdministratorError(PeopleError):
    """Nobody could administer the fleet any more."""


def new_secret() -> str:
    """A token of 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest(secret: str) -> bytes | None:
    """What is kept of a token; None if the text cannot be one."""
    return hashlib.sha256(secret.encode("ascii")).digest() if _TOKEN.match(secret) else None


def check_gift(giver: Principal, grants: Iterable[Grant]) -> None:
    """Raises BeyondScopeError: the giver may not change people at one of the grants' places."""
    scope = giver.scope(Permission.PEOPLE_CHANGE)
    for grant in grants:
        covered = scope.everywhere if grant.path == "" else scope.covers(grant.path)
        if not covered:
            where = grant.path or "everywhere"
            raise BeyondScopeError(f"{giver.holder} may not make a {grant.role} of {where}")


def needs_second(grants: Iterable[Grant], administrators: int) -> bool:
    """Whether another administrator must agree: for the roles of NEEDS_TWO, once there are two to ask."""
    return administrators > 1 and any(grant.role in NEEDS_TWO for grant in grants)


def is_good(*, pending: bool, expires_ms: int | None, revoked_ms: int | None, now_ms: int) -> bool:
    """Whether a token is good for anything now."""
    return not pending and revoked_ms is None and (expires_ms is None or now_ms < expires_ms)
