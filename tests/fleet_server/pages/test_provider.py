"""Where people sign in with a provider, pages take its sessions and no token."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fleet_server.api.house import ANNA, CLIENT, HTTP, House, houses, sign_in
from tests.fleet_server.fleet import TOKEN
from tests.oidc_provider import Provider, provider
from tests.oidc_sessions import Sessions

# the provider's: it stands on parts of Authlib that will go
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FROM_HERE = {"Origin": HTTP}
BACK = f"{HTTP}/v1/sign-out/callback"


@pytest.fixture(scope="module")
def idp() -> Iterator[Provider]:
    with provider() as found:
        yield found


@pytest.fixture
def house(tmp_path: Path, idp: Provider) -> Iterator[Callable[..., House]]:
    with houses(tmp_path / "house.db", idp) as build:
        yield build


async def test_one_signs_in_with_the_provider_and_no_token_is_taken(house: Callable[..., House]) -> None:
    async with house().browser() as browser:
        form = await browser.get("/sign-in")
        assert 'href="/v1/sign-in"' in form.text
        assert 'name="token"' not in form.text
        answer = await browser.post("/sign-in", data={"token": TOKEN}, headers=FROM_HERE)
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers


async def test_a_session_of_the_provider_opens_pages_and_ends_here_first(
    house: Callable[..., House], idp: Provider
) -> None:
    at = house(out=BACK)
    idp.sessions = Sessions(CLIENT, frozenset({BACK}))
    async with at.browser() as browser:
        idp.put("anna", **ANNA)
        signed_in = await sign_in(browser, idp)
        assert signed_in.status_code == 303, signed_in.text
        assert (await browser.get("/v1/me")).status_code == 200
        # who was granted nothing is known, and may see nothing
        assert (await browser.get("/")).status_code == 403
        foreign = await browser.post("/sign-out", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403 or foreign.headers["location"] == "/"
        assert (await browser.get("/")).status_code == 403
        out = await browser.post("/sign-out", headers=FROM_HERE)
        assert out.status_code == 200
        assert "Sign out at the provider too" in out.text
        assert (await browser.get("/")).status_code == 303
