"""Uploads on the listener where devices get their identities: an offer, ranges of chunks, and the receipt.

In a session (:mod:`fleet_server.api.sessions`): ``POST /uploads`` an offer, hashes or a withdrawal,
``PUT /uploads/UPLOAD/chunks/FIRST`` consecutive chunks, ``GET /uploads/UPLOAD`` how far it is. Each answer is what
the device would be told on ``dn/upload``: a state, a reject, or once the file is kept its signed receipt.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker_config import transfer
from broker_config.enrolment import PUT_BYTES_MAX, UPLOADS_PATH
from broker_config.ids import ContractError, exact
from broker_config.limits import BATCH_BYTES_MAX
from broker_config.manifest import UPLOAD_PATTERN, upload_id
from broker_config.transfer import Offer, Query, State
from fleet_server.api.bounded import NO_STORE, body_of, problem
from fleet_server.api.problems import ProblemError
from fleet_server.api.sessions import Sessions
from fleet_server.evidence.docking import Docking
from fleet_server.evidence.underway import Put, Said
from fleet_server.evidence.uploads import UploadError

BODY_WAIT_S: Final = 50.0
"""For four megabytes; the connection itself lasts no longer than a minute."""
SOON_S: Final = 1
HTTP: Final = "http"
_UPLOAD: Final = re.compile(exact(UPLOAD_PATTERN))
T = TypeVar("T")


def routes(sessions: Sessions, docking: Docking) -> list[Route]:
    """The three."""

    async def say(request: Request) -> Response:
        device = sessions.device(request)
        payload = await body_of(request, bytes_max=BATCH_BYTES_MAX)
        try:
            upload = _named(transfer.decode_up(payload))
        except ContractError as error:
            raise problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "No message", error) from error
        return await _answered(docking, Said(device, payload, chunk=False, via=HTTP), upload)

    async def put(request: Request) -> Response:
        device, upload = sessions.device(request), _upload(request)
        data = await body_of(request, bytes_max=PUT_BYTES_MAX, wait_s=BODY_WAIT_S)
        first = request.path_params["first"]
        return await _answered(docking, Put(device, upload, first, data), upload)

    async def look(request: Request) -> Response:
        device, upload = sessions.device(request), _upload(request)
        receipt = await _now(lambda: docking.receipt(device, upload))
        if receipt is not None:
            return _json(receipt)
        query = transfer.encode(Query(1, upload))
        return await _answered(docking, Said(device, query, chunk=False, via=HTTP), upload)

    return [
        Route(UPLOADS_PATH, say, methods=["POST"]),
        Route(f"{UPLOADS_PATH}/{{upload}}", look, methods=["GET"]),
        Route(f"{UPLOADS_PATH}/{{upload}}/chunks/{{first:int}}", put, methods=["PUT"]),
    ]


async def _answered(docking: Docking, said: Said | Put, upload: str) -> Response:
    told = [each for each in await _now(lambda: docking.say(said)) if each.upload == upload]
    if told:
        return _json(transfer.encode(told[-1]))
    # it is kept, and its receipt is being signed
    return _json(transfer.encode(State(1, upload, (), 0, again_s=SOON_S)), HTTPStatus.ACCEPTED)


async def _now(do: Callable[[], T]) -> T:
    try:
        return await run_in_threadpool(do)
    except UploadError as error:
        raise problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The server is not ready", error) from error


def _upload(request: Request) -> str:
    upload = str(request.path_params["upload"])
    if not _UPLOAD.match(upload):
        raise ProblemError(HTTPStatus.NOT_FOUND, "not-found", "No upload", "expected 32 hex digits in the path")
    return upload


def _named(word: transfer.UpMessage) -> str:
    return upload_id(word.manifest.payload) if isinstance(word, Offer) else word.upload


def _json(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(body, status_code=status, media_type="application/json", headers=NO_STORE)
