"""Carries a sign-in through: what begins it, what comes back, the provider, the session, its end. Knows ports only.

The id tokens that a provider wants to see again at the sign-out are in memory alone: they say who somebody is, and no
file needs to. After a restart the provider is told who asks (``client_id``), and may ask the person once more.
"""

import secrets
from threading import Lock
from typing import Final, NamedTuple, Protocol

from broker_config.text import shown
from fleet_server.access import sign_in
from fleet_server.access.person_store import Persons
from fleet_server.access.persons import SignedIn, session_digest
from fleet_server.access.sign_in import (
    SECRET_BYTES,
    Begun,
    Claims,
    Policy,
    ProviderError,
    RefusedSignInError,
    UsedStates,
    grants_by_group,
    identity_of,
)

HINTS_MAX: Final = 4_096
"""Id tokens that are remembered; the oldest is forgotten first."""
HINT_CHARS_MAX: Final = 4_096
"""A longer one would make a URL that not every browser and proxy takes; it is not remembered."""


class IdToken(NamedTuple):
    """``text``: as the provider signed it."""

    claims: Claims
    text: str


class Provider(Protocol):
    """The provider of OpenID Connect. Any thread may call; every wait and every byte is bounded.

    Trusted to say who somebody is: whoever is in its place can sign in as anybody.
    """

    def address(self, begun: Begun) -> str:
        """Where the browser goes to. Raises ProviderError."""

    def id_token(self, code: str, begun: Begun, *, now_ms: int) -> IdToken:
        """What *code* is good for: signed by the provider, for us, this sign-in, and in time.

        Raises:
            ProviderError: it does not answer.
            RefusedSignInError: the code is good for nothing, or the token is not proved.
        """

    def sign_out_address(self, hint: str | None, state: str) -> str | None:
        """Where the browser goes to sign out there too (OpenID Connect RP-Initiated Logout 1.0); None: it has no such
        place. *hint*: the id token of the session that has ended; *state* comes back if the browser does.

        Raises:
            ProviderError: it does not answer.
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
        self._hints: dict[bytes, str] = {}  # by the digest of the session; the oldest first

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
        claims, token = self._provider.id_token(answer.code, begun, now_ms=now_ms)
        identity = identity_of(claims, self._policy)
        by_group = grants_by_group(claims, self._policy)
        signed_in = self._persons.sign_in(identity, by_group, instead_of=instead_of, now_ms=now_ms)
        self._forget(instead_of)
        self._remember(signed_in.session, token)
        return signed_in

    def undo(self, signed_in: SignedIn) -> None:
        """End a session that nobody has been told of. Raises StoreError."""
        self._persons.sign_out(signed_in.session)
        self._forget(signed_in.session)

    def end(self, session: str, *, state: str) -> str | None:
        """End a session; where the browser goes to sign out at the provider too, None if it need not.

        Raises:
            StoreError: it has not ended.
        """
        self._persons.sign_out(session)  # first, whatever the provider does
        hint = self._forget(session)
        try:
            return self._provider.sign_out_address(hint, state)
        except ProviderError:
            return None

    def _remember(self, session: str, token: str) -> None:
        digest = session_digest(session)
        if digest is None or len(token) > HINT_CHARS_MAX:
            return
        with self._lock:
            if len(self._hints) >= HINTS_MAX:
                del self._hints[next(iter(self._hints))]
            self._hints[digest] = token

    def _forget(self, session: str | None) -> str | None:
        digest = None if session is None else session_digest(session)
        with self._lock:
            return None if digest is None else self._hints.pop(digest, None)
