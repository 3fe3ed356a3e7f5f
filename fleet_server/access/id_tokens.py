"""Whether an id token is proved (OpenID Connect Core section 3.1.3.7). Values only; the keys are given."""

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from authlib.oidc.core import CodeIDToken
from joserfc import jwk, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, extract_compact

from broker_config.text import shown
from fleet_server.access.sign_in import Claims, Policy, RefusedSignInError

ALGORITHMS: Final[Mapping[str, str]] = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""What a provider may sign with, and the kind of key for it. Never ``none``; never HS*, whose key we would share."""
TOKEN_CHARS_MAX: Final = 32 * 1024
KEYS_MAX: Final = 64
RSA_BITS_MIN: Final = 2_048
LEEWAY_S: Final = 60
"""By how much the two clocks may differ."""

Key = RSAKey | ECKey | OKPKey


class UnknownKeyError(RefusedSignInError):
    """It may be signed with a key that is not among those given: the provider may have a new one."""


class _Allowed(JWSRegistry):
    """The algorithms of ALGORITHMS and no others; the library's list is longer, and warns of the name EdDSA."""

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in ALGORITHMS:
            _refuse(f"alg: expected one of {', '.join(ALGORITHMS)}, got {shown(name)}")
        return self.algorithms[name]


def read_keys(document: object) -> list[Key]:
    """The keys of a JWKS that may sign an id token; what is of another kind is left out.

    Raises:
        RefusedSignInError: it is no JWKS.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        _refuse("the provider's keys are no JWKS")
    return [key for entry in entries[:KEYS_MAX] if (key := _key(entry)) is not None]


def verified(token: str, keys: Sequence[Key], policy: Policy, *, nonce: str, now_ms: int) -> Claims:
    """The claims of *token*.

    Raises:
        UnknownKeyError: see there.
        RefusedSignInError: it is not signed by one of *keys*, not for us, not for this sign-in, or not of now.
    """
    if len(token) > TOKEN_CHARS_MAX:
        _refuse(f"id token: expected at most {TOKEN_CHARS_MAX} characters, got {len(token)}")
    try:
        header = extract_compact(token.encode("ascii", "replace")).headers()
        key = _chosen(keys, header.get("alg"), header.get("kid"))
        proved = _proved(token, key, named="kid" in header)
        options = {"iss": {"essential": True, "value": policy.issuer}, "aud": {"essential": True}}
        claims = CodeIDToken(proved.claims, proved.header, options, {"nonce": nonce, "client_id": policy.client_id})
        claims["aud"] = _audience(proved.claims.get("aud"), policy.client_id)
        claims.validate(now_ms // 1_000, LEEWAY_S)
    except (JoseError, ValueError) as error:
        raise RefusedSignInError(f"the id token is not proved: {shown(error)}") from error
    return dict(claims)


def _proved(token: str, key: Key, *, named: bool) -> jwt.Token:
    try:
        return jwt.decode(token, key, registry=_Allowed(strict_check_header=False))
    except BadSignatureError as error:
        if named:
            raise
        raise UnknownKeyError("the id token is not proved: bad signature, of a key without a name") from error


def _audience(aud: object, client_id: str) -> list[str]:
    """Every one of it, so that more than one asks for ``azp``. Raises RefusedSignInError: it is not for us."""
    found = [aud] if isinstance(aud, str) else aud
    if not isinstance(found, list) or client_id not in found:
        _refuse(f"aud: expected {client_id}, got {shown(aud)}")
    return [str(each) for each in found]


def _chosen(keys: Sequence[Key], alg: object, kid: object) -> Key:
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        _refuse(f"alg: expected one of {', '.join(ALGORITHMS)}, got {shown(alg)}")
    fitting = [key for key in keys if key.key_type == ALGORITHMS[alg] and key.get("alg", alg) == alg]
    named = [key for key in fitting if kid is None or key.get("kid") == kid]
    if kid is None and len(named) > 1:
        _refuse("kid: missing, and the provider has several keys")
    if not named:
        raise UnknownKeyError(f"kid: expected one of the provider's keys, got {shown(kid)}")
    return named[0]


def _key(entry: object) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    public = {name: value for name, value in entry.items() if name not in {"d", "p", "q", "dp", "dq", "qi"}}
    try:
        key = jwk.import_key(public) if entry.get("kty") in ALGORITHMS.values() else None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAKey):
        return key if key.public_key.key_size >= RSA_BITS_MIN else None
    return key if isinstance(key, ECKey | OKPKey) else None


def _refuse(why: str) -> NoReturn:
    raise RefusedSignInError(why)
