"""An id token is proved by a key of the provider and an algorithm that is allowed, and by no other."""

from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from fleet_server.access.id_tokens import KEYS_MAX, LEEWAY_S, UnknownKeyError, read_keys, verified
from fleet_server.access.sign_in import Policy, RefusedSignInError

NOW_S = 1_767_254_400
POLICY = Policy(issuer="https://login.example", client_id="fieldfleet")
CLAIMS = {
    "iss": POLICY.issuer,
    "aud": "fieldfleet",
    "sub": "1",
    "iat": NOW_S,
    "exp": NOW_S + 300,
    "nonce": "n",
}
RSA = RSAKey.generate_key(2_048, {"kid": "r"})
EC = ECKey.generate_key("P-256", {"kid": "e"})
ED = OKPKey.generate_key("Ed25519", {"kid": "o"})
OCT = OctKey.generate_key(256, {"kid": "h"})
PUBLIC = [key.as_dict(private=False) for key in (RSA, EC, ED)]


class Anything(JWSRegistry):
    """Signs with whatever it is told."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


def signed(key: Any, alg: str, kid: str | None, **claims: object) -> str:
    header = {"alg": alg} if kid is None else {"alg": alg, "kid": kid}
    return jwt.encode(header, {**CLAIMS, **claims}, key, registry=Anything())


def check(token: str, *keys: object, now_s: int = NOW_S) -> object:
    return verified(token, read_keys({"keys": list(keys) or PUBLIC}), POLICY, nonce="n", now_ms=now_s * 1_000)["sub"]


@pytest.mark.parametrize(("key", "alg", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "o")])
def test_what_is_allowed(key: Any, alg: str, kid: str) -> None:
    assert check(signed(key, alg, kid)) == "1"
    assert check(signed(key, alg, None), key.as_dict(private=False)) == "1"
    with pytest.raises(UnknownKeyError):
        check(signed(key, alg, "another"))
    with pytest.raises(RefusedSignInError, match="not proved"):
        check(signed(type(key).generate_key(auto_kid=False, parameters={"kid": kid}), alg, kid))


@pytest.mark.parametrize(("key", "alg"), [(RSA, "PS256"), (RSA, "RS512"), (OCT, "HS256"), (OCT, "none")])
def test_what_is_not(key: Any, alg: str) -> None:
    with pytest.raises(RefusedSignInError, match="alg"):
        check(signed(key, alg, key.kid), *PUBLIC, OCT.as_dict(private=True))


def test_a_key_is_of_the_kind_that_the_algorithm_says() -> None:
    with pytest.raises(UnknownKeyError):
        check(signed(RSA, "RS256", "e"), {**EC.as_dict(private=False)})
    with pytest.raises(UnknownKeyError):
        check(signed(RSA, "RS256", "r"), {**RSA.as_dict(private=False), "alg": "PS256"})
    with pytest.raises(RefusedSignInError, match="several"):
        check(signed(RSA, "RS256", None), *PUBLIC, RSAKey.generate_key(2_048).as_dict(private=False))


@pytest.mark.parametrize(
    "entry",
    [
        {**PUBLIC[0], "use": "enc"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "r"},  # far too short
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": 1},
        {"kty": ["RSA"]},
        {"kty": "oct", "k": "AAAA"},
        "no key",
        None,
    ],
)
def test_what_is_no_key_to_sign_with_is_left_out(entry: object) -> None:
    assert read_keys({"keys": [entry]}) == []


def test_keys_are_bounded_and_a_document_that_is_none_is_refused() -> None:
    assert len(read_keys({"keys": [PUBLIC[2]] * (KEYS_MAX + 9)})) == KEYS_MAX
    documents: list[object] = [{}, {"keys": {}}, [], None]
    for document in documents:
        with pytest.raises(RefusedSignInError):
            read_keys(document)


@pytest.mark.parametrize(
    ("claims", "now_s", "good"),
    [
        ({}, NOW_S + 299 + LEEWAY_S, True),
        ({}, NOW_S + 300 + LEEWAY_S, False),
        ({}, NOW_S - LEEWAY_S, True),
        ({}, NOW_S - LEEWAY_S - 1, False),
        ({"nbf": NOW_S + LEEWAY_S + 1}, NOW_S, False),
        ({"aud": ["fieldfleet", "other"], "azp": "fieldfleet"}, NOW_S, True),
        ({"aud": ["fieldfleet", "other"], "azp": "other"}, NOW_S, False),
        ({"azp": "other"}, NOW_S, False),
        ({"aud": []}, NOW_S, False),
        ({"aud": {"fieldfleet": 1}}, NOW_S, False),
        ({"iss": [POLICY.issuer]}, NOW_S, False),
        ({"nonce": ["n"]}, NOW_S, False),
        ({"exp": True}, NOW_S, False),
        ({"amr": "otp"}, NOW_S, False),
    ],
)
def test_times_and_whom_it_is_for(claims: dict[str, object], now_s: int, good: bool) -> None:
    token = signed(ED, "EdDSA", "o", **claims)
    if good:
        assert check(token, now_s=now_s) == "1"
    else:
        with pytest.raises(RefusedSignInError):
            check(token, now_s=now_s)
