"""Who asks, and whether they may: a middleware that reads the token or the session, and a dependency of every guarded
route.

Whoever has a session in a browser must show, to change something, that a page of this server asks for it. A request
that bears both, a token and a session, is refused: which of the two was meant nobody can say.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from broker_config.text import shown
from fleet_server.access import acting
from fleet_server.access.acting import Acting
from fleet_server.access.people import Principal
from fleet_server.access.people_store import People
from fleet_server.access.person_store import Persons
from fleet_server.access.roles import ALL
from fleet_server.access.visits import Visits
from fleet_server.api.actions import SAFE
from fleet_server.api.cookies import HOST_PREFIX, OWN_HEADER, OWN_VALUE, SESSION, Cookies
from fleet_server.api.problems import ProblemError, answer, not_found
from fleet_server.api.rules import rule_of
from fleet_server.api.times import Clock
from fleet_server.registry.store import Registry
from fleet_server.telemetry.store import StoreError

STATE: Final = "principal"
REFUSAL: Final = "refusal"
BEARER: Final = "bearer"


class Known:
    """Puts into the request's state whoever the token or the session says, or None; what is before a route may ask
    there. *cookies*: None where nobody signs in with a provider; *visits*: None where nobody shows a token to a page.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        people: People,
        persons: Persons,
        cookies: Cookies | None,
        visits: Visits | None,
        clock: Clock,
    ) -> None:
        self._app = app
        self._people = people
        self._persons = persons
        self._cookies = cookies
        self._visits = visits
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            try:
                state[STATE], state[REFUSAL] = await self._found(scope)
            except StoreError as error:
                await answer(_unavailable(error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _found(self, scope: Scope) -> tuple[Principal | None, ProblemError | None]:
        """Who it is, or why they are not let in."""
        headers = Headers(scope=scope)
        kind, token = get_authorization_scheme_param(headers.get("authorization"))
        sessions, cookies = self._sessions(scope)
        session = None if sessions is None else cookies.session(headers)
        if kind.lower() == BEARER and token:
            if session is not None:
                return None, _two()
            found = await run_in_threadpool(self._people.authenticate, token, now_ms=self._clock())
            return found, None if found is not None else _unknown("the token is nobody's, or not good any more")
        if session is None or sessions is None:
            return None, None
        found = await run_in_threadpool(sessions.of_session, session, now_ms=self._clock())
        if found is None:
            return None, _unknown("the session is over")
        if scope["method"] not in SAFE and not cookies.is_from_here(headers):
            return None, _foreign()
        return found, None

    def _sessions(self, scope: Scope) -> tuple[Persons | Visits | None, Cookies]:
        """What knows sessions, None if nothing does, and the cookies that they are in."""
        if self._cookies is not None:
            return self._persons, self._cookies
        return self._visits, Cookies.strict(scope)


def asking(scope: Scope) -> Principal | None:
    """Whom :class:`Known` found."""
    found = scope.get("state", {}).get(STATE)
    return found if isinstance(found, Principal) else None


def refusal(scope: Scope) -> ProblemError | None:
    """Why :class:`Known` let nobody in, though somebody seemed to ask."""
    found = scope.get("state", {}).get(REFUSAL)
    return found if isinstance(found, ProblemError) else None


def guard(registry: Registry) -> Callable[..., Awaitable[None]]:
    """The dependency: 401 for who is not known, 403 for who may not; else they act from here on.

    *registry*: as it is for who acts; it is asked where a rule says that the device must be theirs.
    """
    scheme = HTTPBearer(auto_error=False, description="A token of /v1/tokens, or the one that `init` wrote.")

    session = APIKeyCookie(
        name=HOST_PREFIX + SESSION,
        auto_error=False,
        description=f"Of `/v1/sign-in`. What changes something also carries `{OWN_HEADER}: {OWN_VALUE}`, or an "
        "`Origin` of this server. On a server that browsers find by http the name has no prefix.",
    )

    async def guarded(
        request: Request,
        _token: Annotated[HTTPAuthorizationCredentials | None, Security(scheme)],
        _session: Annotated[str | None, Security(session)],
    ) -> None:
        # async, so that what it sets is set in the request's own task
        principal = asking(request.scope)
        if principal is None:
            raise refusal(request.scope) or _unknown("no token was given")
        route = f"{request.method} {request.scope['route'].path_format}"
        acting.begin(_allowed(principal, route))
        rule = rule_of(route)
        if rule is not None and rule.own_device and not acting.scope().everywhere:
            device = request.path_params["device"]
            if await run_in_threadpool(registry.device, device) is None:
                raise not_found("device", f"{shown(device)} was never heard of", expected="an id of /v1/devices")

    return guarded


def may(principal: Principal, route: str) -> bool:
    """Whether they may, by the rule of *route*, such as ``GET /v1/audit``; a path that is none is nobody's."""
    try:
        _allowed(principal, route)
    except ProblemError:
        return False
    return True


def _allowed(principal: Principal, route: str) -> Acting:
    rule = rule_of(route)
    if rule is None:
        raise _forbidden(principal, route, "nobody may: the route has no rule")
    if rule.permission is None:
        return Acting(principal, ALL)
    scope = principal.scope(rule.permission)
    if scope.nowhere:
        raise _forbidden(principal, route, f"it needs {rule.permission}")
    if rule.everywhere and not scope.everywhere:
        raise _forbidden(principal, route, f"it needs {rule.permission} everywhere, not at a node")
    return Acting(principal, scope)


def _unknown(detail: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "No access",
        detail,
        expected="Authorization: Bearer TOKEN, with a token of this server's",
        headers={"WWW-Authenticate": 'Bearer realm="fieldfleet"'},
    )


def _two() -> ProblemError:
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "two-identities",
        "Two at once",
        "the request bears a token and a session, and nobody can say which of the two asks",
        expected="one of them",
        headers={"WWW-Authenticate": 'Bearer realm="fieldfleet"'},
    )


def _foreign() -> ProblemError:
    return ProblemError(
        HTTPStatus.FORBIDDEN,
        "foreign-site",
        "Not from a page of this server",
        "a session alone changes nothing: any site could have made the browser send this",
        expected=f"{OWN_HEADER}: {OWN_VALUE}",
    )


def _forbidden(principal: Principal, route: str, why: str) -> ProblemError:
    detail = f"{principal.holder} may not {route}: {why}"
    return ProblemError(HTTPStatus.FORBIDDEN, "forbidden", "Not yours to do", detail, expected="another grant")


def _unavailable(error: StoreError) -> ProblemError:
    detail = f"nobody can be known now: {shown(error)}"
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable", "The store is down", detail)
