"""The listener where devices get their certificates: an application of its own, with four paths, and
those of uploads and releases where they are.

Nobody here bears a token: a claim's code, or the old certificate's key, is what proves. Bodies and times are bounded
before anything is looked at, and who tries too often waits.
"""

import logging
from http import HTTPStatus
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker_config.enrolment import (
    ENROLL_PATH,
    NONCE_PATH,
    RENEW_PATH,
    TRUST_PATH,
    Enrolled,
    EnrollRequest,
    NonceAnswer,
    RenewRequest,
    TrustAnswer,
    TrustRequest,
    decode_request,
)
from broker_config.ids import ContractError
from fleet_server.access.enroller import Enroller
from fleet_server.api import docking as docks
from fleet_server.api import releases as released
from fleet_server.api.bounded import NO_STORE, body_of, problem, source_of, tried
from fleet_server.api.problems import ProblemError, answer
from fleet_server.api.sessions import Sessions
from fleet_server.evidence.docking import Docking
from fleet_server.releases.store import Releases

T = TypeVar("T")
R = TypeVar("R", EnrollRequest, RenewRequest, TrustRequest)
logger = logging.getLogger(__name__)


def create_app(enroller: Enroller, docking: Docking | None = None, releases: Releases | None = None) -> Starlette:
    """The listener's application over *enroller*; *docking* None: no files are taken here; *releases* None: none are
    given.
    """
    sessions = Sessions(enroller)

    async def enroll(request: Request) -> Response:
        asked = _decoded(await body_of(request), EnrollRequest)
        given = await tried(lambda: enroller.enroll(asked, source=source_of(request)))
        return _given("enrolled", given, request)

    async def nonce(request: Request) -> Response:
        value = await tried(lambda: enroller.nonce(source=source_of(request)))
        return _json(NonceAnswer(value))

    async def renew(request: Request) -> Response:
        asked = _decoded(await body_of(request), RenewRequest)
        given = await tried(lambda: enroller.renew(asked, source=source_of(request)))
        return _given("renewed", given, request)

    async def trust(request: Request) -> Response:
        asked = _decoded(await body_of(request), TrustRequest)
        device, given = await tried(lambda: enroller.trust(asked, source=source_of(request)))
        if given.steps or given.mac is not None:
            logger.info("trust", extra={"device": device, "steps": len(given.steps), "mac": given.mac is not None})
        return _json(given)

    return Starlette(
        routes=[
            Route(ENROLL_PATH, enroll, methods=["POST"]),
            Route(NONCE_PATH, nonce, methods=["GET"]),
            Route(RENEW_PATH, renew, methods=["POST"]),
            Route(TRUST_PATH, trust, methods=["POST"]),
            *(() if docking is None and releases is None else (sessions.route(),)),
            *(() if docking is None else docks.routes(sessions, docking)),
            *(() if releases is None else released.routes(sessions, releases)),
        ],
        exception_handlers={ProblemError: _on_problem, HTTPException: _on_http, Exception: _on_crash},
    )


def _decoded(body: bytes, kind: type[R]) -> R:
    try:
        return decode_request(body, kind)
    except ContractError as error:
        raise problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request cannot be taken", error
        ) from error


def _given(event: str, given: Enrolled, request: Request) -> Response:
    logger.info(event, extra={"device": given.device, "source": source_of(request)})
    return _json(given)


def _json(value: Enrolled | NonceAnswer | TrustAnswer) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=NO_STORE)


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return answer(error)


async def _on_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    kind = status.phrase.lower().replace(" ", "-")
    expected = f"POST {ENROLL_PATH}, GET {NONCE_PATH}, POST {RENEW_PATH} or POST {TRUST_PATH}"
    return answer(ProblemError(status, kind, status.phrase, "nothing else is here", expected=expected))


async def _on_crash(_request: Request, error: Exception) -> Response:
    detail = f"a fault of the server, in its log as {type(error).__name__}"
    return answer(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The server failed", detail))
