"""Who asks, and whether they may: a middleware that reads the token, and a dependency of every guarded route."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from broker_config.text import shown
from fleet_server.access import acting
from fleet_server.access.acting import Acting
from fleet_server.access.people import Principal
from fleet_server.access.people_store import People
from fleet_server.access.roles import ALL
from fleet_server.api.problems import ProblemError, answer, not_found
from fleet_server.api.rules import RULES
from fleet_server.api.times import Clock
from fleet_server.registry.store import Registry
from fleet_server.telemetry.store import StoreError

STATE: Final = "principal"
BEARER: Final = "bearer"


class Known:
    """Puts whoever the token says into the request's state, or None; what is before a route may ask there."""

    def __init__(self, app: ASGIApp, *, people: People, clock: Clock) -> None:
        self._app = app
        self._people = people
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            kind, secret = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
            found = None
            if kind.lower() == BEARER and secret:
                try:
                    found = await run_in_threadpool(self._people.authenticate, secret, now_ms=self._clock())
                except StoreError as error:
                    await answer(_unavailable(error))(scope, receive, send)
                    return
            scope.setdefault("state", {})[STATE] = found
        await self._app(scope, receive, send)


def asking(scope: Scope) -> Principal | None:
    """Whom :class:`Known` found."""
    found = scope.get("state", {}).get(STATE)
    return found if isinstance(found, Principal) else None


def guard(registry: Registry) -> Callable[..., Awaitable[None]]:
    """The dependency: 401 for who is not known, 403 for who may not; else they act from here on.

    *registry*: as it is for who acts; it is asked where a rule says that the device must be theirs.
    """
    scheme = HTTPBearer(auto_error=False, description="A token of /v1/tokens, or the one that `init` wrote.")

    async def guarded(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(scheme)]
    ) -> None:
        # async, so that what it sets is set in the request's own task
        principal = asking(request.scope)
        if principal is None:
            raise _unknown(given=credentials is not None)
        route = f"{request.method} {request.scope['route'].path}"
        acting.begin(_allowed(principal, route))
        if RULES[route].own_device and not acting.scope().everywhere:
            device = request.path_params["device"]
            if await run_in_threadpool(registry.device, device) is None:
                raise not_found("device", f"{shown(device)} was never heard of", expected="an id of /v1/devices")

    return guarded


def _allowed(principal: Principal, route: str) -> Acting:
    rule = RULES.get(route)
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


def _unknown(*, given: bool) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "No access",
        "the token is nobody's, or not good any more" if given else "no token was given",
        expected="Authorization: Bearer TOKEN, with a token of this server's",
        headers={"WWW-Authenticate": 'Bearer realm="fieldfleet"'},
    )


def _forbidden(principal: Principal, route: str, why: str) -> ProblemError:
    detail = f"{principal.holder} may not {route}: {why}"
    return ProblemError(HTTPStatus.FORBIDDEN, "forbidden", "Not yours to do", detail, expected="another grant")


def _unavailable(error: StoreError) -> ProblemError:
    detail = f"nobody can be known now: {shown(error)}"
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable", "The store is down", detail)
