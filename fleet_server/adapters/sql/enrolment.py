"""The port :class:`fleet_server.access.enrolment_store.Enrolments` in the operator's database.

A claim is used up by one UPDATE that only an unused one satisfies, in the transaction that enters the certificate:
whoever comes second finds no row.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from fleet_server.access.enrolment import (
    CLAIMS_OPEN_MAX,
    Certificate,
    Claim,
    ClaimError,
    RenewalError,
    SharedKeyError,
    TooManyClaimsError,
    why_not,
)
from fleet_server.access.states import Reason, State
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import certificate as certificates
from fleet_server.adapters.sql.tables import claim as claims


class SqlEnrolments:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    def add_claims(self, claims_: Sequence[tuple[Claim, bytes]]) -> None:
        """See the port."""
        with database.writing(self._engine) as connection:
            for claim, digest in claims_:
                _withdraw_open(connection, claim.device, claim.created_ms)
                row = {name: getattr(claim, name) for name in _CLAIM}
                connection.execute(insert(claims).values({**row, "digest": digest}))
            if claims_:
                _check_open(connection, claims_[0][0].created_ms)

    def claims(self, *, device: str | None, after: str, rows_max: int) -> Sequence[Claim]:
        """See the port."""
        query = select(claims).where(claims.c.claim > after).order_by(claims.c.claim).limit(rows_max)
        with database.reading(self._engine) as connection:
            rows = connection.execute(query if device is None else query.where(claims.c.device == device))
            return [_claim(row) for row in rows.mappings()]

    def withdraw(self, claim: str, *, now_ms: int) -> Claim:
        """See the port."""
        unused = claims.c.redeemed_ms.is_(None) & claims.c.withdrawn_ms.is_(None)
        with database.writing(self._engine) as connection:
            connection.execute(update(claims).where(claims.c.claim == claim, unused).values(withdrawn_ms=now_ms))
            row = connection.execute(select(claims).where(claims.c.claim == claim)).mappings().one_or_none()
            if row is None:
                raise ClaimError(f"there is no claim {claim}")
            return _claim(row)

    def redeem(self, digest: bytes, issue: Callable[[str], Certificate], *, now_ms: int) -> Certificate:
        """See the port."""
        good = (
            (claims.c.digest == digest)
            & claims.c.redeemed_ms.is_(None)
            & claims.c.withdrawn_ms.is_(None)
            & (claims.c.expires_ms > now_ms)
        )
        with database.writing(self._engine) as connection:
            used = connection.execute(update(claims).where(good).values(redeemed_ms=now_ms)).rowcount
            row = connection.execute(select(claims).where(claims.c.digest == digest)).mappings().one_or_none()
            if not used or row is None:
                reason = why_not(None if row is None else _claim(row), now_ms=now_ms)
                raise ClaimError(reason or "the claim was used already")
            issued = issue(row["device"])
            _supersede(connection, issued.device, but=())
            _enter(connection, issued)
            connection.execute(update(claims).where(claims.c.digest == digest).values(serial=issued.serial))
        return issued

    def certificate(self, serial: str) -> Certificate | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _found(connection, serial)

    def renew(
        self, serial: str, check: Callable[[Certificate], None], issue: Callable[[str], Certificate], *, now_ms: int
    ) -> Certificate:
        """See the port."""
        with database.writing(self._engine) as connection:
            # the row first: a revocation meanwhile waits for it, and then revokes what is added below too
            old = _found(connection, serial, locked=True)
            if old is None:
                raise RenewalError("certificate: this server did not issue it")
            check(old)
            issued = issue(old.device)
            _supersede(connection, old.device, but=(serial,))
            _enter(connection, issued)
            if old.connected_ms is None:
                of_old = update(certificates).where(certificates.c.serial == serial)
                connection.execute(of_old.values(connected_ms=now_ms))
        return issued

    def adopt(self, certificate: Certificate) -> None:
        """See the port."""
        with database.writing(self._engine) as connection:
            _enter(connection, certificate)

    def certificates(self, device: str) -> Sequence[Certificate]:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _of_device(connection, device)

    def revoke(self, device: str, reason: Reason, *, now_ms: int) -> Sequence[Certificate]:
        """See the port."""
        living = (certificates.c.device == device) & (certificates.c.state != State.REVOKED.value)
        with database.writing(self._engine) as connection:
            held = select(certificates.c.serial).where(certificates.c.device == device).with_for_update()
            connection.execute(held).all()
            _withdraw_open(connection, device, now_ms)
            revoked = {"state": State.REVOKED.value, "revoked_ms": now_ms, "reason": reason.value}
            connection.execute(update(certificates).where(living).values(revoked))
            return [each for each in _of_device(connection, device) if each.not_after_ms > now_ms]

    def counting(self, *, now_ms: int) -> Sequence[Certificate]:
        """See the port."""
        active = certificates.c.state == State.ACTIVE.value
        revoked = (certificates.c.state == State.REVOKED.value) & (certificates.c.not_after_ms > now_ms)
        with database.reading(self._engine) as connection:
            rows = connection.execute(select(certificates).where(active | revoked)).mappings()
            return [_certificate(row) for row in rows]

    def revoked(self, *, now_ms: int) -> Sequence[Certificate]:
        """See the port."""
        query = select(certificates).where(
            certificates.c.state == State.REVOKED.value, certificates.c.not_after_ms > now_ms
        )
        with database.reading(self._engine) as connection:
            rows = connection.execute(query.order_by(certificates.c.serial)).mappings()
            return [_certificate(row) for row in rows]


_CLAIM = ("claim", "device", "made_by", "created_ms", "expires_ms", "redeemed_ms", "withdrawn_ms", "serial")


def _claim(row: RowMapping) -> Claim:
    return Claim(**{name: row[name] for name in _CLAIM})


def _certificate(row: RowMapping) -> Certificate:
    values: dict[str, Any] = dict(row)
    values["state"] = State(row["state"])
    values["reason"] = None if row["reason"] is None else Reason(row["reason"])
    return Certificate(**values)


def _found(connection: Connection, serial: str, *, locked: bool = False) -> Certificate | None:
    query = select(certificates).where(certificates.c.serial == serial)
    row = connection.execute(query.with_for_update() if locked else query).mappings().one_or_none()
    return None if row is None else _certificate(row)


def _of_device(connection: Connection, device: str) -> list[Certificate]:
    query = select(certificates).where(certificates.c.device == device)
    ordered = query.order_by(certificates.c.issued_ms.desc(), certificates.c.serial)
    return [_certificate(row) for row in connection.execute(ordered).mappings()]


def _enter(connection: Connection, issued: Certificate) -> None:
    try:
        connection.execute(
            insert(certificates).values(
                serial=issued.serial,
                device=issued.device,
                fingerprint=issued.fingerprint,
                key_digest=issued.key_digest,
                key_kind=issued.key_kind,
                issued_ms=issued.issued_ms,
                not_after_ms=issued.not_after_ms,
                state=issued.state.value,
                connected_ms=issued.connected_ms,
                revoked_ms=issued.revoked_ms,
                reason=None if issued.reason is None else issued.reason.value,
            )
        )
    except IntegrityError as error:
        raise SharedKeyError("the key has a certificate already; make a new key for each request") from error


def _supersede(connection: Connection, device: str, *, but: Sequence[str]) -> None:
    active = (certificates.c.device == device) & (certificates.c.state == State.ACTIVE.value)
    chosen = update(certificates).where(active, certificates.c.serial.not_in(but))
    connection.execute(chosen.values(state=State.SUPERSEDED.value))


def _check_open(connection: Connection, now_ms: int) -> None:
    good = claims.c.redeemed_ms.is_(None) & claims.c.withdrawn_ms.is_(None) & (claims.c.expires_ms > now_ms)
    if connection.execute(select(func.count()).select_from(claims).where(good)).scalar_one() > CLAIMS_OPEN_MAX:
        raise TooManyClaimsError(f"expected at most {CLAIMS_OPEN_MAX} claims that are good; withdraw some, or wait")


def _withdraw_open(connection: Connection, device: str, now_ms: int) -> None:
    unused = (claims.c.device == device) & claims.c.redeemed_ms.is_(None) & claims.c.withdrawn_ms.is_(None)
    connection.execute(update(claims).where(unused).values(withdrawn_ms=now_ms))
