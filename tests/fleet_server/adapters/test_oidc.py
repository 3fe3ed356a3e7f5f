"""Every wait and every byte of a provider is bounded, and no redirect of its is followed."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import msgspec
import pytest

from fleet_server.access.sign_in import Policy, ProviderError, begin
from fleet_server.adapters.oidc import ANSWER_BYTES_MAX, ASK_S_MAX, DISCOVERY, FAILED_S, OidcProvider, OidcSettings
from tests.servers import HOST

BEGUN: Final = begin(b"k" * 32, b"s" * 32, now_ms=0)


class Far:
    """A server that answers as it is told, by path."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        far = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                far.asked.append(self.path)
                far.answers[self.path](self)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.issuer = f"http://{HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def metadata(self, **changed: object) -> dict[str, object]:
        found = {name: f"{self.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
        return {"issuer": self.issuer, **found, **changed}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def sends(body: bytes, *, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()
    far.answers[DISCOVERY] = sends(msgspec.json.encode(far.metadata()))
    far.answers["/jwks_uri"] = sends(b'{"keys": []}')
    yield far
    far.close()


def provider_at(far: Far, clock_s: Callable[[], float] = time.monotonic) -> OidcProvider:
    policy = Policy(issuer=far.issuer, client_id="fieldfleet")
    settings = OidcSettings(policy, f"{far.issuer}/v1/sign-in/callback", ("openid",), "", None)
    return OidcProvider(settings, clock_s=clock_s)


def test_where_the_browser_goes_to_is_asked_once(far: Far) -> None:
    provider = provider_at(far)
    url = provider.address(BEGUN)
    assert url.startswith(f"{far.issuer}/authorization_endpoint?response_type=code&client_id=fieldfleet&")
    assert f"state={BEGUN.state}" in url
    assert f"nonce={BEGUN.nonce}" in url
    assert "code_challenge_method=S256" in url
    assert BEGUN.verifier not in url
    provider.address(BEGUN)
    assert far.asked == [DISCOVERY, "/jwks_uri"]
    provider.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (sends(b"{"), "not OpenID Connect"),
        (sends(b"[]"), "not OpenID Connect"),
        (sends(b"{}"), "not OpenID Connect"),
        (sends(b"\xff"), "not OpenID Connect"),
        (sends(b" " * (ANSWER_BYTES_MAX + 1)), "at most"),
        (sends(b"x", Content_Encoding="gzip"), "uncompressed"),
        (sends(b"", status=302, Location="http://127.0.0.1:1/"), "302"),
        (sends(b"", status=500), "500"),
        (lambda handler: handler.wfile.write(b"not HTTP\r\n\r\n"), "does not answer"),
    ],
)
def test_an_answer_that_is_none_is_told(far: Far, answer: Callable[[BaseHTTPRequestHandler], None], why: str) -> None:
    far.answers[DISCOVERY] = answer
    provider = provider_at(far)
    with pytest.raises(ProviderError, match=why):
        provider.address(BEGUN)
    provider.close()


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://192.0.2.1/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://me@login.example"},
    ],
)
def test_a_provider_leads_nowhere_that_is_not_safe(far: Far, changed: dict[str, object]) -> None:
    far.answers[DISCOVERY] = sends(msgspec.json.encode(far.metadata(**changed)))
    provider = provider_at(far)
    with pytest.raises(ProviderError):
        provider.address(BEGUN)
    assert far.asked == [DISCOVERY]
    provider.close()


def test_an_answer_that_trickles_is_given_up(far: Far) -> None:
    now_s = [0.0]

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        now_s[0] += ASK_S_MAX + 1
        handler.wfile.write(b" ")
        handler.wfile.flush()

    far.answers[DISCOVERY] = trickle
    provider = provider_at(far, lambda: now_s[0])
    with pytest.raises(ProviderError, match="within"):
        provider.address(BEGUN)
    provider.close()


def test_one_that_failed_is_not_asked_again_at_once(far: Far) -> None:
    now_s = [0.0]
    good, far.answers[DISCOVERY] = far.answers[DISCOVERY], sends(b"", status=500)
    provider = provider_at(far, lambda: now_s[0])
    for _ in range(3):
        with pytest.raises(ProviderError, match="500"):
            provider.address(BEGUN)
    assert far.asked == [DISCOVERY]
    far.answers[DISCOVERY] = good
    now_s[0] = FAILED_S
    assert provider.address(BEGUN)
    provider.close()
