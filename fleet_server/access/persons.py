"""People who sign in with a provider of OpenID Connect, and their sessions. Pure.

Who somebody is says the provider, by issuer and subject; what they may says this server. A session is 256 random
bits in a cookie, kept as their SHA-256.
"""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from fleet_server.access.people import NodeGrant, PeopleError, Principal

HOLDER: Final = "person:"
"""Before a person's id, where a token's id has nothing: no token is named like that."""
PERSONS_MAX: Final = 10_000
SESSIONS_A_PERSON_MAX: Final = 16
"""One more, and the oldest ends."""
SESSION_BYTES: Final = 32
SLUG_CHARS_MAX: Final = 40
EMAIL_CHARS_MAX: Final = 254
SUBJECT_CHARS_MAX: Final = 255
NOBODY: Final = "person"

_SESSION: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_NOT_SLUG: Final = re.compile(r"[^a-z0-9]+")


class UnknownPersonError(PeopleError):
    """There is no such person."""


class DisabledPersonError(PeopleError):
    """They may not sign in."""


class TooManyPersonsError(PeopleError):
    """There are PERSONS_MAX."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the provider vouches for. ``issuer`` and ``subject`` name them for ever; the rest is what they are called,
    printable and bounded, and may be empty.
    """

    issuer: str
    subject: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Person:
    """``grants`` were given by hand, ``by_group`` came with the last sign-in. ``proposed``: would take the place of
    ``grants`` once another administrator than the holder ``proposed_by`` agrees; None if nothing waits. Times are ms
    since the epoch.
    """

    person: str
    identity: Identity
    grants: tuple[NodeGrant, ...]
    by_group: tuple[NodeGrant, ...]
    proposed: tuple[NodeGrant, ...]
    proposed_by: str | None
    revision: int
    first_ms: int
    last_ms: int
    disabled_ms: int | None


@dataclass(frozen=True, slots=True)
class SignedIn:
    """``session``: the secret, which is told this once."""

    principal: Principal
    session: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How long a session is good at most, and how long without a request."""

    whole_ms: int
    idle_ms: int

    def is_over(self, *, created_ms: int, used_ms: int, expires_ms: int, now_ms: int) -> bool:
        """By what it was begun with, and by the rules of now: who shortens them shortens what has begun."""
        ends_ms = min(expires_ms, created_ms + self.whole_ms, used_ms + self.idle_ms)
        return now_ms >= ends_ms


def holder_of(person: str) -> str:
    """What the audit log calls them."""
    return HOLDER + person


def new_session() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(SESSION_BYTES)


def session_digest(secret: str) -> bytes | None:
    """What is kept of a session; None if the text cannot be one."""
    return hashlib.sha256(secret.encode("ascii")).digest() if _SESSION.match(secret) else None


def slug_of(identity: Identity, taken: Container[str]) -> str:
    """An id for somebody new, from what they are called and not *taken*."""
    for text in (identity.email.partition("@")[0], identity.name):
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
        stem = _NOT_SLUG.sub("-", plain)[:SLUG_CHARS_MAX].strip("-")
        if stem:
            break
    else:
        stem = NOBODY
    if stem not in taken:
        return stem
    return next(slug for n in range(2, PERSONS_MAX + 2) if (slug := f"{stem}-{n}") not in taken)
