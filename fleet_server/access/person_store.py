"""Persons, their grants and their sessions. This is the port.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Every method may raise StoreError. Trusted: whoever can write here can do everything.
"""

from collections.abc import Sequence
from typing import Protocol

from fleet_server.access.people import NodeGrant, Principal
from fleet_server.access.persons import Identity, Person, SignedIn


class Persons(Protocol):
    """See the module's docstring."""

    def sign_in(
        self, identity: Identity, by_group: Sequence[NodeGrant], *, instead_of: str | None, now_ms: int
    ) -> SignedIn:
        """Begin a session, and end the one whose secret is *instead_of*. Who was never here is entered without grants
        but *by_group*, which take the place of what groups gave before; what is for no node is left out.

        Raises:
            DisabledPersonError, TooManyPersonsError: see there.
        """

    def of_session(self, secret: str, *, now_ms: int) -> Principal | None:
        """Whose session it is; None if it is none, or over, or its person is disabled."""

    def sign_out(self, secret: str) -> None:
        """End a session; one that is none is no error."""

    def persons(self, *, after: str, rows_max: int) -> Sequence[Person]:
        """By id, behind *after*."""

    def person(self, person: str) -> Person | None:
        """One of them."""

    def put_grants(
        self, person: str, grants: Sequence[NodeGrant], *, expected: int | None, giver: Principal, now_ms: int
    ) -> Person:
        """Replace what was given by hand, or propose it where a second person must agree. *expected*: the revision
        that must be there, None is any.

        Raises:
            UnknownPersonError, BeyondScopeError, LastAdministratorError: see there.
            UnknownError, StaleError: (of the registry) there is no such node; the revision is another.
        """

    def approve(self, person: str, *, approver: Principal, now_ms: int) -> Person:
        """The second person agrees to what is proposed.

        Raises:
            PeopleError: nothing is.
            UnknownPersonError, BeyondScopeError, SamePersonError, LastAdministratorError: see there.
        """

    def disable(self, person: str, *, giver: Principal, now_ms: int) -> Person:
        """End their sessions, and begin no more.

        Raises:
            UnknownPersonError, BeyondScopeError, LastAdministratorError: see there.
        """

    def enable(self, person: str, *, giver: Principal) -> Person:
        """Let them sign in again, with the grants they have.

        Raises:
            UnknownPersonError, BeyondScopeError: see there.
        """
