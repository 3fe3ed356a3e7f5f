"""People sign in with a real provider on loopback, and nobody does who is not proved."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy import text

from fleet_server.access.audit import Wanted, read
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.access.sign_in import SIGN_IN_MS
from fleet_server.adapters.oidc import FAILED_S, KEPT_S, KEYS_AGAIN_S
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.api.app import create_app
from tests.fleet_server.api.house import ANNA, CLIENT, HTTP, HTTPS, OWN, House, refused, sign_in, way_back
from tests.fleet_server.fleet import HOUR_MS, TOKEN, Fleet
from tests.oidc_provider import without_signature

# the provider's: it stands on parts of Authlib that will go
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_a_person_signs_in_and_may_nothing_but_ask_who_they_are(house: Callable[..., House]) -> None:
    it = house()
    it.idp.put("anna", **ANNA)
    async with it.browser() as browser:
        form = await browser.get("/v1/sign-in", follow_redirects=True)
        assert form.url.port == it.idp.port
        landed = await browser.post(form.url, data={"sub": "anna"}, follow_redirects=True)
        assert [each.status_code for each in landed.history] == [302, 303]
        assert landed.json() == {
            "token": None,
            "person": "a-meyer",
            "name": "Anna Meyer",
            "grants": [],
            "permissions": {},
        }
        assert (await browser.get("/v1/devices")).status_code == 403
        assert (await browser.get("/v1/people")).status_code == 403
    entries = [read(raw) for raw in it.fleet.auditor.store.newest(Wanted(), before=None, rows_max=1)]
    assert [(each.actor, each.action) for each in entries] == [("person:a-meyer", "session.begin")]


async def test_what_was_granted_is_good_at_once_and_is_recorded_under_the_persons_name(
    house: Callable[..., House],
) -> None:
    it = house(groups=[("wheel", NodeGrant(Role.EQUIPMENT_MANAGER, "hq"))])
    it.idp.put("anna", **ANNA, groups=["wheel", "other"])
    async with it.browser() as browser, it.browser() as administrator:
        await sign_in(browser, it.idp)
        grant = await administrator.put(
            "/v1/people/a-meyer/grants",
            json={"grants": [{"role": "viewer"}]},
            headers={"Authorization": f"Bearer {TOKEN}", "If-Match": '"1"'},
        )
        assert grant.json()["grants"] == [
            {"role": "viewer", "node": None, "by": "hand"},
            {"role": "equipment_manager", "node": "hq", "by": "group"},
        ]
        assert (await browser.get("/v1/devices")).status_code == 200
        changed = await browser.put(
            "/v1/org-nodes/seven",
            json={"kind": "station", "name": "7", "parent": "hq"},
            headers={"If-None-Match": "*", **OWN},
        )
        assert changed.status_code == 200, changed.text
    entries = [read(raw) for raw in it.fleet.auditor.store.newest(Wanted(), before=None, rows_max=2)]
    assert {each.actor for each in entries} == {"person:a-meyer"}


@pytest.mark.parametrize("secret", ["s3cret", ""])
async def test_with_and_without_a_client_secret_the_code_is_bound_to_who_began(
    house: Callable[..., House], secret: str
) -> None:
    it = house(secret=secret)
    before = it.idp.verified
    async with it.browser() as browser:
        assert (await sign_in(browser, it.idp)).status_code == 303
    assert it.idp.verified == before + 1


async def test_attributes_of_the_cookies(house: Callable[..., House]) -> None:
    for origin, prefix, secure in ((HTTP, "", False), (HTTPS, "__Host-", True)):
        it = house(origin=origin)
        async with it.browser() as browser:
            begun = await browser.get("/v1/sign-in")
            done = await browser.get(it.idp.agree(begun.headers["location"], "anna"))
            cookies = begun.headers.get_list("set-cookie") + done.headers.get_list("set-cookie")
            under_way, session, dropped = ([part.strip() for part in each.split(";")] for each in cookies)
            assert under_way[0].startswith(f"{prefix}fieldfleet-sign-in=")
            assert session[0].startswith(f"{prefix}fieldfleet-session=")
            for each, age in ((under_way, 600), (session, 12 * 3_600), (dropped, 0)):
                assert {"HttpOnly", "Path=/", "SameSite=lax", f"Max-Age={age}"} <= set(each)
                assert ("Secure" in each) == secure
                assert not any(part.startswith("Domain") for part in each)
            assert done.headers["referrer-policy"] == "no-referrer"
            assert (await browser.get("/v1/me")).status_code == 200


async def test_a_state_is_good_for_one_try_in_the_browser_that_began(house: Callable[..., House]) -> None:
    it = house()
    async with it.browser() as browser, it.browser() as other:
        back = await way_back(browser, it.idp)
        refused(await other.get(back), "no sign-in under way")
        await other.get("/v1/sign-in")
        refused(await other.get(back), "another browser")
        state = parse_qs(urlsplit(back).query)["state"][0]
        refused(await browser.get(back.replace(state, state[::-1])), "another browser")
        kept = dict(browser.cookies)
        assert (await browser.get(back)).status_code == 303
        refused(await browser.get(back), "no sign-in under way")  # its cookie was taken back
        cookie = "; ".join(f"{name}={value}" for name, value in kept.items())
        refused(await other.get(back, headers={"Cookie": cookie}), "used already")


async def test_a_sign_in_ends_after_ten_minutes_and_with_the_server(house: Callable[..., House]) -> None:
    it, restarted = house(), house()
    async with it.browser() as browser:
        back = await way_back(browser, it.idp)
        it.ahead_ms = SIGN_IN_MS
        refused(await browser.get(back), "longer than 10 minutes")
        it.ahead_ms = 0
        async with restarted.browser() as after:
            after.cookies = browser.cookies
            refused(await after.get(back), "before it was restarted")


async def test_what_the_provider_will_not_do_is_told(house: Callable[..., House]) -> None:
    it = house()
    async with it.browser() as browser:
        state = parse_qs(urlsplit((await browser.get("/v1/sign-in")).headers["location"]).query)["state"][0]
        denied = {"state": state, "error": "access_denied", "error_description": "no", "whatever": "it likes"}
        refused(await browser.get("/v1/sign-in/callback", params=denied), "access_denied")
        back = await way_back(browser, it.idp)
        refused(await browser.get(f"{back}&iss=https://other.example"), "another provider")
        state = parse_qs(urlsplit((await browser.get("/v1/sign-in")).headers["location"]).query)["state"][0]
        made_up = {"state": state, "code": "made-up"}
        refused(await browser.get("/v1/sign-in/callback", params=made_up), "refused the code")


async def test_a_code_of_another_sign_in_is_good_for_nothing(house: Callable[..., House]) -> None:
    it = house()
    async with it.browser() as browser, it.browser() as victim:
        stolen = parse_qs(urlsplit(await way_back(browser, it.idp)).query)["code"][0]
        own = parse_qs(urlsplit(await way_back(victim, it.idp)).query)["state"][0]
        answer = await victim.get("/v1/sign-in/callback", params={"state": own, "code": stolen})
        refused(answer, "refused the code")  # by PKCE


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"nonce": "of another sign-in"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"aud": "another-client"}, "aud"),
        ({"aud": ["another-client"]}, "aud"),
        ({"aud": [CLIENT, "another-client"]}, "azp"),
        ({"iss": "https://other.example"}, "iss"),
        ({"exp": 1_767_254_400}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"iat": 4_102_444_800}, "future"),
        ({"sub": ""}, "sub"),
        ({"sub": "x" * 256}, "sub"),
        ({"sub": 7}, "sub"),
    ],
)
async def test_a_token_that_is_signed_and_wrong_is_refused(
    house: Callable[..., House], claims: dict[str, object], why: str
) -> None:
    it = house()
    it.idp.alter = lambda token: it.idp.signed_again(token, claims)
    async with it.browser() as browser:
        refused(await sign_in(browser, it.idp), why)
        assert (await browser.get("/v1/me")).status_code == 401


def with_hmac(_token: str) -> str:
    """Signed with what both sides may know."""
    return jwt.encode({"alg": "HS256"}, {"sub": "anna"}, OctKey.import_key("x" * 32))


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (lambda token: without_signature(token, alg="none"), "alg"),
        (lambda token: without_signature(token, alg="None"), "alg"),
        (lambda token: without_signature(token, alg="RS256"), "not proved"),
        (lambda token: without_signature(token, alg="RS256", kid="another"), "kid"),
        (lambda token: without_signature(token, alg="RS256", kid=["x"]), "kid"),
        (lambda token: without_signature(token, alg=["RS256"]), "alg"),
        (lambda token: without_signature(token, alg="RS256", crit=["exp"], exp=1), "not proved"),
        (lambda token: token.rsplit(".", 1)[0] + ".AAAA", "not proved"),
        (lambda token: token.rsplit(".", 1)[0] + ".", "not proved"),
        (with_hmac, "alg"),
        (lambda _: "no token", "not proved"),
        (lambda _: "", "not proved"),
        (lambda _: "é.é.é", "not proved"),
        (lambda token: token + "x" * 40_000, "at most"),
    ],
)
async def test_a_token_that_the_provider_did_not_sign_is_refused(
    house: Callable[..., House], alter: Callable[[str], str], why: str
) -> None:
    it = house()
    it.idp.alter = alter
    async with it.browser() as browser:
        refused(await sign_in(browser, it.idp), why)


@pytest.mark.parametrize(
    ("wanted", "claims", "why"),
    [
        ({"acr": frozenset({"mfa", "hwk"})}, {"acr": "mfa"}, None),
        ({"acr": frozenset({"mfa", "hwk"})}, {"acr": "pwd"}, "acr"),
        ({"acr": frozenset({"mfa", "hwk"})}, {}, "acr"),
        ({"acr": frozenset({"mfa"})}, {"acr": ["mfa"]}, "acr"),  # not what the standard says it is
        ({"amr": frozenset({"otp", "pwd"})}, {"amr": ["otp", "pwd", "x"]}, None),
        ({"amr": frozenset({"otp", "pwd"})}, {"amr": ["pwd"]}, "otp"),
        ({"amr": frozenset({"otp"})}, {}, "otp"),
    ],
)
async def test_a_second_factor_is_enforced_by_what_the_provider_says_of_it(
    house: Callable[..., House], wanted: dict[str, Any], claims: dict[str, object], why: str | None
) -> None:
    it = house(**wanted)
    it.idp.put("anna", **ANNA, **claims)
    async with it.browser() as browser:
        answer = await sign_in(browser, it.idp)
        if why is None:
            assert answer.status_code == 303, answer.text
        else:
            refused(answer, why)


@pytest.mark.parametrize("named", [True, False])
async def test_a_new_key_of_the_provider_is_asked_for_but_not_without_end(
    house: Callable[..., House], *, named: bool
) -> None:
    it = house()
    it.idp.stop()
    it.idp.names_keys = named
    it.idp.start()
    async with it.browser() as browser:
        assert (await sign_in(browser, it.idp)).status_code == 303
        it.idp.stop()
        it.idp.start()  # with another key
        asked = it.idp.asked.count("/jwks")
        refused(await sign_in(browser, it.idp), "kid" if named else "bad signature")
        assert it.idp.asked.count("/jwks") == asked
        it.ahead_ms = int(KEYS_AGAIN_S * 1_000)
        assert (await sign_in(browser, it.idp)).status_code == 303
        assert it.idp.asked.count("/jwks") == asked + 1
        assert (await sign_in(browser, it.idp)).status_code == 303
        assert it.idp.asked.count("/jwks") == asked + 1


async def test_without_the_provider_nobody_signs_in_and_all_else_goes_on(house: Callable[..., House]) -> None:
    it = house()
    async with it.browser() as browser, it.browser() as other:
        await sign_in(browser, it.idp)
        back = await way_back(other, it.idp)
        it.idp.stop()
        try:
            down = await other.get(back)
            assert (down.status_code, down.json()["type"]) == (503, "urn:fieldfleet:problem:provider-unavailable")
            it.ahead_ms = int(KEPT_S * 1_000) + 1
            assert (await other.get("/v1/sign-in")).status_code == 503
            it.ahead_ms = 0
            assert (await browser.get("/v1/me")).status_code == 200  # who is in stays in
            token = {"Authorization": f"Bearer {TOKEN}"}
            assert (await other.get("/v1/devices", headers=token)).status_code == 200
        finally:
            it.idp.start()
        it.ahead_ms = int((KEPT_S + FAILED_S) * 1_000) + 2
        assert (await other.get("/v1/sign-in")).status_code == 303


async def test_a_provider_that_calls_itself_otherwise_is_none(house: Callable[..., House]) -> None:
    it = house(issuer="")
    wrong = house(issuer=f"{it.idp.issuer}/")
    async with wrong.browser() as browser:
        answer = await browser.get("/v1/sign-in")
        assert answer.status_code == 503
        assert "issuer" in answer.json()["detail"]


async def test_a_session_ends(house: Callable[..., House]) -> None:
    it = house()
    async with it.browser() as browser, it.browser() as other:
        await sign_in(browser, it.idp)
        it.ahead_ms = HOUR_MS + 1
        idle = await browser.get("/v1/me")
        assert (idle.status_code, idle.json()["detail"]) == (401, "the session is over")
        it.ahead_ms = 0
        await sign_in(browser, it.idp)
        await sign_in(other, it.idp)
        kept = dict(browser.cookies)
        assert (await browser.post("/v1/sign-out", headers=OWN)).status_code == 204
        assert "fieldfleet-session" not in browser.cookies
        browser.cookies.update(kept)
        assert (await browser.get("/v1/me")).status_code == 401  # ended here, not only forgotten there
        assert (await browser.post("/v1/sign-out", headers=OWN)).status_code in {204, 401}
        assert (await other.get("/v1/me")).status_code == 200
        person = (await other.get("/v1/me")).json()["person"]
        it.fleet.persons.disable(person, giver=ROOT, now_ms=0)
        assert (await other.get("/v1/me")).status_code == 401
        refused(await sign_in(other, it.idp), "disabled")
        it.fleet.persons.enable(person, giver=ROOT)
        assert (await sign_in(other, it.idp)).status_code == 303


async def test_signing_in_again_ends_the_session_that_the_browser_had(house: Callable[..., House]) -> None:
    it = house()
    async with it.browser() as browser:
        await sign_in(browser, it.idp)
        old = browser.cookies["fieldfleet-session"]
        await sign_in(browser, it.idp)
        assert browser.cookies["fieldfleet-session"] != old
        assert it.fleet.persons.of_session(old, now_ms=it.now_ms()) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-Fieldfleet": "0"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": HTTP.replace("8470", "8471")}, 403),
        ({"Origin": HTTP}, 204),
        ({"X-Fieldfleet": "1"}, 204),
    ],
)
async def test_a_foreign_site_changes_nothing_with_a_session(
    house: Callable[..., House], headers: dict[str, str], status: int
) -> None:
    it = house()
    async with it.browser() as browser:
        await sign_in(browser, it.idp)
        person = (await browser.get("/v1/me")).json()["person"]
        it.fleet.persons.put_grants(
            person, [NodeGrant(Role.ADMINISTRATOR, None)], expected=None, giver=ROOT, now_ms=0
        )
        made = {"token": "mine", "name": "x", "grants": [{"role": "viewer"}]}
        change = await browser.post("/v1/tokens", json=made, headers=headers)
        assert change.status_code == (201 if status == 204 else 403)
        out = await browser.post("/v1/sign-out", headers=headers)
        assert out.status_code == status
        if status == 403:
            assert out.json()["type"].endswith("foreign-site")
            assert (await browser.get("/v1/me")).status_code == 200


async def test_a_token_and_a_session_at_once_are_refused(house: Callable[..., House]) -> None:
    it = house()
    async with it.browser() as browser:
        await sign_in(browser, it.idp)
        answer = await browser.get("/v1/me", headers={"Authorization": f"Bearer {TOKEN}"})
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:fieldfleet:problem:two-identities")


async def test_a_sign_in_that_cannot_be_recorded_is_none(house: Callable[..., House]) -> None:
    it = house()
    store = it.fleet.auditor.store
    assert isinstance(store, SqlAudit)
    with database.writing(store._engine) as connection:
        connection.execute(text("DROP TABLE audit_entry"))
    async with it.browser() as browser:
        answer = await sign_in(browser, it.idp)
        assert answer.status_code == 503
        assert "session" not in str(answer.headers.get_list("set-cookie"))
    with database.reading(store._engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM session")).scalar_one() == 0


async def test_without_a_provider_people_do_not_sign_in(fleet: Fleet) -> None:
    app = create_app(fleet.ports)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HTTP) as stranger:
        for method, path in (("GET", "/v1/sign-in"), ("GET", "/v1/sign-in/callback"), ("POST", "/v1/sign-out")):
            assert (await stranger.request(method, path)).status_code == 404
