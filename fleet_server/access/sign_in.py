"""How somebody signs in: the authorization code flow with PKCE, decided in plain functions. Pure.

All that must be remembered while the browser is at the provider is in one cookie, sealed with a key of this process:
a stranger who begins a thousand sign-ins writes nothing here. State, nonce and code verifier are derived from the
cookie's secret, each by its own label, so that what is seen in a URL tells nothing of the others. A server that was
restarted has another key, and what was begun before is begun again.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fleet_server.access.people import NodeGrant, PeopleError
from fleet_server.access.persons import EMAIL_CHARS_MAX, SUBJECT_CHARS_MAX, Identity
from fleet_server.registry.model import NAME_CHARS_MAX

SIGN_IN_MS: Final = 600_000
"""From the way to the provider until the way back."""
SECRET_BYTES: Final = 32
USED_MAX: Final = 10_000
"""Sign-ins that came back within SIGN_IN_MS, and must not come again."""
GROUPS_READ_MAX: Final = 1_000

Claims = Mapping[str, object]


class SignInError(PeopleError):
    """Nobody was signed in."""


class RefusedSignInError(SignInError):
    """What came back is not good; who wants in begins again."""


class TooManySignInsError(SignInError):
    """More than USED_MAX came back in a short time."""


class ProviderError(SignInError):
    """The provider does not answer, or not in the way of OpenID Connect; it may later."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in under way. ``cookie`` goes to the browser; ``verifier`` to nobody but the provider, with the code."""

    cookie: str
    state: str
    nonce: str
    verifier: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom this server takes. ``acr``: one of these must be the claim, if there are any; ``amr``: all of these must
    be in the claim. ``groups``: what a group of the claim ``groups_claim`` gives.
    """

    issuer: str
    client_id: str
    name_claim: str = "name"
    groups_claim: str = "groups"
    acr: frozenset[str] = frozenset()
    amr: frozenset[str] = frozenset()
    groups: Sequence[tuple[str, NodeGrant]] = ()


@dataclass(slots=True)
class UsedStates:
    """Which sign-ins came back already; callers take turns."""

    _until: dict[str, int] = field(default_factory=dict)

    def use(self, begun: Begun, *, now_ms: int) -> None:
        """Note it.

        Raises:
            RefusedSignInError: it was used before.
            TooManySignInsError: there is no room to note it.
        """
        if len(self._until) >= USED_MAX:
            self._until = {state: ends for state, ends in self._until.items() if ends > now_ms}
        if begun.state in self._until:
            raise RefusedSignInError("this sign-in was used already")
        if len(self._until) >= USED_MAX:
            raise TooManySignInsError("too many sign-ins at once; try again in some minutes")
        self._until[begun.state] = begun.expires_ms


def begin(key: bytes, secret: bytes, *, now_ms: int) -> Begun:
    """Begin with *secret*, SECRET_BYTES random bytes."""
    expires_ms = now_ms + SIGN_IN_MS
    return _derived(f"{_text(secret)}.{expires_ms}.{_seal(key, secret, expires_ms)}", secret, expires_ms)


def resumed(key: bytes, cookie: str | None, state: str | None, *, now_ms: int) -> Begun:
    """What the browser began that is back now, with the *state* of its URL.

    Raises:
        RefusedSignInError: another browser began it, nobody did, or too long ago.
    """
    secret, expires, seal = (*(cookie or "").split("."), "", "", "")[:3]
    if not cookie or not state:
        raise RefusedSignInError("this browser has no sign-in under way")
    try:
        raw, expires_ms = base64.urlsafe_b64decode(secret + "=="), int(expires)
    except ValueError as error:
        raise RefusedSignInError("the cookie is none of ours") from error
    if not hmac.compare_digest(_seal(key, raw, expires_ms).encode(), seal.encode("utf-8", "backslashreplace")):
        raise RefusedSignInError("the sign-in was begun with another server, or before it was restarted")
    if now_ms >= expires_ms:
        raise RefusedSignInError(f"the sign-in took longer than {SIGN_IN_MS // 60_000} minutes")
    begun = _derived(cookie, raw, expires_ms)
    if not hmac.compare_digest(begun.state.encode(), state.encode("utf-8", "backslashreplace")):
        raise RefusedSignInError("another browser began this sign-in")
    return begun


def identity_of(claims: Claims, policy: Policy) -> Identity:
    """Whom claims that were verified are of.

    Raises:
        RefusedSignInError: they do not say how the person proved it, or less than *policy* wants; or name nobody.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARS_MAX or not subject.isprintable():
        raise RefusedSignInError(f"sub: expected 1 to {SUBJECT_CHARS_MAX} printable characters")
    acr = claims.get("acr")
    if policy.acr and not (isinstance(acr, str) and acr in policy.acr):
        raise RefusedSignInError(
            f"acr: expected one of {', '.join(sorted(policy.acr))}; sign in with a second factor"
        )
    missing = policy.amr - set(_texts(claims.get("amr")))
    if missing:
        raise RefusedSignInError(f"amr: expected {', '.join(sorted(missing))} too; sign in with a second factor")
    name, email = (_line(claims.get(each)) for each in (policy.name_claim, "email"))
    return Identity(policy.issuer, subject, name[:NAME_CHARS_MAX], email[:EMAIL_CHARS_MAX])


def grants_by_group(claims: Claims, policy: Policy) -> list[NodeGrant]:
    """What the groups of the claims give, each once."""
    held = set(_texts(claims.get(policy.groups_claim)))
    return list(dict.fromkeys(grant for group, grant in policy.groups if group in held))


def _texts(claim: object) -> list[str]:
    """A claim that is a list of texts, or one text; anything else has none."""
    if isinstance(claim, str):
        return [claim]
    found = claim[:GROUPS_READ_MAX] if isinstance(claim, list) else []
    return [each for each in found if isinstance(each, str)]


def _line(claim: object) -> str:
    text = claim if isinstance(claim, str) else ""
    return "".join(character for character in text if character.isprintable()).strip()


def _derived(cookie: str, secret: bytes, expires_ms: int) -> Begun:
    state, nonce, verifier = (
        _text(hmac.digest(secret, label, hashlib.sha256)) for label in (b"state", b"nonce", b"verifier")
    )
    return Begun(cookie, state, nonce, verifier, expires_ms)


def _seal(key: bytes, secret: bytes, expires_ms: int) -> str:
    return _text(hmac.digest(key, b"%s.%d" % (secret, expires_ms), hashlib.sha256))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
