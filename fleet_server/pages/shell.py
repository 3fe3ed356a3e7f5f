"""What every page has: its frame, language, times and headers; and what a browser is told that something is wrong."""

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from babel.dates import format_timedelta
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fleet_server.access.people import Principal
from fleet_server.api.guard import asking, may
from fleet_server.api.problems import ProblemError
from fleet_server.api.times import Clock
from fleet_server.pages import languages, words
from fleet_server.telemetry.store import StoreError
from fleet_server.texts import Texts, marked

SIGN_IN: Final = "/sign-in"
NEXT_CHARS_MAX: Final = 512
NOTHING: Final = "-"
POLICY: Final = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    # of a form, no-referrer would hide the origin by which it is told from a foreign one
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
STATIC_TYPES: Final = {"pages.css": "text/css", "pages.js": "text/javascript", "mark.svg": "image/svg+xml"}
STATIC_CACHE: Final = "public, max-age=31536000, immutable"
"""Their addresses name what is in them."""
# these escape what is put into them
_TIME: Final = Markup('<time datetime="{}">{}</time>')
_AGO: Final = Markup('<span title="{}">{}</span>')
_WORD: Final = Markup('<span class="word {mark}"><i class="mark" aria-hidden="true"></i>{text}</span>')


class Link(NamedTuple):
    """Of the menu; it is there for whom the rule of ``route`` lets in."""

    path: str
    key: str
    route: str


MENU: Final = (
    Link("/", marked("Fleet"), "GET /"),
    Link("/alerts", marked("Alerts"), "GET /alerts"),
    Link("/evidence", marked("Evidence"), "GET /evidence"),
    Link("/coverage", marked("Coverage"), "GET /coverage"),
    Link("/rollouts", marked("Rollouts"), "GET /rollouts"),
)
WRONG: Final = {
    HTTPStatus.FORBIDDEN: marked("This is not yours to see."),
    HTTPStatus.NOT_FOUND: marked("There is no such page, or it is not yours to see."),
    HTTPStatus.SERVICE_UNAVAILABLE: marked("The server cannot answer now. Try again in a minute."),
}


@dataclass(frozen=True, slots=True)
class Shell:
    """``zone``: of the site."""

    zone: ZoneInfo
    clock: Clock
    environment: Environment
    static: dict[str, bytes]

    def page(
        self,
        request: Request,
        template: str,
        title: str,
        *,
        status: int = HTTPStatus.OK,
        refresh_s: int = 0,
        **values: object,
    ) -> HTMLResponse:
        """*title*: as it is shown. *refresh_s*: after how long the page asks for itself again, 0 is never."""
        text = self.texts(request)
        principal = asking(request.scope)
        shown = self.environment.get_template(template).render(
            **values,
            **_formats(self, text),
            text=text,
            title=title,
            language=text.language,
            languages=languages.NAMES,
            here=_here(request),
            path=request.url.path,
            refresh_s=refresh_s,
            principal=principal,
            menu=_menu(principal),
            zone=self.zone.key,
            now_ms=self.clock(),
            words=words,
        )
        return HTMLResponse(shown, status, HEADERS)

    def texts(self, request: Request) -> Texts:
        """In the language that the visitor reads."""
        return Texts(
            languages.chosen(request.cookies.get(languages.COOKIE), request.headers.get("accept-language", ""))
        )

    def wrong(self, request: Request, status: int) -> Response:
        """That something is; who is not signed in is sent to where that is done."""
        if status == HTTPStatus.UNAUTHORIZED:
            return RedirectResponse(sign_in_address(_here(request)), HTTPStatus.SEE_OTHER, HEADERS)
        if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
            status = HTTPStatus.NOT_FOUND
        key = WRONG.get(HTTPStatus(status), marked("Something went wrong."))
        text = self.texts(request)
        return self.page(request, "wrong.html", text(key), status=status)

    def address(self, name: str) -> str:
        """Of a static file, with its digest."""
        return f"/static/{name}?v={hashlib.sha256(self.static[name]).hexdigest()[:16]}"


def made(zone: ZoneInfo, clock: Clock) -> Shell:
    """With the templates and static files of this room."""
    environment = Environment(
        loader=PackageLoader("fleet_server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    directory = files("fleet_server.pages").joinpath("static")
    static = {name: directory.joinpath(name).read_bytes() for name in STATIC_TYPES}
    shell = Shell(zone, clock, environment, static)
    environment.globals["static"] = shell.address
    return shell


class PageRoute(APIRoute):
    """What goes wrong is said as a page. The application's state has the :class:`Shell`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See the framework."""
        handler = super().get_route_handler()

        async def handled(request: Request) -> Response:
            shell: Shell = request.app.state.shell
            try:
                return await handler(request)
            except ProblemError as error:
                return shell.wrong(request, error.problem.status)
            except RequestValidationError:
                return shell.wrong(request, HTTPStatus.NOT_FOUND)
            except StoreError:
                return shell.wrong(request, HTTPStatus.SERVICE_UNAVAILABLE)

        return handled


def sign_in_address(after: str) -> str:
    """Where one signs in, and then goes on to *after*."""
    return SIGN_IN if after == "/" else f"{SIGN_IN}?{urlencode({'next': after})}"


def own_path(text: str | None) -> str:
    """*text* if it is a path of this server, else its first page: nobody is sent elsewhere by an address of ours."""
    if text is None or len(text) > NEXT_CHARS_MAX or not text.isprintable() or "\\" in text:
        return "/"
    return text if text.startswith("/") and not text.startswith("//") else "/"


def _here(request: Request) -> str:
    query = request.url.query
    return own_path(quote(request.url.path) + (f"?{query}" if query else ""))


def _menu(principal: Principal | None) -> list[Link]:
    return [] if principal is None else [link for link in MENU if may(principal, link.route)]


def _formats(shell: Shell, text: Texts) -> dict[str, Callable[..., Markup | str]]:
    locale = text.language.replace("-", "_")

    def at(time_ms: int | None) -> Markup:
        """In the site's zone."""
        if time_ms is None:
            return escape(NOTHING)
        try:
            utc = datetime.fromtimestamp(time_ms / 1000, UTC)
        except (ValueError, OverflowError, OSError):  # a device's clock may say anything
            return escape(text("no date"))
        return _TIME.format(f"{utc:%Y-%m-%dT%H:%M:%SZ}", f"{utc.astimezone(shell.zone):%Y-%m-%d %H:%M:%S}")

    def lasted(length_ms: float) -> str:
        return format_timedelta(timedelta(milliseconds=length_ms), threshold=1.5, locale=locale)

    def ago(time_ms: int | None) -> Markup:
        if time_ms is None:
            return escape(NOTHING)
        return _AGO.format(at(time_ms).striptags(), text("{time} ago", time=lasted(max(0, shell.clock() - time_ms))))

    def said(word: words.Word) -> Markup:
        """With its mark."""
        return _WORD.format(mark=word.mark, text=text(word.key))

    return {"at": at, "ago": ago, "lasted": lasted, "said": said, "escaped": escape}
