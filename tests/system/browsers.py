"""A real Chromium, driven over its own protocol; what it asks other hosts for and what it complains of is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from tests.servers import program

DESK: Final = ViewportSize(width=1280, height=800)
PHONE: Final = ViewportSize(width=390, height=844)
TABS_MAX: Final = 80
WAIT_MS: Final = 20_000
"""For what a page shows by itself."""


@dataclass
class Visit:
    """One person's window. ``complaints``: of the browser's console; ``strangers``: hosts that are not the server."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def sign_in(self, token: str) -> None:
        """By keyboard, from wherever the server sends one who is signed out."""
        self.page.goto(self.url)
        self.page.keyboard.type(token)  # the field has the focus
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("nav a[aria-current]")

    def tab_to(self, selector: str) -> None:
        """Press Tab until *selector* has the focus, as who has no mouse does."""
        for _ in range(TABS_MAX):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
                return
        raise AssertionError(f"{selector}: not reached with {TABS_MAX} times Tab")

    def follow(self, selector: str) -> None:
        """By keyboard, and wait for the page behind it."""
        self.tab_to(selector)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's, without a window; what Playwright would download is not needed."""
    found = program("chromium")
    assert found is not None
    with sync_playwright() as driver:
        # as root, which is who runs the tests in CI, it has no sandbox of its own
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: Browser, url: str, *, size: ViewportSize = DESK, language: str = "en-GB", dark: bool = False
) -> Iterator[Visit]:
    """A new window without cookies; it must have asked nobody else and complained of nothing when it is closed."""
    context = browser.new_context(viewport=size, locale=language, color_scheme="dark" if dark else "light")
    context.set_default_timeout(WAIT_MS)
    visit = _watched(context, url)
    try:
        yield visit
        assert visit.complaints == []
        assert visit.strangers == []
    finally:
        context.close()


def _watched(context: BrowserContext, url: str) -> Visit:
    visit = Visit(context.new_page(), url)
    own = urlsplit(url).netloc
    visit.page.on("console", lambda said: visit.complaints.append(said.text) if said.type == "error" else None)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on(
        "request", lambda asked: visit.strangers.append(asked.url) if urlsplit(asked.url).netloc != own else None
    )
    return visit
