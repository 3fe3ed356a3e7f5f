"""Sessions on the devices' listener: ``POST /uploads/session`` proves the device's key over a nonce, and gives a
bearer's token for what follows, files that it sends and releases that it fetches.
"""

import logging
import secrets
import time
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker_config.enrolment import SESSION_PATH, SessionAnswer, SessionRequest, decode_request
from broker_config.ids import DeviceId
from fleet_server.access.enroller import Enroller
from fleet_server.api.bounded import NO_STORE, body_of, problem, source_of, tried
from fleet_server.evidence.docking import SESSION_MS, SessionError, device_of, new_session

SECRET_BYTES: Final = 32
BEARER: Final = "Bearer "

logger = logging.getLogger(__name__)


class Sessions:
    """They end with the process."""

    def __init__(self, enroller: Enroller) -> None:
        self._enroller = enroller
        self._secret = secrets.token_bytes(SECRET_BYTES)

    def route(self) -> Route:
        """Where one is given."""
        return Route(SESSION_PATH, self._give, methods=["POST"])

    def device(self, request: Request) -> DeviceId:
        """Who asks. Raises ProblemError: nobody that has proved to be."""
        told = request.headers.get("authorization", "")
        try:
            return device_of(self._secret, told.removeprefix(BEARER), now_ms=_now_ms())
        except SessionError as error:
            raise problem(HTTPStatus.UNAUTHORIZED, "no-session", "No session", error) from error

    async def _give(self, request: Request) -> Response:
        body = await body_of(request)

        def proved() -> DeviceId:
            return self._enroller.prove(decode_request(body, SessionRequest), source=source_of(request))

        device = await tried(proved)
        logger.info("docked", extra={"device": device, "source": source_of(request)})
        given = SessionAnswer(new_session(self._secret, device, now_ms=_now_ms()), SESSION_MS // 1000)
        return Response(msgspec.json.encode(given), media_type="application/json", headers=NO_STORE)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
