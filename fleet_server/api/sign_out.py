"""``/v1/sign-out``: a session ends here first, and then, if the provider has a place for it, there."""

import hmac
import secrets
from http import HTTPStatus
from typing import Final

from fastapi import Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from fleet_server.api.guard import refusal
from fleet_server.api.problems import ProblemError, responses
from fleet_server.api.routes import Routes
from fleet_server.api.sign_in import SEE_OTHER, SigningIn, Word, configured

STATE_BYTES: Final = 32
SIGN_OUT_S: Final = 600
"""From the way to the provider until the way back."""
SIGNED_OUT: Final = "You are signed out, here and at the provider.\n"


class SignOut(BaseModel):
    """The session here is over."""

    provider: str = Field(
        description="Where the browser goes to sign out at the provider too.",
        examples=["https://login.police.example/logout?client_id=fieldfleet"],
    )


def routes(signing_in: SigningIn | None) -> Routes:
    """What ends a session."""
    router = Routes(tags=["people"])

    @router.post(
        "/v1/sign-out",
        summary="Sign out",
        response_model=SignOut,
        responses={
            **responses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND),
            **SEE_OTHER,
            204: {"description": "Signed out; there is nothing to do at the provider."},
        },
        dependencies=[Depends(_refuse_foreign)],
    )
    def sign_out(request: Request) -> Response:
        """Ends this browser's session here. Where the provider has a sign-out of its own, a form is sent on to it
        (303), and a script is told where it is; until the browser has been there, it is still signed in at the
        provider. Without a session nothing is done.
        """
        known = configured(signing_in)
        secret = known.cookies.session(request.headers)
        state = secrets.token_urlsafe(STATE_BYTES)
        address = None if secret is None else known.sign_ins.end(secret, state=state)
        response = _towards(address, form="text/html" in request.headers.get("accept", ""))
        known.cookies.drop_session(response)
        if address is not None:
            known.cookies.set_sign_out(response, state, seconds=SIGN_OUT_S)
        return response

    return router


def callback_routes(signing_in: SigningIn | None) -> Routes:
    """The way back from the provider, which may add to the query what it likes."""
    router = Routes(tags=["people"])

    @router.get(
        "/v1/sign-out/callback",
        summary="Come back from the provider's sign-out",
        response_class=PlainTextResponse,
        responses=responses(HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND),
    )
    def callback(request: Request, state: Word = None) -> Response:
        """Tells who signed out that they did; changes nothing."""
        known = configured(signing_in)
        begun = known.cookies.sign_out(request.headers)
        if begun is None or state is None or not hmac.compare_digest(begun.encode(), state.encode()):
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "sign-out-refused",
                "Not known to be signed out",
                "this browser has no such sign-out under way",
                expected="POST /v1/sign-out",
            )
        response = PlainTextResponse(SIGNED_OUT)
        known.cookies.drop_sign_out(response)
        return response

    return router


def _towards(address: str | None, *, form: bool) -> Response:
    if address is None:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    if form:
        return RedirectResponse(address, HTTPStatus.SEE_OTHER, {"Referrer-Policy": "no-referrer"})
    return JSONResponse(SignOut(provider=address).model_dump())


def _refuse_foreign(request: Request) -> None:
    """A foreign site is not to sign anybody out."""
    refused = refusal(request.scope)
    if refused is not None:
        raise refused
