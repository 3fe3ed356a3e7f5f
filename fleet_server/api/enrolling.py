"""The listener where devices get their certificates: an application of its own, with four paths and no more.

Nobody here bears a token: a claim's code, or the old certificate's key, is what proves. Bodies and times are bounded
before anything is looked at, and who tries too often waits.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from broker_config.enrolment import (
    ENROLL_PATH,
    NONCE_PATH,
    RENEW_PATH,
    REQUEST_BYTES_MAX,
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
from broker_config.text import shown
from fleet_server.access.ca import CaError, WeakKeyError
from fleet_server.access.enroller import Enroller, TooOftenError
from fleet_server.access.enrolment import BadRequestError, EnrolmentError, SharedKeyError
from fleet_server.api.problems import ProblemError, answer
from fleet_server.telemetry.store import StoreError

BODY_WAIT_S: Final = 10.0
NO_STORE: Final = {"Cache-Control": "no-store"}

T = TypeVar("T")
R = TypeVar("R", EnrollRequest, RenewRequest, TrustRequest)
logger = logging.getLogger(__name__)


def create_app(enroller: Enroller) -> Starlette:
    """The listener's application over *enroller*."""

    async def enroll(request: Request) -> Response:
        asked = _decoded(await _body(request), EnrollRequest)
        given = await _tried(lambda: enroller.enroll(asked, source=_source(request)))
        return _given("enrolled", given, request)

    async def nonce(request: Request) -> Response:
        value = await _tried(lambda: enroller.nonce(source=_source(request)))
        return _json(NonceAnswer(value))

    async def renew(request: Request) -> Response:
        asked = _decoded(await _body(request), RenewRequest)
        given = await _tried(lambda: enroller.renew(asked, source=_source(request)))
        return _given("renewed", given, request)

    async def trust(request: Request) -> Response:
        asked = _decoded(await _body(request), TrustRequest)
        device, given = await _tried(lambda: enroller.trust(asked, source=_source(request)))
        if given.steps or given.mac is not None:
            logger.info("trust", extra={"device": device, "steps": len(given.steps), "mac": given.mac is not None})
        return _json(given)

    return Starlette(
        routes=[
            Route(ENROLL_PATH, enroll, methods=["POST"]),
            Route(NONCE_PATH, nonce, methods=["GET"]),
            Route(RENEW_PATH, renew, methods=["POST"]),
            Route(TRUST_PATH, trust, methods=["POST"]),
        ],
        exception_handlers={ProblemError: _on_problem, HTTPException: _on_http, Exception: _on_crash},
    )


async def _tried(do: Callable[[], T]) -> T:
    """What *do* gives; errors as problems."""
    try:
        return await run_in_threadpool(do)
    except TooOftenError as error:
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too-often",
            "Tried too often",
            str(error),
            headers={"Retry-After": str(int(error.wait_s) + 1)},
        ) from error
    except (BadRequestError, WeakKeyError) as error:
        raise _problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request cannot be taken", error
        ) from error
    except SharedKeyError as error:
        raise _problem(HTTPStatus.CONFLICT, "shared-key", "The key is in use", error) from error
    except EnrolmentError as error:
        raise _problem(HTTPStatus.FORBIDDEN, "not-enrolled", "No certificate for this", error) from error
    except ContractError as error:
        raise _problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request cannot be taken", error
        ) from error
    except (StoreError, CaError, OSError) as error:
        logger.warning("cannot enrol now", extra={"error": shown(error)})
        detail = "the server cannot answer now; nothing was changed"
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The server is not ready", detail
        ) from error


async def _body(request: Request) -> bytes:
    """All of it, within its bound and its time."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            async for part in request.stream():
                size += len(part)
                if size > REQUEST_BYTES_MAX:
                    detail = f"expected at most {REQUEST_BYTES_MAX} bytes"
                    raise ProblemError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The body is too large", detail
                    )
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as error:
        detail = f"expected the whole body within {BODY_WAIT_S:g} s"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, "too-slow", "The body did not come", detail) from error
    return b"".join(parts)


def _decoded(body: bytes, kind: type[R]) -> R:
    try:
        return decode_request(body, kind)
    except ContractError as error:
        raise _problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request cannot be taken", error
        ) from error


def _given(event: str, given: Enrolled, request: Request) -> Response:
    logger.info(event, extra={"device": given.device, "source": _source(request)})
    return _json(given)


def _json(value: Enrolled | NonceAnswer | TrustAnswer) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=NO_STORE)


def _source(request: Request) -> str:
    """The other side's address; headers that claim another are not looked at."""
    return request.client.host if request.client is not None else ""


def _problem(status: HTTPStatus, kind: str, title: str, error: Exception) -> ProblemError:
    return ProblemError(status, kind, title, shown(error, 500))


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
