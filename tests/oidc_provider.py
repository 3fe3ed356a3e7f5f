"""A real provider of OpenID Connect on loopback, whose answers can be altered on their way.

The provider is ``oidc-provider-mock``: Authlib's own server side, with a form where one says who one is. It knows
nothing of PKCE, so that the check that a real one makes stands before it here: a code is good only with the verifier
whose SHA-256 came with the request for it. Its id tokens can be changed and signed again with its own key, so that
wrong nonces, audiences and times are really signed. Nor does it remember who is signed in, so that nobody could be
seen to sign out: :mod:`tests.oidc_sessions` does.
"""

import base64
import hashlib
import io
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qs

import flask
import httpx
import oidc_provider_mock  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.jwk import RSAKey
from oidc_provider_mock._app import AuthorizationCodeGrant  # type: ignore[import-untyped]
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from tests.oidc_sessions import Sessions
from tests.servers import free_port

# a public client has no secret; Authlib's server side wants to be told that it may not have one
AuthorizationCodeGrant.TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post", "none"]

HOST: Final = "127.0.0.1"
CODES_MAX: Final = 1_000

Environ = dict[str, Any]
Alter = Callable[[str], str]


class Provider:
    """Runs while :func:`provider` does. ``alter``: what becomes of the next id tokens; ``asked``: paths, in order;
    ``sessions``: None, so long as it remembers nobody and has no sign-out; ``has_sign_out``: whether it has one then.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.alter: Alter | None = None
        self.asked: list[str] = []
        self.verified = 0
        self.names_keys = True
        self.sessions: Sessions | None = None
        self.has_sign_out = True
        self._challenges: dict[str, str] = {}
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._people: dict[str, dict[str, object]] = {}

    @property
    def issuer(self) -> str:
        """Its name, where it is found."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """With keys of its own: one that starts again has other ones."""
        self._app = oidc_provider_mock.app()
        if self.names_keys:
            storage = self._storage()
            named = {**storage.jwk.as_dict(is_private=True), "kid": secrets.token_hex(4)}
            storage.jwk = type(storage.jwk).import_key(named)
        self._server = make_server(HOST, self.port, self._wsgi, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        for subject, claims in self._people.items():
            self.put(subject, **claims)

    def stop(self) -> None:
        """Nobody listens any more."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(5)
            self._server.server_close()
            self._server = None

    def put(self, subject: str, **claims: object) -> None:
        """What it says of somebody from now on."""
        self._people[subject] = claims
        httpx.put(f"{self.issuer}/users/{subject}", json=claims).raise_for_status()

    def signed_again(self, token: str, claims: Mapping[str, object]) -> str:
        """*token* as it would be with other *claims*, None is none at all, signed with the provider's own key."""
        header, body, _ = token.split(".")
        told = {**_read(body), **claims}
        key = self._key()
        named = {"kid": key.kid} if self.names_keys else {}
        return jwt.encode(
            {**_read(header), **named}, {name: value for name, value in told.items() if value is not None}, key
        )

    def _key(self) -> RSAKey:
        return RSAKey.import_key(self._storage().jwk.as_dict(is_private=True))

    def _storage(self) -> Any:
        with self._app.test_request_context():
            self._app.preprocess_request()
            return flask.g.oidc_provider_mock_storage

    def agree(self, address: str, subject: str) -> str:
        """Fill the form in; where the browser is sent then."""
        answer = httpx.post(address, data={"sub": subject})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def _wsgi(self, environ: Environ, start_response: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        self.asked.append(path)
        if path == "/.well-known/openid-configuration" and (self.sessions is None or not self.has_sign_out):
            return self._changed(environ, start_response, lambda told: told.pop("end_session_endpoint"))
        if path == "/oauth2/end_session" and self.sessions is not None:
            return self.sessions.end(environ, start_response, self._key())
        if path == "/oauth2/authorize":
            return self._authorize(environ, start_response)
        if path == "/oauth2/token":
            return self._token(environ, start_response)
        return self._app.wsgi_app(environ, start_response)

    def _authorize(self, environ: Environ, start_response: Callable[..., Any]) -> Any:
        asked = parse_qs(environ["QUERY_STRING"])
        assert asked["code_challenge_method"] == ["S256"]
        remembered: list[tuple[str, str]] = []
        if self.sessions is not None:
            remembered = self.sessions.resume(environ)

        def kept(status: str, headers: list[tuple[str, str]], *rest: object) -> Any:
            for name, value in headers:
                if name.lower() == "location" and "code=" in value:
                    code = parse_qs(value.partition("?")[2])["code"][0]
                    assert len(self._challenges) < CODES_MAX
                    self._challenges[code] = asked["code_challenge"][0]
            return start_response(status, [*headers, *remembered], *rest)

        return self._app.wsgi_app(environ, kept)

    def _token(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        said = parse_qs(body.decode())
        digest = hashlib.sha256(said["code_verifier"][0].encode()).digest()
        challenge = self._challenges.pop(said["code"][0], None)
        if challenge != base64.urlsafe_b64encode(digest).rstrip(b"=").decode():
            start_response("400 Bad Request", [("Content-Type", "application/json")])
            return [b'{"error": "invalid_grant"}']
        self.verified += 1
        environ["wsgi.input"] = io.BytesIO(body)
        return self._altered(environ, start_response)

    def _altered(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        def alter(answer: dict[str, Any]) -> None:
            if "id_token" in answer:
                token = self.signed_again(answer["id_token"], {})
                answer["id_token"] = token if self.alter is None else self.alter(token)

        return self._changed(environ, start_response, alter)

    def _changed(
        self, environ: Environ, start_response: Callable[..., Any], change: Callable[[dict[str, Any]], object]
    ) -> Iterable[bytes]:
        """The provider's own answer in JSON, changed."""
        told: list[Any] = []
        answer = json.loads(b"".join(self._app.wsgi_app(environ, lambda *args: told.extend(args))))
        change(answer)
        start_response(told[0], [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        """Nothing."""


@contextmanager
def provider() -> Iterator[Provider]:
    """One that runs."""
    found = Provider(free_port())
    found.start()
    try:
        yield found
    finally:
        found.stop()


def _read(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return found


def without_signature(token: str, **header: object) -> str:
    """The same claims under another header, signed by nobody."""
    text = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{text}.{token.split('.')[1]}."
