"""Who signs out is signed out here at once, and at the provider where it has a sign-out of its own."""

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fleet_server.access import sign_ins
from fleet_server.access.persons import SessionRules
from tests.fleet_server.api.house import CLIENT, HTTP, OWN, House
from tests.fleet_server.fleet import HOUR_MS
from tests.oidc_provider import Provider
from tests.oidc_sessions import Sessions

# the provider's: it stands on parts of Authlib that will go
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BACK = f"{HTTP}/v1/sign-out/callback"
FORM = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Origin": HTTP}


async def enter(browser: httpx.AsyncClient) -> None:
    """By the form of the provider, which remembers the browser from then on."""
    form = await browser.get("/v1/sign-in", follow_redirects=True)
    assert "<form" in form.text
    await browser.post(form.url, data={"sub": "anna"}, follow_redirects=True)
    assert await is_in(browser)


async def is_in(browser: httpx.AsyncClient) -> bool:
    return (await browser.get("/v1/me")).status_code == 200


async def is_remembered(browser: httpx.AsyncClient) -> bool:
    """Whether the provider asks no more who it is."""
    return "<form" not in (await browser.get("/v1/sign-in", follow_redirects=True)).text


async def test_a_form_is_sent_on_to_the_provider_and_comes_back_signed_out(
    house: Callable[..., House], idp: Provider
) -> None:
    it = house(out=BACK)
    idp.sessions = Sessions(CLIENT, frozenset({BACK}))
    async with it.browser() as browser, it.browser() as other:
        await enter(browser)
        out = await browser.post("/v1/sign-out", headers=FORM)
        assert out.status_code == 303
        assert not await is_in(browser)  # before anything was asked of the provider
        assert out.headers["referrer-policy"] == "no-referrer"
        asked = parse_qs(urlsplit(out.headers["location"]).query)
        assert asked["client_id"] == [CLIENT]
        assert asked["post_logout_redirect_uri"] == [BACK]
        there = await browser.get(out.headers["location"])
        assert there.status_code == 302, there.text
        assert (await other.get(there.headers["location"])).status_code == 403  # another browser
        back = await browser.get(there.headers["location"])
        assert (back.status_code, back.text) == (200, "You are signed out, here and at the provider.\n")
        again = await browser.get(there.headers["location"])
        assert (again.status_code, again.json()["type"]) == (403, "urn:fieldfleet:problem:sign-out-refused")
        assert not await is_remembered(browser)


async def test_a_script_is_told_where_the_provider_signs_out(house: Callable[..., House], idp: Provider) -> None:
    it = house()
    idp.sessions = Sessions(CLIENT)
    async with it.browser() as browser:
        await enter(browser)
        out = await browser.post("/v1/sign-out", headers=OWN)
        assert out.status_code == 200
        assert not await is_in(browser)
        asked = parse_qs(urlsplit(out.json()["provider"]).query)
        assert set(asked) == {"client_id", "id_token_hint"}  # nowhere to come back to: the provider knows of none
        assert (await browser.get(out.json()["provider"])).text == "signed out"
        assert not await is_remembered(browser)


async def test_a_provider_without_a_sign_out_remembers_who_signed_out_here(
    house: Callable[..., House], idp: Provider
) -> None:
    it = house(out=BACK)
    idp.sessions = Sessions(CLIENT, frozenset({BACK}))
    it.idp.has_sign_out = False
    async with it.browser() as browser:
        await enter(browser)
        for headers in (OWN, FORM):
            assert (await browser.post("/v1/sign-out", headers=headers)).status_code == 204
            assert not await is_in(browser)
            assert await is_remembered(browser)  # and is in again


async def test_a_provider_that_is_down_keeps_nobody_signed_in(house: Callable[..., House], idp: Provider) -> None:
    it = house()
    idp.sessions = Sessions(CLIENT)
    async with it.browser() as browser:
        await enter(browser)
        idp.stop()
        try:
            it.ahead_ms = 2 * HOUR_MS  # it is asked what it is
            it.fleet.persons._rules = SessionRules(10 * HOUR_MS, 10 * HOUR_MS)
            assert (await browser.post("/v1/sign-out", headers=OWN)).status_code == 204
            assert not await is_in(browser)
        finally:
            idp.start()


async def test_without_the_token_the_provider_asks_the_person(
    house: Callable[..., House], idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart, or where it is too long for a URL."""
    monkeypatch.setattr(sign_ins, "HINT_CHARS_MAX", 10)
    it = house()
    idp.sessions = Sessions(CLIENT)
    async with it.browser() as browser:
        await enter(browser)
        there = (await browser.post("/v1/sign-out", headers=OWN)).json()["provider"]
        assert set(parse_qs(urlsplit(there).query)) == {"client_id"}
        assert "Sign out?" in (await browser.get(there)).text
        assert (await browser.post(there)).text == "signed out"
        assert not await is_remembered(browser)


async def test_more_tokens_than_are_remembered_push_out_the_oldest(
    house: Callable[..., House], idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "HINTS_MAX", 1)
    it = house()
    idp.sessions = Sessions(CLIENT)
    async with it.browser() as first, it.browser() as second:
        await enter(first)
        await enter(second)
        hints = [
            "id_token_hint" in (await each.post("/v1/sign-out", headers=OWN)).json()["provider"]
            for each in (first, second)
        ]
    assert hints == [False, True]


async def test_nobody_without_a_session_is_sent_anywhere(house: Callable[..., House], idp: Provider) -> None:
    it = house(out=BACK)
    idp.sessions = Sessions(CLIENT, frozenset({BACK}))
    async with it.browser() as browser:
        assert (await browser.post("/v1/sign-out", headers=FORM)).status_code == 204
        assert (await browser.get("/v1/sign-out/callback")).status_code == 403
        assert (await browser.get("/v1/sign-out/callback", params={"state": "x", "more": "1"})).status_code == 403
