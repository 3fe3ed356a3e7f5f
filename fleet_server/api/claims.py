"""``/v1/claims`` and what hangs on a device of them: who may become it, and what certificates it had."""

import csv
from collections import Counter
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

from fastapi import Body, Path, Query, Response

from broker_config.enrolment import claim_link
from broker_config.ids import BadIdError, device_id
from fleet_server.access import acting
from fleet_server.access.enroller import Enroller, NewClaim
from fleet_server.access.enrolment import ClaimError, TooManyClaimsError, UnregisteredError
from fleet_server.access.enrolment_store import Enrolments
from fleet_server.api import enrolment_models as models
from fleet_server.api import pages, times
from fleet_server.api.bodies import SECRET
from fleet_server.api.devices import DeviceName
from fleet_server.api.problems import Fault, ProblemError, invalid, not_found, responses
from fleet_server.api.routes import Routes
from fleet_server.registry import imports

CLAIMS_AT_ONCE_MAX: Final = 5_000
CSV: Final = "text/csv"

ClaimName: TypeAlias = Annotated[str, Path(pattern=r"^[0-9a-f]{10}$", examples=["9f0c2b1a77"])]


def routes(enroller: Enroller, store: Enrolments, clock: times.Clock) -> Routes:
    """The routes of claims and certificates. Every one blocks on the store, so the framework runs it in a thread."""
    router = Routes(tags=["enrolment"])

    def told(new: NewClaim) -> models.MadeClaim:
        url = enroller.settings.url
        command = f"edge-agent enroll --server {url} --claim {new.code} --ca server-ca.crt --dir {new.claim.device}"
        return models.MadeClaim.made(new, qr=claim_link(url, new.code), command=command, now_ms=clock())

    @router.post(
        "/v1/devices/{device}/claims",
        summary="Let somebody become a device",
        status_code=HTTPStatus.CREATED,
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    )
    def make(device: DeviceName, response: Response, body: models.ClaimIn | None = None) -> models.MadeClaim:
        """Single use. The code is told here and never again; a claim of the device that was open is withdrawn."""
        life_ms = 1000 * (body or models.ClaimIn()).expires_s
        try:
            (made,) = enroller.make_claims([device], made_by=acting.principal().holder, life_ms=life_ms)
        except UnregisteredError as error:
            raise not_found("registration", str(error), expected="a device that is registered") from error
        except TooManyClaimsError as error:
            raise _too_many(error) from error
        response.headers.update(SECRET)
        return told(made)

    @router.post(
        "/v1/imports/claims",
        summary="Let somebody become each device of a CSV",
        status_code=HTTPStatus.CREATED,
        responses=responses(HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    )
    def make_many(
        response: Response,
        body: Annotated[bytes, Body(media_type=CSV, description="UTF-8, with a header and a column device.")],
        *,
        expires_s: Annotated[int, Query(ge=60, le=models.LIFE_S_MAX)] = models.LIFE_S_MAX,
    ) -> models.MadeClaims:
        """Other columns are not looked at, so that the file that registered the devices will do. All or none."""
        devices = _devices(body)
        try:
            made = enroller.make_claims(devices, made_by=acting.principal().holder, life_ms=1000 * expires_s)
        except UnregisteredError as error:
            raise invalid([Fault(where="file", expected="devices that are registered", got=str(error))]) from error
        except TooManyClaimsError as error:
            raise _too_many(error) from error
        response.headers.update(SECRET)
        return models.MadeClaims(claims=[told(each) for each in made])

    @router.get("/v1/claims", summary="Claims, of whatever state")
    def claims(
        device: Annotated[str | None, Query(max_length=64)] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> models.ClaimPage:
        """By id; never with their codes."""
        after = pages.read_cursor(cursor, str, "")
        found = store.claims(device=device, after=after, rows_max=limit + 1)
        page, follows = pages.cut(found, limit)
        return models.ClaimPage(
            claims=[models.Claim.of(claim, now_ms=clock()) for claim in page],
            next=pages.write_cursor(page[-1].claim) if follows else None,
        )

    @router.delete(
        "/v1/claims/{claim}",
        summary="Withdraw a claim",
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    )
    def withdraw(claim: ClaimName) -> models.Claim:
        """One that was used stays used: what it gave is revoked with the device."""
        try:
            return models.Claim.of(store.withdraw(claim, now_ms=clock()), now_ms=clock())
        except ClaimError as error:
            raise not_found("claim", str(error), expected="a claim of /v1/claims") from error

    @router.get("/v1/devices/{device}/certificates", summary="Every certificate that a device had")
    def certificates(device: DeviceName) -> models.Certificates:
        """The newest first; empty if it was never enrolled here."""
        return models.Certificates(certificates=[models.Certificate.of(each) for each in store.certificates(device)])

    return router


def _too_many(error: TooManyClaimsError) -> ProblemError:
    return ProblemError(HTTPStatus.CONFLICT, "too-many", "There are too many", str(error))


def _devices(body: bytes) -> list[str]:
    """The column ``device``. Raises ProblemError with every fault."""
    try:
        text = body.decode("utf-8-sig")
        rows = [cells for _, cells in imports.lines(text) if any(cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise invalid([Fault(where="file", expected="CSV in UTF-8", got=str(error)[:80])]) from error
    header = [name.strip() for name in rows[0]] if rows else []
    if "device" not in header or not 1 <= len(rows) - 1 <= CLAIMS_AT_ONCE_MAX:
        expected = f"a column device, and 1 to {CLAIMS_AT_ONCE_MAX} rows"
        raise invalid([Fault(where="file", expected=expected, got=f"{max(0, len(rows) - 1)} rows")])
    at = header.index("device")
    names = [cells[at].strip() if at < len(cells) else "" for cells in rows[1:]]
    times_of = Counter(names)
    faults = [
        Fault(where=f"row {row}", expected="a device's id, once", got=name[:80])
        for row, name in enumerate(names, start=1)
        if not _is_device(name) or times_of[name] > 1
    ]
    if faults:
        raise invalid(faults)
    return names


def _is_device(name: str) -> bool:
    try:
        device_id(name)
    except BadIdError:
        return False
    return True
