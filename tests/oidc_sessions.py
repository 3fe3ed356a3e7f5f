"""Who is signed in at the provider itself, and how they sign out there: OpenID Connect RP-Initiated Logout 1.0.

As a strict provider does it: an id token that it signed itself, for this client, ends the session of whom it names at
once; without one it asks the person. It sends a browser on only to where it was told beforehand that it may.
"""

import io
import secrets
from collections.abc import Callable, Iterable
from http.cookies import SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey

COOKIE: Final = "idp-session"
ASKS: Final = b"<form method=post><button>Sign out?</button></form>"

Environ = dict[str, Any]
Respond = Callable[..., Any]


class Sessions:
    """Of one provider. *known*: where browsers may be sent that have signed out."""

    def __init__(self, client_id: str, known: frozenset[str] = frozenset()) -> None:
        self._client_id = client_id
        self._known = known
        self._subjects: dict[str, str] = {}

    def resume(self, environ: Environ) -> list[tuple[str, str]]:
        """Who is signed in needs no form; who fills it in is signed in from now on. The headers that say so."""
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            return self._remember(parse_qs(body.decode())["sub"][0])
        subject = self._subjects.get(_session(environ))
        if subject is not None:
            body = urlencode({"sub": subject}).encode()
            environ["REQUEST_METHOD"], environ["wsgi.input"] = "POST", io.BytesIO(body)
            environ["CONTENT_LENGTH"], environ["CONTENT_TYPE"] = str(len(body)), "application/x-www-form-urlencoded"
        return []

    def end(self, environ: Environ, respond: Respond, key: RSAKey) -> Iterable[bytes]:
        """The endpoint."""
        asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        session, back = _session(environ), asked.get("post_logout_redirect_uri")
        if asked.get("client_id") != self._client_id or (back is not None and back not in self._known):
            respond("400 Bad Request", [])
            return [b"unknown client, or nowhere it may send anybody"]
        if environ["REQUEST_METHOD"] != "POST":
            hint = asked.get("id_token_hint")
            if hint is None:
                respond("200 OK", [("Content-Type", "text/html")])
                return [ASKS]
            named = jwt.decode(hint, key).claims
            if named["aud"] != [self._client_id] or named["sub"] != self._subjects.get(session, named["sub"]):
                respond("400 Bad Request", [])
                return [b"another client's token, or another person's"]
        self._subjects.pop(session, None)
        if back is None:
            respond("200 OK", [])
            return [b"signed out"]
        state = urlencode({"state": asked["state"]}) if "state" in asked else ""
        respond("302 Found", [("Location", f"{back}?{state}")])
        return []

    def _remember(self, subject: str) -> list[tuple[str, str]]:
        secret = secrets.token_hex(16)
        self._subjects[secret] = subject
        return [("Set-Cookie", f"{COOKIE}={secret}; Path=/; HttpOnly")]


def _session(environ: Environ) -> str:
    found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    return "" if found is None else found.value
