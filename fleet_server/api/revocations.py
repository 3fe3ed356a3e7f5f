"""``/v1/devices/{device}/revoke``: put a device out, and say how it is known that it is."""

from http import HTTPStatus
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from broker_config.text import shown
from fleet_server.access.auditor import Auditor, own_fact
from fleet_server.access.enrolment import EnrolmentError
from fleet_server.access.revocation import NothingToRevokeError, Outcome, Revoker
from fleet_server.access.states import Reason
from fleet_server.api.devices import DeviceName
from fleet_server.api.problems import Fault, ProblemError, invalid, responses
from fleet_server.api.routes import Routes

CERTIFICATES_MAX: Final = 8
CERTIFICATE_CHARS_MAX: Final = 8_192


class RevokeIn(BaseModel):
    """Why, and what of the device only its operator knows."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason
    certificates: list[Annotated[str, Field(max_length=CERTIFICATE_CHARS_MAX)]] = Field(
        default=[],
        max_length=CERTIFICATES_MAX,
        description="Certificates of the device (PEM) that were made beside this server, such as by `add-device`.",
    )


class RevocationStep(BaseModel):
    """What was done, or found, one after the other."""

    what: str = Field(examples=["the broker refuses a certificate of the same list"])
    done: bool
    at_s: float = Field(description="When it ended, seconds from the order.", examples=[0.4])
    detail: str = Field(description="What is wrong, if it is not done.", examples=[""])


class Revocation(BaseModel):
    """What became of it. The certificates are revoked whatever `out` says, and the list is written again with each
    later revocation; `out` says whether the broker was seen to keep the device out.
    """

    device: str = Field(examples=["car-7"])
    reason: Reason
    certificates: int = Field(description="Revoked and not expired.", examples=[1])
    out: bool = Field(description="Every step was done: the device is proved to be out.")
    seconds: float = Field(description="From the order to the last proof.", examples=[0.6])
    steps: list[RevocationStep]

    @classmethod
    def of(cls, outcome: Outcome) -> "Revocation":
        """As it went."""
        return cls(
            device=outcome.device,
            reason=outcome.reason,
            certificates=outcome.certificates,
            out=outcome.out,
            seconds=round(outcome.seconds, 3),
            steps=[
                RevocationStep(what=step.what, done=step.done, at_s=round(step.at_s, 3), detail=step.detail)
                for step in outcome.steps
            ],
        )


def routes(revoker: Revoker, auditor: Auditor) -> Routes:
    """The route; it takes some seconds, in a thread of the framework's.

    *auditor*: keeps how the device was seen to be out, and after how many seconds.
    """
    router = Routes(tags=["enrolment"])

    @router.post(
        "/v1/devices/{device}/revoke",
        summary="Put a device out, and prove it",
        responses=responses(HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    )
    def revoke(device: DeviceName, body: RevokeIn) -> Revocation:
        """Revokes its certificates, tells the broker and looks at it, ends the session, and clears what is retained.

        May be repeated until `out` is true. A new claim lets the device in again, with a new key.
        """
        try:
            outcome = revoker.revoke(device, body.reason, certificates=body.certificates)
        except NothingToRevokeError as error:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "nothing-to-revoke",
                "Nothing to revoke",
                str(error),
                expected="a device that was enrolled here, or the certificate that add-device made for it",
            ) from error
        except EnrolmentError as error:
            raise invalid(
                [Fault(where="body.certificates", expected=f"certificates of {device}", got=shown(error))]
            ) from error
        seen = {"out": str(outcome.out).lower(), "seconds": f"{outcome.seconds:.3f}", "reason": str(outcome.reason)}
        auditor.finish(own_fact("device.seen_out", device, at_ms=auditor.now_ms(), data=seen))
        return Revocation.of(outcome)

    return router
