"""``/v1/sign-in``: people, with the provider that the configuration names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from fleet_server.access.audit import Draft, Phase, bounded
from fleet_server.access.auditor import Auditor
from fleet_server.access.people import PeopleError
from fleet_server.access.persons import SignedIn, TooManyPersonsError
from fleet_server.access.sign_in import SIGN_IN_MS, ProviderError, TooManySignInsError
from fleet_server.access.sign_ins import Answer, SignIns
from fleet_server.api import times
from fleet_server.api.cookies import Cookies
from fleet_server.api.problems import ProblemError, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.telemetry.store import StoreError

WORD_CHARS_MAX: Final = 512
CODE_CHARS_MAX: Final = 4_096
BEGAN: Final = "session.begin"
SEE_OTHER: Final[dict[int | str, dict[str, object]]] = {303: {"description": "The browser goes on, with a cookie."}}

Word: TypeAlias = Annotated[str | None, Query(max_length=WORD_CHARS_MAX)]
Code: TypeAlias = Annotated[str | None, Query(max_length=CODE_CHARS_MAX)]


@dataclass(frozen=True, slots=True)
class SigningIn:
    """How people sign in. ``landing``: a path of this server, where a browser goes that is signed in."""

    sign_ins: SignIns
    cookies: Cookies
    landing: str


def routes(signing_in: SigningIn | None, clock: times.Clock) -> Routes:
    """What begins a sign-in."""
    router = Routes(tags=["people"])

    @router.get(
        "/v1/sign-in",
        summary="Sign in",
        status_code=HTTPStatus.SEE_OTHER,
        response_class=RedirectResponse,
        responses={**responses(HTTPStatus.NOT_FOUND), **SEE_OTHER},
    )
    def sign_in() -> Response:
        """For a browser: goes to the provider, and comes back to `/v1/sign-in/callback`. 404 where people have tokens
        only.
        """
        known = configured(signing_in)
        with _refusals():
            begun, address = known.sign_ins.begin(now_ms=clock())
        response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
        known.cookies.set_sign_in(response, begun.cookie, seconds=SIGN_IN_MS // 1_000)
        return response

    return router


def callback_routes(signing_in: SigningIn | None, auditor: Auditor, clock: times.Clock) -> Routes:
    """The way back from the provider, which may add to the query what it likes."""
    router = Routes(tags=["people"])

    @router.get(
        "/v1/sign-in/callback",
        summary="Come back from the provider",
        status_code=HTTPStatus.SEE_OTHER,
        response_class=RedirectResponse,
        responses={**responses(HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND), **SEE_OTHER},
    )
    def callback(
        request: Request, state: Word = None, code: Code = None, error: Word = None, iss: Word = None
    ) -> Response:
        """Begins a session, and ends the one that the browser had. A sign-in is good for one try within ten minutes,
        in the browser that began it.
        """
        known = configured(signing_in)
        cookies, headers, now_ms = known.cookies, request.headers, clock()
        answer = Answer(state, code, error, iss)
        with _refusals(), _counted(auditor, request):
            signed_in = known.sign_ins.finish(
                answer, cookies.sign_in(headers), instead_of=cookies.session(headers), now_ms=now_ms
            )
        _record(auditor, known.sign_ins, signed_in, request, now_ms)
        response = RedirectResponse(known.landing, HTTPStatus.SEE_OTHER, {"Referrer-Policy": "no-referrer"})
        cookies.set_session(response, signed_in.session, seconds=(signed_in.expires_ms - now_ms) // 1_000)
        cookies.drop_sign_in(response)
        return response

    return router


def configured(signing_in: SigningIn | None) -> SigningIn:
    """Raises ProblemError: people have tokens only."""
    if signing_in is None:
        raise not_found("sign-in", "people do not sign in here", expected="a token, or [oidc] in fleet-server.toml")
    return signing_in


def _record(auditor: Auditor, sign_ins: SignIns, signed_in: SignedIn, request: Request, now_ms: int) -> None:
    """What cannot be recorded is not done. Raises StoreError."""
    who, source = bounded(signed_in.principal.holder), bounded(_source(request))
    try:
        auditor.record(Draft(phase=Phase.FACT, at_ms=now_ms, actor=who, source=source, action=BEGAN, subject=who))
    except StoreError:
        sign_ins.undo(signed_in)
        raise


@contextmanager
def _counted(auditor: Auditor, request: Request) -> Iterator[None]:
    """Who is refused is counted as a stranger is."""
    try:
        yield
    except ProviderError:
        raise
    except PeopleError:
        auditor.refused(_source(request))
        raise


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except ProviderError as error:
        raise _unavailable("provider-unavailable", "The provider is down", error) from error
    except (TooManySignInsError, TooManyPersonsError) as error:
        raise _unavailable("too-many", "There are too many", error) from error
    except PeopleError as error:
        detail = f"nobody was signed in: {error}"
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "sign-in-refused", "Not signed in", detail, expected="a new try at /v1/sign-in"
        ) from error


def _unavailable(kind: str, title: str, error: PeopleError) -> ProblemError:
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, kind, title, f"nobody was signed in: {error}")


def _source(request: Request) -> str:
    return "" if request.client is None else request.client.host
