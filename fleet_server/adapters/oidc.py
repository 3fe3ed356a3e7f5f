"""A provider of OpenID Connect over HTTP: TLS verified, no redirect followed, every wait and every byte bounded.

What it says of itself and its keys are kept for a while. A key that is not known is asked for again, but not more
often than ``KEYS_AGAIN_S``: a stranger's made-up token must not make us ask without end.
"""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from threading import BoundedSemaphore, Lock
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote_plus

import httpx
import msgspec
from authlib.common.errors import AuthlibBaseError
from authlib.oauth2.client import OAuth2Client

from broker_config.text import shown
from fleet_server.access import id_tokens
from fleet_server.access.id_tokens import Key, UnknownKeyError
from fleet_server.access.sign_in import Begun, Claims, Policy, ProviderError, RefusedSignInError
from fleet_server.access.sign_ins import IdToken
from fleet_server.config import is_secure_url

DISCOVERY: Final = "/.well-known/openid-configuration"
CONNECT_S_MAX: Final = 5.0
ASK_S_MAX: Final = 10.0
ANSWER_BYTES_MAX: Final = 256 * 1024
KEPT_S: Final = 3_600.0
KEYS_AGAIN_S: Final = 30.0
FAILED_S: Final = 5.0
"""For so long a provider that failed is not asked again: a crowd must not wait for it one after the other."""
ASKING_MAX: Final = 4
"""Threads that wait for it at once; the API's others go on."""
URL_CHARS_MAX: Final = 2_048

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """``secret``: empty of a public client, which PKCE alone protects. ``signed_out_url``: where the provider sends a
    browser that has signed out, empty if nowhere.
    """

    policy: Policy
    redirect_url: str
    scopes: tuple[str, ...]
    secret: str
    security: ssl.SSLContext | None
    signed_out_url: str = ""


class Metadata(msgspec.Struct, frozen=True):
    """What of the provider's own document matters here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: list[str] = []
    end_session_endpoint: str | None = None


class _Kept(NamedTuple):
    metadata: Metadata
    keys: list[Key]
    at_s: float


class OidcProvider:
    """A :class:`fleet_server.access.sign_ins.Provider`."""

    def __init__(self, settings: OidcSettings, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock_s = clock_s
        self._lock = Lock()
        self._asking = BoundedSemaphore(ASKING_MAX)
        self._kept: _Kept | None = None
        self._failed: tuple[float, str] | None = None
        timeout = httpx.Timeout(ASK_S_MAX, connect=CONNECT_S_MAX)
        self._http = httpx.Client(
            transport=_Bounded(settings.security, clock_s),
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
            # what it would remember of one person it would tell it of another
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def address(self, begun: Begun) -> str:
        """See the port."""
        kept = self._known()
        url, _ = self._client().create_authorization_url(
            kept.metadata.authorization_endpoint, state=begun.state, code_verifier=begun.verifier, nonce=begun.nonce
        )
        return str(url)

    def id_token(self, code: str, begun: Begun, *, now_ms: int) -> IdToken:
        """See the port."""
        kept = self._known()
        token = self._redeemed(kept.metadata, code, begun)
        try:
            return IdToken(self._verified(token, kept, begun, now_ms), token)
        except UnknownKeyError:
            if self._clock_s() - kept.at_s < KEYS_AGAIN_S:
                raise
        return IdToken(self._verified(token, self._known(since_s=self._clock_s()), begun, now_ms), token)

    def sign_out_address(self, hint: str | None, state: str) -> str | None:
        """See the port. Without a hint ``client_id`` tells the provider whose sign-out it is."""
        endpoint = self._known().metadata.end_session_endpoint
        if endpoint is None or len(endpoint) > URL_CHARS_MAX or not is_secure_url(endpoint):
            return None
        asked = {"client_id": self._settings.policy.client_id}
        if hint is not None:
            asked["id_token_hint"] = hint
        if self._settings.signed_out_url:
            asked |= {"post_logout_redirect_uri": self._settings.signed_out_url, "state": state}
        return str(httpx.URL(endpoint).copy_merge_params(asked))

    def _verified(self, token: str, kept: _Kept, begun: Begun, now_ms: int) -> Claims:
        return id_tokens.verified(token, kept.keys, self._settings.policy, nonce=begun.nonce, now_ms=now_ms)

    def _known(self, *, since_s: float | None = None) -> _Kept:
        """What the provider says of itself, asked at *since_s* or later, or not long ago. Raises ProviderError."""
        kept = self._kept
        oldest = self._clock_s() - KEPT_S if since_s is None else since_s
        if kept is not None and kept.at_s >= oldest:
            return kept
        with self._slot(), self._lock:
            if self._kept is not None and self._kept.at_s >= oldest:
                return self._kept  # another asked meanwhile
            if self._failed is not None and self._clock_s() - self._failed[0] < FAILED_S:
                raise ProviderError(self._failed[1])
            try:
                self._kept, self._failed = self._asked(), None
            except ProviderError as error:
                self._failed = (self._clock_s(), str(error))
                raise
            return self._kept

    def _asked(self) -> _Kept:
        issuer = self._settings.policy.issuer
        metadata = _read(self._get(issuer.rstrip("/") + DISCOVERY), Metadata)
        if metadata.issuer != issuer:
            raise ProviderError(f"issuer: expected {issuer}, got {shown(metadata.issuer)}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            url = getattr(metadata, name)
            if len(url) > URL_CHARS_MAX or not is_secure_url(url):
                raise ProviderError(f"{name}: expected https, got {shown(url)}")
        try:
            keys = id_tokens.read_keys(_read(self._get(metadata.jwks_uri), dict[str, object]))
        except RefusedSignInError as error:
            raise ProviderError(str(error)) from error
        return _Kept(metadata, keys, self._clock_s())

    def _get(self, url: str) -> bytes:
        with _translated():
            return self._http.get(url, headers={"Accept": "application/json"}).raise_for_status().content

    def _redeemed(self, metadata: Metadata, code: str, begun: Begun) -> str:
        """The id token that the code is good for."""
        settings = self._settings
        methods = metadata.token_endpoint_auth_methods_supported
        in_body: dict[str, str] = {}
        auth = httpx.Auth()  # none
        if not settings.secret:
            in_body = {"client_id": settings.policy.client_id}
        elif methods and "client_secret_basic" not in methods:
            in_body = {"client_id": settings.policy.client_id, "client_secret": settings.secret}
        else:
            # form-encoded before they are joined: RFC 6749 section 2.3.1
            auth = httpx.BasicAuth(*map(quote_plus, (settings.policy.client_id, settings.secret)))
        with self._slot(), _translated():
            answer = self._client().fetch_token(
                metadata.token_endpoint,
                grant_type="authorization_code",
                code=code,
                code_verifier=begun.verifier,
                auth=auth,
                **in_body,
            )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ProviderError("the provider gave no id token; is openid among the scopes?")
        return token

    def _client(self) -> OAuth2Client:
        settings = self._settings
        return OAuth2Client(
            self._http,
            client_id=settings.policy.client_id,
            scope=" ".join(settings.scopes),
            redirect_uri=settings.redirect_url,
            code_challenge_method="S256",
        )

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._asking.acquire(blocking=False):
            raise ProviderError("the provider keeps too many waiting")
        try:
            yield
        finally:
            self._asking.release()


class _Bounded(httpx.BaseTransport):
    """Reads an answer whole, within ASK_S_MAX and ANSWER_BYTES_MAX, or not at all."""

    def __init__(self, security: ssl.SSLContext | None, clock_s: Callable[[], float]) -> None:
        self._inner = httpx.HTTPTransport(verify=security if security is not None else True, trust_env=False)
        self._clock_s = clock_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        ends_s = self._clock_s() + ASK_S_MAX
        request.headers["Accept-Encoding"] = "identity"  # what is small on the wire must not be large here
        answer = self._inner.handle_request(request)
        body = bytearray()
        try:
            assert isinstance(answer.stream, httpx.SyncByteStream)
            for part in answer.stream:
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    raise httpx.ReadError(f"expected at most {ANSWER_BYTES_MAX} bytes", request=request)
                if self._clock_s() > ends_s:
                    raise httpx.ReadTimeout(f"expected all of it within {ASK_S_MAX} s", request=request)
        finally:
            answer.close()
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise httpx.ReadError("expected it uncompressed, as asked", request=request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(body))

    def close(self) -> None:
        self._inner.close()


def _read(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProviderError(f"the provider's answer is not OpenID Connect: {shown(error)}") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except AuthlibBaseError as error:
        raise RefusedSignInError(f"the provider refused the code: {shown(error)}") from error
    except httpx.HTTPError as error:
        raise ProviderError(f"the provider does not answer: {shown(error) or type(error).__name__}") from error
    except ValueError as error:
        raise ProviderError(f"the provider's answer is not OpenID Connect: {shown(error)}") from error
