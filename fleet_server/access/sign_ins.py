"""Carries a sign-in through: what begins it, what comes back, the provider, the session. Knows ports only."""

import secrets
from threading import Lock
from typing import NamedTuple, Protocol

from broker_config.text import shown
from fleet_server.access import sign_in
from fleet_server.access.person_store import Persons
from fleet_server.access.persons import SignedIn
from fleet_server.access.sign_in import (
    SECRET_BYTES,
    Begun,
    Claims,
    Policy,
    RefusedSignInError,
    UsedStates,
    grants_by_group,
    identity_of,
)


class Provider(Protocol):
    """The provider of OpenID Connect. Any thread may call; every wait and every byte is bounded.

    Trusted to say who somebody is: whoever is in its place can sign in as anybody.
    """

    def address(self, begun: Begun) -> str:
        """Where the browser goes to. Raises ProviderError."""

    def claims(self, code: str, begun: Begun, *, now_ms: int) -> Claims:
        """Those of the id token that *code* is good for: signed by the provider, for us, this sign-in, and in time.

        Raises:
            ProviderError: it does not answer.
            RefusedSignInError: the code is good for nothing, or the token is not proved.
        """


class Answer(NamedTuple):
    """What the browser brings back in its URL; ``error``: the provider's own word for why there is no code."""

    state: str | None
    code: str | None
    error: str | None
    issuer: str | None


class SignIns:
    """See the module's docstring. Any thread may call."""

    def __init__(self, provider: Provider, policy: Policy, persons: Persons) -> None:
        self._provider = provider
        self._policy = policy
        self._persons = persons
        self._key = secrets.token_bytes(SECRET_BYTES)
        self._lock = Lock()
        self._used = UsedStates()

    def begin(self, *, now_ms: int) -> tuple[Begun, str]:
        """A new one, and where the browser goes to. Raises ProviderError."""
        begun = sign_in.begin(self._key, secrets.token_bytes(SECRET_BYTES), now_ms=now_ms)
        return begun, self._provider.address(begun)

    def finish(self, answer: Answer, cookie: str | None, *, instead_of: str | None, now_ms: int) -> SignedIn:
        """Begin a session, and end the one whose secret is *instead_of*.

        Raises:
            SignInError: see there.
            DisabledPersonError, TooManyPersonsError, StoreError: of the store.
        """
        begun = sign_in.resumed(self._key, cookie, answer.state, now_ms=now_ms)
        with self._lock:
            self._used.use(begun, now_ms=now_ms)  # before anything is asked of the provider: good for one try
        if answer.issuer is not None and answer.issuer != self._policy.issuer:
            raise RefusedSignInError("iss: another provider sent the browser back")  # RFC 9207
        if answer.code is None:
            raise RefusedSignInError(f"the provider signed nobody in: {shown(answer.error or 'it did not say why')}")
        claims = self._provider.claims(answer.code, begun, now_ms=now_ms)
        identity = identity_of(claims, self._policy)
        by_group = grants_by_group(claims, self._policy)
        return self._persons.sign_in(identity, by_group, instead_of=instead_of, now_ms=now_ms)

    def undo(self, signed_in: SignedIn) -> None:
        """End a session that nobody has been told of. Raises StoreError."""
        self._persons.sign_out(signed_in.session)
