"""What the listener for devices does with every request: bodies and times are bounded, and errors are problems."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from broker_config.enrolment import REQUEST_BYTES_MAX
from broker_config.ids import ContractError
from broker_config.text import shown
from fleet_server.access.ca import CaError, WeakKeyError
from fleet_server.access.enroller import TooOftenError
from fleet_server.access.enrolment import BadRequestError, EnrolmentError, SharedKeyError
from fleet_server.api.problems import ProblemError
from fleet_server.telemetry.store import StoreError

BODY_WAIT_S: Final = 10.0
NO_STORE: Final = {"Cache-Control": "no-store"}

T = TypeVar("T")
logger = logging.getLogger(__name__)


async def tried(do: Callable[[], T]) -> T:
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
        raise problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request cannot be taken", error
        ) from error
    except SharedKeyError as error:
        raise problem(HTTPStatus.CONFLICT, "shared-key", "The key is in use", error) from error
    except EnrolmentError as error:
        raise problem(HTTPStatus.FORBIDDEN, "not-enrolled", "No certificate for this", error) from error
    except ContractError as error:
        raise problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request cannot be taken", error
        ) from error
    except (StoreError, CaError, OSError) as error:
        logger.warning("cannot enrol now", extra={"error": shown(error)})
        detail = "the server cannot answer now; nothing was changed"
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The server is not ready", detail
        ) from error


async def body_of(request: Request, *, bytes_max: int = REQUEST_BYTES_MAX, wait_s: float = BODY_WAIT_S) -> bytes:
    """All of it, within its bound and its time."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(wait_s):
            async for part in request.stream():
                size += len(part)
                if size > bytes_max:
                    detail = f"expected at most {bytes_max} bytes"
                    raise ProblemError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The body is too large", detail
                    )
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as error:
        detail = f"expected the whole body within {wait_s:g} s"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, "too-slow", "The body did not come", detail) from error
    return b"".join(parts)


def source_of(request: Request) -> str:
    """The other side's address; headers that claim another are not looked at."""
    return request.client.host if request.client is not None else ""


def problem(status: HTTPStatus, kind: str, title: str, error: Exception) -> ProblemError:
    """With the error's own words."""
    return ProblemError(status, kind, title, shown(error, 500))
