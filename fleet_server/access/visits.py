"""Sessions of people who showed a token to a page, where nobody signs in with a provider. In memory alone.

A page cannot bear a token as a program does, and a cookie with the token itself would outlive every sign-out. So a
browser gets 256 random bits, and the token stays here. It is asked for at each request whether the token is still
good: who loses it loses the session. After a restart people show their tokens again.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Final

from fleet_server.access.people import Principal
from fleet_server.access.people_store import People
from fleet_server.access.persons import SessionRules, SignedIn, new_session, session_digest

VISITS_MAX: Final = 4_096
"""One more, and the one that was used longest ago ends."""
RULES: Final = SessionRules(whole_ms=12 * 3_600_000, idle_ms=3_600_000)


@dataclass(slots=True)
class _Visit:
    token: str
    created_ms: int
    used_ms: int


class Visits:
    """See the module's docstring. Any thread may call; every call may raise StoreError, as the store of tokens."""

    def __init__(self, people: People, rules: SessionRules = RULES) -> None:
        self._people = people
        self._rules = rules
        self._lock = Lock()
        self._visits: dict[bytes, _Visit] = {}  # by the digest of the session; what was used last is last

    def begin(self, token: str, *, instead_of: str | None, now_ms: int) -> SignedIn | None:
        """A session of whose *token* it is, and an end to *instead_of*; None: the token is not good."""
        principal = self._people.authenticate(token, now_ms=now_ms)
        if principal is None:
            return None
        session = new_session()
        digest = session_digest(session)
        assert digest is not None
        self.end(instead_of)
        with self._lock:
            while len(self._visits) >= VISITS_MAX:
                del self._visits[next(iter(self._visits))]
            self._visits[digest] = _Visit(token, now_ms, now_ms)
        return SignedIn(principal, session, now_ms + self._rules.whole_ms)

    def of_session(self, secret: str, *, now_ms: int) -> Principal | None:
        """Whose session it is; None if it is none, or over, or its token is not good any more."""
        digest = session_digest(secret)
        with self._lock:
            visit = None if digest is None else self._visits.pop(digest, None)
            if visit is None or digest is None:
                return None
            ends_ms = visit.created_ms + self._rules.whole_ms
            if self._rules.is_over(
                created_ms=visit.created_ms, used_ms=visit.used_ms, expires_ms=ends_ms, now_ms=now_ms
            ):
                return None
            visit.used_ms = now_ms
            self._visits[digest] = visit
        return self._people.authenticate(visit.token, now_ms=now_ms)

    def end(self, secret: str | None) -> None:
        """End a session; one that is none is no error."""
        digest = None if secret is None else session_digest(secret)
        with self._lock:
            if digest is not None:
                self._visits.pop(digest, None)
