"""Pages are for who is signed in, each for whom its rule lets in; nothing else on them is."""

import httpx
import pytest

from fleet_server.access.people import ROOT
from fleet_server.access.roles import NOWHERE, PERMISSIONS, Role
from fleet_server.access.scoped_registry import ScopedRegistry
from fleet_server.access.visits import RULES as SESSION_RULES
from fleet_server.api.rules import OPEN_PAGES, PAGES
from fleet_server.pages import shell
from fleet_server.pages.app import UTC, Beside, guarded_routers, open_router
from fleet_server.pages.shell import POLICY, PageRoute
from tests.fleet_server.fleet import TOKEN
from tests.fleet_server.pages.conftest import FROM_HERE, ORIGIN, Pages

PLAIN = sorted(route.removeprefix("GET ") for route in PAGES if "{" not in route)


def test_every_page_has_a_rule_and_every_rule_a_page(pages: Pages) -> None:
    ports = pages.fleet.ports
    drawn, registry = shell.made(UTC, lambda: pages.now_ms), ScopedRegistry(ports.registry, lambda: NOWHERE)
    found = {True: set[str](), False: set[str]()}
    for router in (*guarded_routers(drawn, registry, ports, Beside()), entrance := open_router(drawn, ports)):
        for route in router.routes:
            assert isinstance(route, PageRoute)
            found[router is entrance] |= {f"{method} {route.path}" for method in route.methods or ()}
    assert found == {True: OPEN_PAGES, False: set(PAGES)}


@pytest.mark.parametrize("path", [*PLAIN, "/devices/car-7", "/nodes/hq"])
async def test_who_is_signed_out_is_sent_to_the_sign_in_and_sees_nothing(pages: Pages, path: str) -> None:
    async with pages.browser(None) as browser:
        answer = await browser.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")
        assert not answer.content
        form = await browser.get(answer.headers["location"])
        assert not any(name in form.text for name in ("Command centre", "room-1", "In-car terminal"))


@pytest.mark.parametrize("role", Role)
async def test_each_role_gets_the_pages_of_its_rules(pages: Pages, role: Role) -> None:
    async with pages.browser(pages.token(role, "station-7")) as browser:
        for path in PLAIN:
            rule = PAGES[f"GET {path}"]
            may = rule.permission in PERMISSIONS[role] and not rule.everywhere
            answer = await browser.get(path)
            assert answer.status_code == (200 if may else 403), (role, path)
            assert f'<a href="{path}"' in (await browser.get("/")).text or not may or path == "/devices"


async def test_what_is_elsewhere_is_not_there(pages: Pages) -> None:
    async with pages.browser(pages.token(Role.EQUIPMENT_MANAGER, "station-7")) as browser:
        for path in ("/", "/devices", "/alerts", "/nodes/station-7"):
            assert "room-1" not in (await browser.get(path)).text
            assert "station-8" not in (await browser.get(path)).text
        assert (await browser.get("/devices/car-7")).status_code == 200
        assert (await browser.get("/devices/room-1")).status_code == 404
        assert (await browser.get("/nodes/station-8")).status_code == 404
        assert (await browser.get("/nodes/hq")).status_code == 404


async def test_who_has_a_device_is_shown_to_who_may_know(pages: Pages) -> None:
    async with pages.browser(pages.token(Role.VIEWER, "station-7")) as browser:
        text = (await browser.get("/devices/car-7")).text
        assert "Who has it" not in text
        assert "Certificates" not in text
    async with pages.browser(pages.token(Role.EQUIPMENT_MANAGER, "station-7")) as browser:
        text = (await browser.get("/devices/car-7")).text
        assert "Who has it" in text
        assert "Certificates" in text


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
async def test_a_foreign_site_signs_nobody_in_or_out(pages: Pages, headers: dict[str, str]) -> None:
    async with pages.browser(None) as browser:
        answer = await browser.post("/sign-in", data={"token": TOKEN}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    async with pages.browser() as browser:
        await browser.post("/sign-out", headers=headers)
        assert (await browser.get("/")).status_code == 200


async def test_the_session_is_a_strict_cookie_and_the_token_is_in_none(pages: Pages) -> None:
    async with pages.browser(None) as browser:
        answer = await browser.post("/sign-in", data={"token": TOKEN}, headers=FROM_HERE)
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert TOKEN not in answer.headers["set-cookie"]


async def test_behind_a_proxy_with_https_the_cookie_is_this_hosts_alone(pages: Pages) -> None:
    async with pages.browser(None) as browser:
        there = ORIGIN.replace("http:", "https:")
        answer = await browser.post(f"{there}/sign-in", data={"token": TOKEN}, headers={"Origin": there})
        assert answer.headers["set-cookie"].startswith("__Host-")
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_a_bad_token_signs_nobody_in(pages: Pages) -> None:
    async with pages.browser(None) as browser:
        for token in ("", "ff_" + "x" * 43, "<script>"):
            answer = await browser.post("/sign-in", data={"token": token}, headers=FROM_HERE)
            assert answer.status_code == 401
            assert "set-cookie" not in answer.headers
            assert "<script>" not in answer.text


async def test_a_session_ends_with_its_token_its_time_and_by_itself(own: Pages) -> None:
    token = own.token(Role.VIEWER, "hq")
    async with own.browser(token) as browser:
        assert (await browser.get("/")).status_code == 200
        signed_out = await browser.post("/sign-out", headers=FROM_HERE)
        assert "signed out" in signed_out.text
        assert (await browser.get("/")).status_code == 303
    async with own.browser(token) as browser:
        own.now_ms += SESSION_RULES.idle_ms
        assert (await browser.get("/")).status_code == 303
    async with own.browser(token) as browser:
        own.fleet.people.revoke("viewer-1", giver=ROOT, now_ms=own.now_ms)
        assert (await browser.get("/")).status_code == 303


async def test_signing_in_and_out_is_in_the_audit_log(pages: Pages) -> None:
    async with pages.browser() as browser:
        await browser.post("/sign-out", headers=FROM_HERE)
    async with pages.browser() as browser:
        entries = (await browser.get("/v1/audit")).json()["entries"]
        assert {entry["action"] for entry in entries} >= {"session.begin", "session.end"}


@pytest.mark.parametrize("after", ["//evil.example", "https://evil.example", "/\\evil.example", "/\tx", "x" * 600])
async def test_nobody_is_sent_to_another_host(pages: Pages, after: str) -> None:
    async with pages.browser(None) as browser:
        answer = await browser.post("/sign-in", data={"token": TOKEN, "next": after}, headers=FROM_HERE)
        assert answer.headers["location"] == "/"


async def test_every_page_says_what_it_may_load(pages: Pages) -> None:
    def strict(answer: httpx.Response) -> None:
        assert answer.headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        assert answer.headers["x-frame-options"] == "DENY"

    async with pages.browser() as browser:
        for path in (*PLAIN, "/devices/car-7", "/nodes/hq", "/nodes/none", "/static/pages.css", "/language/en"):
            answer = await browser.get(path)
            strict(answer)
            assert " style=" not in answer.text
            assert "<style" not in answer.text
            assert "<script>" not in answer.text
            if path.startswith(("/devices", "/nodes")):
                assert answer.headers["cache-control"] == "no-store"
