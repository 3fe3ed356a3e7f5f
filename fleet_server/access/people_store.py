"""Tokens and their grants. This is the port.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Trusted: whoever can write here can do everything.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fleet_server.access.people import NodeGrant, Principal, Token


class NewToken(NamedTuple):
    """A token and its secret, which is told this once."""

    token: Token
    secret: str


class People(Protocol):
    """See the module's docstring."""

    def authenticate(self, secret: str, *, now_ms: int) -> Principal | None:
        """Whose token it is; None if it is none, or none that is good now."""

    def tokens(self, *, after: str, rows_max: int) -> Sequence[Token]:
        """All that were ever made, by id, behind *after*."""

    def token(self, token: str) -> Token | None:
        """One of them."""

    def make_token(
        self,
        token: str,
        name: str,
        grants: Sequence[NodeGrant],
        *,
        giver: Principal,
        expires_ms: int | None,
        now_ms: int,
    ) -> NewToken:
        """Make a token.

        Raises:
            TakenTokenError, BeyondScopeError: see there.
            UnknownError: (of the registry) there is no such node.
        """

    def approve(self, token: str, *, approver: Principal) -> Token:
        """The second person agrees.

        Raises:
            UnknownTokenError, BeyondScopeError, SamePersonError: see there.
        """

    def revoke(self, token: str, *, giver: Principal, now_ms: int) -> Token:
        """It is good for nothing from now on; revoking again changes nothing.

        Raises:
            UnknownTokenError, BeyondScopeError, LastAdministratorError: see there.
        """

    def ensure_first(self, secret: str, *, now_ms: int) -> bool:
        """Make *secret* the first administrator's if nobody administers the fleet; whether it was so.

        Raises:
            PeopleError: *secret* is no token.
        """
