"""``/sign-in`` and ``/sign-out``: by a provider where there is one, else by a token; and the choice of language."""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from fleet_server.access.audit import Draft, Phase, bounded
from fleet_server.access.auditor import Auditor
from fleet_server.access.persons import SignedIn
from fleet_server.access.visits import Visits
from fleet_server.api.cookies import Cookies
from fleet_server.api.guard import asking
from fleet_server.api.problems import ProblemError
from fleet_server.api.sign_in import BEGAN, SigningIn
from fleet_server.api.sign_out import SIGN_OUT_S, STATE_BYTES
from fleet_server.pages import languages
from fleet_server.pages.shell import (
    HEADERS,
    NEXT_CHARS_MAX,
    SIGN_IN,
    STATIC_CACHE,
    STATIC_TYPES,
    PageRoute,
    Shell,
    own_path,
)
from fleet_server.telemetry.store import StoreError
from fleet_server.texts import Language, marked

FIELDS_MAX: Final = 8
"""Of a form."""
SIGN_IN_TITLE: Final = marked("Sign in")

Next: TypeAlias = Annotated[str, Query(alias="next", max_length=NEXT_CHARS_MAX)]


def routes(shell: Shell, signing_in: SigningIn | None, visits: Visits | None, auditor: Auditor) -> APIRouter:
    """What needs nobody. *signing_in*: None where people have tokens; *visits*: None where pages take none."""
    router = APIRouter(route_class=PageRoute)

    def form(request: Request, after: str, *, status: int = HTTPStatus.OK, refused: bool = False) -> Response:
        return shell.page(
            request,
            "sign_in.html",
            shell.texts(request)(SIGN_IN_TITLE),
            status=status,
            after=own_path(after),
            by_provider=signing_in is not None,
            refused=refused,
        )

    @router.get(SIGN_IN)
    def sign_in(request: Request, after: Next = "/") -> Response:
        if asking(request.scope) is not None:
            return RedirectResponse(own_path(after), HTTPStatus.SEE_OTHER, HEADERS)
        return form(request, after)

    @router.post(SIGN_IN)
    def begin(request: Request, fields: Annotated[Mapping[str, str], Depends(_fields)]) -> Response:
        """A foreign site could otherwise sign somebody in as somebody else, and see what they then do."""
        if visits is None:
            raise _nothing()
        cookies, now_ms, after = Cookies.strict(request.scope), shell.clock(), fields.get("next", "/")
        if not cookies.is_from_here(request.headers):
            return form(request, after, status=HTTPStatus.FORBIDDEN, refused=True)
        begun = visits.begin(
            fields.get("token", "").strip(), instead_of=cookies.session(request.headers), now_ms=now_ms
        )
        if begun is None:
            return form(request, after, status=HTTPStatus.UNAUTHORIZED, refused=True)
        try:
            _record(auditor, begun, request, now_ms)
        except StoreError:
            visits.end(begun.session)
            raise
        response = RedirectResponse(own_path(after), HTTPStatus.SEE_OTHER, HEADERS)
        cookies.set_session(response, begun.session, seconds=(begun.expires_ms - now_ms) // 1_000)
        return response

    @router.post("/sign-out")
    def end(request: Request) -> Response:
        """A provider may have a sign-out of its own: pages send no form to other hosts, so a link goes there."""
        cookies = Cookies.strict(request.scope) if signing_in is None else signing_in.cookies
        if not cookies.is_from_here(request.headers):
            return RedirectResponse("/", HTTPStatus.SEE_OTHER, HEADERS)
        secret, state = cookies.session(request.headers), secrets.token_urlsafe(STATE_BYTES)
        address = None
        if signing_in is not None and secret is not None:
            address = signing_in.sign_ins.end(secret, state=state)
        elif visits is not None:
            visits.end(secret)
        request.state.principal = None
        title = shell.texts(request)(marked("Signed out"))
        response = shell.page(request, "signed_out.html", title, address=address)
        cookies.drop_session(response)
        if address is not None and signing_in is not None:
            signing_in.cookies.set_sign_out(response, state, seconds=SIGN_OUT_S)
        return response

    @router.get("/language/{language}")
    def choose(request: Request, language: Language, after: Next = "/") -> Response:
        """Kept by the browser."""
        response = RedirectResponse(own_path(after), HTTPStatus.SEE_OTHER, HEADERS)
        response.set_cookie(
            languages.COOKIE,
            language,
            max_age=languages.COOKIE_S,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        """What belongs to every page; nothing of it is secret."""
        found = shell.static.get(name)
        if found is None:
            raise _nothing()
        return Response(found, media_type=STATIC_TYPES[name], headers={**HEADERS, "Cache-Control": STATIC_CACHE})

    return router


async def _fields(request: Request) -> Mapping[str, str]:
    """Of a form as browsers send it without files; what is none has none."""
    try:
        return dict(parse_qsl((await request.body()).decode("ascii"), max_num_fields=FIELDS_MAX))
    except ValueError:
        return {}


def _record(auditor: Auditor, begun: SignedIn, request: Request, now_ms: int) -> None:
    """What cannot be recorded is not done. Raises StoreError."""
    who, source = bounded(begun.principal.holder), bounded("" if request.client is None else request.client.host)
    auditor.record(Draft(phase=Phase.FACT, at_ms=now_ms, actor=who, source=source, action=BEGAN, subject=who))


def _nothing() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "unknown-page", "No such page", "there is none of that name")
