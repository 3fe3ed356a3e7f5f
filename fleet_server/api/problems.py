"""Every error as a problem document (RFC 9457), the ones of the framework too."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from broker_config.text import shown
from fleet_server.telemetry.store import StoreError

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:fieldfleet:problem:"
FAULTS_MAX: Final = 32

_logger = logging.getLogger(__name__)


class Fault(BaseModel):
    """One thing in a request that cannot be taken."""

    where: str = Field(description="The part of the request.", examples=["query.limit"])
    expected: str = Field(examples=["Input should be less than or equal to 1000"])
    got: str = Field(description="What came instead, shortened.", examples=["5000"])


class Problem(BaseModel):
    """An error (RFC 9457). `type` names its kind for programs; `detail` and `expected` are for people."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="A name that does not change.", examples=[f"{TYPE_PREFIX}unknown-device"])
    title: str = Field(description="What kind of error this is.", examples=["No such device"])
    status: int = Field(description="The HTTP status, again.", examples=[404])
    detail: str = Field(description="What happened here.", examples=["car-8 was never heard of"])
    expected: str | None = Field(None, description="What would have been taken.", examples=["an id of /v1/devices"])
    errors: list[Fault] = Field([], description=f"Faults of the request, at most {FAULTS_MAX}.")


class ProblemError(Exception):
    """Raised by a route to answer with a problem; ``kind`` is the end of its type."""

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        title: str,
        detail: str,
        *,
        expected: str | None = None,
        errors: list[Fault] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            type=TYPE_PREFIX + kind,
            title=title,
            status=status,
            detail=detail,
            expected=expected,
            errors=(errors or [])[:FAULTS_MAX],
        )
        self.headers = headers


def not_found(what: str, detail: str, *, expected: str) -> ProblemError:
    """404: a thing of kind *what* that is not there."""
    return ProblemError(HTTPStatus.NOT_FOUND, f"unknown-{what}", f"No such {what}", detail, expected=expected)


def bad_request(where: str, *, expected: str, got: str) -> ProblemError:
    """422: one fault that the framework could not see."""
    return invalid([Fault(where=where, expected=expected, got=shown(got))])


def install(app: FastAPI) -> None:
    """Answer every error of *app* with a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(StoreError, _on_store)
    app.add_exception_handler(Exception, _on_crash)


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, object]]:
    """What a route says of its errors in OpenAPI."""
    return {
        int(status): {
            "description": status.phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def invalid(faults: list[Fault]) -> ProblemError:
    """422: what of the request cannot be taken."""
    return ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid-request",
        "The request cannot be taken",
        "; ".join(f"{fault.where}: {fault.expected}, got {fault.got!r}" for fault in faults[:FAULTS_MAX]),
        errors=faults,
    )


def answer(error: ProblemError) -> JSONResponse:
    """The problem as a response, for what stands before the routes."""
    return JSONResponse(
        error.problem.model_dump(mode="json"), error.problem.status, headers=error.headers, media_type=MEDIA_TYPE
    )


async def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return answer(error)


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        Fault(where=".".join(map(str, entry["loc"])), expected=shown(entry["msg"]), got=shown(entry.get("input")))
        for entry in error.errors()
    ]
    return answer(invalid(faults))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    allowed = (error.headers or {}).get("Allow")
    detail, expected = error.detail, None
    if status is HTTPStatus.BAD_REQUEST:  # all that the framework means by it
        return answer(invalid([Fault(where="body", expected="JSON in UTF-8", got="something else")]))
    match status:
        case HTTPStatus.NOT_FOUND:
            detail, expected = f"nothing is at {shown(request.url.path)}", "a path of /v1/openapi.json"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            detail, expected = f"{shown(request.method)} cannot be done here", allowed
    kind = status.phrase.lower().replace(" ", "-")
    return answer(ProblemError(status, kind, status.phrase, detail, expected=expected, headers=error.headers))


async def _on_store(_request: Request, error: Exception) -> JSONResponse:
    _logger.warning("the store could not answer", extra={"error": shown(error)})
    detail = "the store cannot answer now; nothing was changed"
    return answer(ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable", "The store is down", detail))


async def _on_crash(_request: Request, error: Exception) -> JSONResponse:
    # The framework logs the traceback, which is no stranger's business.
    detail = f"a fault of the server, in its log as {type(error).__name__}"
    return answer(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The server failed", detail))
