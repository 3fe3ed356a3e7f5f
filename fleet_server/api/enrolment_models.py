"""What the API gives of claims and certificates."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fleet_server.access import enrolment
from fleet_server.access.enroller import NewClaim
from fleet_server.access.states import Reason, State
from fleet_server.api.times import TimeAt, TimeMs, rfc3339

LIFE_S_MAX = enrolment.CLAIM_LIFE_MS_MAX // 1000


class ClaimIn(BaseModel):
    """How long a claim is good."""

    model_config = ConfigDict(extra="forbid")

    expires_s: Annotated[int, Field(ge=60, le=LIFE_S_MAX, description="Seconds from now.")] = (
        enrolment.CLAIM_LIFE_MS // 1000
    )


class Claim(BaseModel):
    """An operator's word that whoever knows the code is this device, once; the code is not told again."""

    claim: str = Field(description="Its id.", examples=["9f0c2b1a77"])
    device: str = Field(examples=["car-7"])
    made_by: str = Field(examples=["first-administrator"])
    created_ms: TimeMs
    created_at: TimeAt
    expires_ms: TimeMs
    expires_at: TimeAt
    redeemed_ms: TimeMs | None
    withdrawn_ms: TimeMs | None
    good: bool = Field(description="Whether it can be redeemed now.")
    serial: str | None = Field(description="The certificate that it was redeemed for.")

    @classmethod
    def of(cls, claim: enrolment.Claim, *, now_ms: int) -> "Claim":
        """As it is kept."""
        return cls(
            claim=claim.claim,
            device=claim.device,
            made_by=claim.made_by,
            created_ms=claim.created_ms,
            created_at=rfc3339(claim.created_ms),
            expires_ms=claim.expires_ms,
            expires_at=rfc3339(claim.expires_ms),
            redeemed_ms=claim.redeemed_ms,
            withdrawn_ms=claim.withdrawn_ms,
            good=enrolment.why_not(claim, now_ms=now_ms) is None,
            serial=claim.serial,
        )


class MadeClaim(Claim):
    """A claim that was just made. Its code is in this answer and nowhere else."""

    code: str = Field(description="160 bits; single use.", examples=["ffc_" + "a" * 32])
    qr: str = Field(description="The text of a QR code.", examples=["https://fleet.example:8471/enroll#ffc_..."])
    command: str = Field(description="What to run on the device.")

    @classmethod
    def made(cls, new: NewClaim, *, qr: str, command: str, now_ms: int) -> "MadeClaim":
        """With what an installer needs."""
        return cls(**Claim.of(new.claim, now_ms=now_ms).model_dump(), code=new.code, qr=qr, command=command)


class ClaimPage(BaseModel):
    """Claims by id; `next` is null on the last page."""

    claims: list[Claim]
    next: str | None = Field(description="The cursor of the next page.")


class MadeClaims(BaseModel):
    """Claims that were just made, in the file's order."""

    claims: list[MadeClaim]


class Certificate(BaseModel):
    """One that was issued. Only `active` renews; only `revoked` is refused by the broker."""

    serial: str = Field(examples=["0" * 32])
    device: str = Field(examples=["car-7"])
    fingerprint: str = Field(description="SHA-256, hex.")
    state: State
    issued_ms: TimeMs
    issued_at: TimeAt
    not_after_ms: TimeMs
    not_after_at: TimeAt
    connected_ms: TimeMs | None = Field(description="When it was first seen in use, by a renewal that it proved.")
    revoked_ms: TimeMs | None
    reason: Reason | None

    @classmethod
    def of(cls, kept: enrolment.Certificate) -> "Certificate":
        """As it is kept."""
        return cls(
            serial=kept.serial,
            device=kept.device,
            fingerprint=kept.fingerprint,
            state=kept.state,
            issued_ms=kept.issued_ms,
            issued_at=rfc3339(kept.issued_ms),
            not_after_ms=kept.not_after_ms,
            not_after_at=rfc3339(kept.not_after_ms),
            connected_ms=kept.connected_ms,
            revoked_ms=kept.revoked_ms,
            reason=kept.reason,
        )


class Certificates(BaseModel):
    """All that a device ever had, the newest first."""

    certificates: list[Certificate]
