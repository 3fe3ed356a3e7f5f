"""A server that people sign in to with a real provider on loopback, and browsers."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI

from fleet_server.access.sign_in import Policy
from fleet_server.access.sign_ins import SignIns
from fleet_server.adapters.oidc import OidcProvider, OidcSettings
from fleet_server.api.app import create_app
from fleet_server.api.cookies import OWN_HEADER, OWN_VALUE, Cookies
from fleet_server.api.sign_in import SigningIn
from fleet_server.pages.app import Beside, add_pages
from fleet_server.registry.model import NodeKind, OrgNode
from tests.fleet_server.fleet import Fleet
from tests.oidc_provider import Provider

HTTP: Final = "http://127.0.0.1:8470"
HTTPS: Final = "https://fleet.example"
CLIENT: Final = "fieldfleet"
OWN: Final = {OWN_HEADER: OWN_VALUE}
ANNA: Final = {"name": "Anna Meyer", "email": "a.meyer@police.example"}


@dataclass
class House:
    """A server that people sign in to, and its clock."""

    fleet: Fleet
    idp: Provider
    app: FastAPI
    origin: str
    ahead_ms: int = 0

    def now_ms(self) -> int:
        """Its clock."""
        return time.time_ns() // 1_000_000 + self.ahead_ms

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx.AsyncClient]:
        """One with a jar of its own; the provider it finds on the network."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(mounts={self.origin: transport}, base_url=self.origin) as browser:
            yield browser


@contextmanager
def houses(path: Path, idp: Provider) -> Iterator[Callable[..., House]]:
    """Builds them, all over one fleet that is kept at *path*."""
    fleet = Fleet(path)
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=0)
    made: list[OidcProvider] = []

    def build(*, origin: str = HTTP, secret: str = "s3cret", issuer: str = "", out: str = "", **wanted: Any) -> House:
        house = House(fleet, idp, FastAPI(), origin)
        policy = Policy(issuer=issuer or idp.issuer, client_id=CLIENT, **wanted)
        scopes = ("openid", "profile", "email")
        settings = OidcSettings(policy, f"{origin}/v1/sign-in/callback", scopes, secret, None, out)
        far = OidcProvider(settings, clock_s=lambda: time.monotonic() + house.ahead_ms / 1_000)
        made.append(far)
        signing_in = SigningIn(SignIns(far, policy, fleet.persons), Cookies.of(origin), "/v1/me")
        ports = replace(fleet.ports, signing_in=signing_in)
        house.app = create_app(ports, clock=house.now_ms)
        add_pages(house.app, ports, Beside(), clock=house.now_ms)
        return house

    idp.alter = idp.sessions = None
    idp.has_sign_out = True
    yield build
    for each in made:
        each.close()
    fleet.store.close()


async def way_back(browser: httpx.AsyncClient, idp: Provider, subject: str = "anna") -> str:
    """Begin, and agree at the provider; where the browser is sent to."""
    begun = await browser.get("/v1/sign-in")
    assert begun.status_code == 303, begun.text
    return idp.agree(begun.headers["location"], subject)


async def sign_in(browser: httpx.AsyncClient, idp: Provider, subject: str = "anna") -> httpx.Response:
    """All of the way."""
    return await browser.get(await way_back(browser, idp, subject))


def refused(answer: httpx.Response, why: str) -> None:
    """Nobody was signed in, for a reason that says *why*."""
    assert answer.status_code == 403, answer.text
    assert answer.json()["type"].endswith("sign-in-refused")
    assert why in answer.json()["detail"]
    assert "session" not in str(answer.headers.get_list("set-cookie"))
