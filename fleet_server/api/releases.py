"""Releases on the devices' listener: metadata and images, read-only, for who has a session.

Images by ranges, so that a device goes on where it was cut off; a connection here ends after a minute, however busy.
Nothing that is given here is believed: devices check all of it.
"""

import logging
from http import HTTPStatus
from threading import Semaphore
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from broker_config.releases import METADATA_PATH, TARGETS_PATH
from broker_config.text import shown
from fleet_server.api.bounded import NO_STORE
from fleet_server.api.problems import ProblemError
from fleet_server.api.sessions import Sessions
from fleet_server.releases.store import Releases

DOWNLOADS_MAX: Final = 16
"""Images on their way at once: of the listener's connections some are left for who enrols."""
AGAIN_S: Final = 10
RANGE_CHARS_MAX: Final = 64

logger = logging.getLogger(__name__)


def routes(sessions: Sessions, releases: Releases) -> list[Route]:
    """The two."""
    free = Semaphore(DOWNLOADS_MAX)

    async def metadata(request: Request) -> Response:
        sessions.device(request)
        try:
            data = await run_in_threadpool(releases.metadata, str(request.path_params["name"]))
        except OSError as error:
            logger.warning("releases cannot be read: %s", shown(error))
            raise _unavailable("the server cannot read it now") from error
        if data is None:
            raise _absent()
        return Response(data, media_type="application/json", headers=NO_STORE)

    async def image(request: Request) -> Response:
        device = sessions.device(request)
        asked = request.headers.get("range", "")
        if len(asked) > RANGE_CHARS_MAX or "," in asked:
            detail = "expected one range of bytes"
            raise ProblemError(HTTPStatus.BAD_REQUEST, "invalid-request", "No such range", detail)
        path = await run_in_threadpool(releases.image, str(request.path_params["path"]))
        if path is None:
            raise _absent()
        if not free.acquire(blocking=False):
            raise _unavailable(f"{DOWNLOADS_MAX} devices fetch an image now")
        logger.info("image", extra={"device": device, "image": path.name, "range": shown(asked)})
        return _Counted(free, path, media_type="application/octet-stream", headers=NO_STORE)

    return [
        Route(f"{METADATA_PATH}/{{name}}", metadata, methods=["GET"]),
        Route(f"{TARGETS_PATH}/{{path:path}}", image, methods=["GET"]),
    ]


class _Counted(FileResponse):
    """Gives its place back however it ends."""

    def __init__(self, free: Semaphore, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type] # as FileResponse's own
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._free.release()


def _absent() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "not-found", "No such file", "there is no release of that name")


def _unavailable(why: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        "Not now",
        why,
        headers={"Retry-After": str(AGAIN_S)},
    )
