"""The server's pages in a real Chromium, over the real server, a broker, and an agent that uploads."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest
from playwright.sync_api import Browser

from fleet_server.config import load
from tests.servers import wait_until
from tests.system.browsers import PHONE, chromium, visiting
from tests.system.fleets import Fleet, running

pytestmark = pytest.mark.server("chromium")

DEVICE: Final = "board-1"
TABLES: Final = """
[site]
timezone = "Asia/Shanghai"
"""
UPLOADS: Final = """
[uploads]
look_s = 0.2

[uploads.limits.slow]
bytes_per_s = {bytes_per_s}

[uploads.folders.logs]
"""
BYTES_PER_S: Final = 120_000
FILE_BYTES: Final = 2_500_000
"""Twenty seconds of a bar that moves."""
PATHS: Final = (
    "/",
    "/nodes/hq",
    "/devices",
    f"/devices/{DEVICE}",
    f"/devices/{DEVICE}?span=7d",
    "/evidence",
    "/alerts",
    "/coverage",
    "/rollouts",
    "/sign-in",
)


@dataclass
class Site:
    """Centre hq, station-7 below it, and a board there."""

    fleet: Fleet
    url: str
    token: str

    def record(self, name: str) -> None:
        """A file that is to be uploaded; it is closed once it has its name."""
        folder = self.fleet.device_directory(DEVICE) / "state/files/logs"
        wait_until(folder.is_dir, "the agent has its folder")
        part = folder.parent / name
        part.write_bytes(secrets.token_bytes(FILE_BYTES))
        part.rename(folder / name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("pages") / "site"
    with running(directory, "embedded", tables=TABLES) as fleet:
        new = {"If-None-Match": "*"}
        centre = {"kind": "centre", "name": "Command centre"}
        fleet.server.send("PUT", "/v1/org-nodes/hq", json=dict(centre), headers=new)
        station = {"kind": "station", "name": "Harbour station", "parent": "hq"}
        fleet.server.send("PUT", "/v1/org-nodes/station-7", json=dict(station), headers=new)
        claim = fleet.claim(DEVICE)
        said = {"device_class": "host", "node": "station-7"}
        any_ = {"If-Match": "*"}
        fleet.server.send("PUT", f"/v1/devices/{DEVICE}/registration", json=dict(said), headers=any_)
        done = fleet.enroll(DEVICE, claim)
        assert done.returncode == 0, done.stderr
        agent_file = fleet.device_directory(DEVICE) / "agent.toml"
        agent_file.write_text(agent_file.read_text() + UPLOADS.format(bytes_per_s=BYTES_PER_S))
        fleet.agent(DEVICE)
        wait_until(lambda: fleet.is_connected(DEVICE), "the board is connected", 30.0)
        config = load(directory / "server/fleet-server.toml")
        yield Site(fleet, config.api.url, config.api.token_file.read_text().strip())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def test_a_manager_goes_from_the_centre_to_a_device_by_keyboard(site: Site, browser: Browser) -> None:
    with visiting(browser, site.url) as visit:
        visit.page.goto(f"{site.url}/devices")
        assert visit.page.url.startswith(f"{site.url}/sign-in")
        visit.sign_in(site.token)
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.className") == "skip"
        visit.follow("#node-hq")
        assert visit.page.locator("h1").inner_text() == "Command centre"
        visit.follow("#node-station-7")
        visit.follow(f"#device-{DEVICE}")
        assert visit.page.locator("h1").inner_text() == DEVICE
        assert "well" in visit.page.locator(".state").inner_text()
        visit.page.wait_for_selector("svg.chart .line, svg.chart .dot")
        assert "Asia/Shanghai" in visit.page.locator("footer").inner_text()


def test_the_focus_stays_where_it_is_while_the_page_refreshes(site: Site, browser: Browser) -> None:
    with visiting(browser, site.url) as visit:
        visit.sign_in(site.token)
        visit.tab_to("#node-station-7")
        before = visit.page.locator("#as-of").inner_text()
        visit.page.wait_for_function("was => document.getElementById('as-of').innerText !== was", arg=before)
        assert visit.page.evaluate("document.activeElement.id") == "node-station-7"


def test_an_upload_moves_while_one_looks_and_ends_as_a_piece_with_a_history(site: Site, browser: Browser) -> None:
    with visiting(browser, site.url) as visit:
        visit.sign_in(site.token)
        visit.page.goto(f"{site.url}/evidence")
        site.record("board.log")
        bar = visit.page.locator("#moving progress")
        bar.wait_for()
        first = bar.get_attribute("value")
        visit.page.wait_for_function(
            "was => Number(document.querySelector('#moving progress')?.value) > Number(was)", arg=first
        )
        piece = visit.page.locator("#pieces a", has_text="board.log")
        piece.wait_for(timeout=120_000)
        piece.click()
        history = visit.page.locator("#history")
        assert "received from the device" in history.inner_text()
        assert "read again and verified" in history.inner_text()


def test_no_page_is_wider_than_a_phone(site: Site, browser: Browser) -> None:
    with visiting(browser, site.url, size=PHONE) as visit:
        visit.sign_in(site.token)
        for language in ("en", "zh-Hans"):
            visit.page.goto(f"{site.url}/language/{language}")
            for path in PATHS:
                visit.page.goto(site.url + path)
                assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_every_page_opens_in_the_dark_and_in_chinese(site: Site, browser: Browser) -> None:
    with visiting(browser, site.url, language="zh-CN", dark=True) as visit:
        visit.sign_in(site.token)
        assert visit.page.locator("html").get_attribute("lang") == "zh-Hans"
        for path in PATHS:
            answer = visit.page.goto(site.url + path)
            assert answer is not None
            assert answer.status == 200, path
            assert visit.page.locator("h1").count() == 1
            assert visit.page.locator("h1").is_visible()
        visit.page.goto(site.url)
        assert "设备" in visit.page.locator("#totals").inner_text()
        visit.page.get_by_role("link", name="English").click()
        assert visit.page.locator("html").get_attribute("lang") == "en"


def test_who_signs_out_is_out(site: Site, browser: Browser) -> None:
    with visiting(browser, site.url) as visit:
        visit.sign_in(site.token)
        visit.page.get_by_role("button", name="Sign out").click()
        assert visit.page.locator("h1").inner_text() == "Signed out"
        visit.page.goto(site.url)
        assert visit.page.url == f"{site.url}/sign-in"


def test_a_page_says_so_when_the_server_does_not_answer(site: Site, browser: Browser) -> None:
    with visiting(browser, site.url) as visit:
        visit.sign_in(site.token)
        visit.page.route("**/*", lambda route: route.abort())
        late = visit.page.locator("#late")
        visit.page.wait_for_function("() => document.getElementById('late').innerText !== ''")
        assert "Not up to date" in late.inner_text()
        visit.page.unroute("**/*")
        visit.page.wait_for_function("() => document.getElementById('late').innerText === ''")
        visit.complaints.clear()  # the browser tells of what was cut off here
