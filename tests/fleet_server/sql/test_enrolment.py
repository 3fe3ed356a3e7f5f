"""A claim is good once, for one device, for a while; what was issued is known for ever. On both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count

import pytest
from sqlalchemy import Engine, text

from fleet_server.access.enrolment import Certificate, Claim, ClaimError, RenewalError, SharedKeyError, claim_digest
from fleet_server.access.states import Reason, State
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.enrolment import SqlEnrolments

CODE = "ffc_" + "a" * 32
AT_ONCE = 50
_numbers = count(1)


@pytest.fixture
def enrolments(engine: Engine) -> SqlEnrolments:
    database.migrate(engine)
    return SqlEnrolments(engine)


def issued(device: str, *, key: str | None = None, ends_ms: int = 1_000_000) -> Certificate:
    number = next(_numbers)
    return Certificate(f"{number:032x}", device, f"fingerprint {number}", key or f"key {number}", 1_000, ends_ms)


def claimed(enrolments: SqlEnrolments, claim: str = "c1", device: str = "car-7", code: str = CODE) -> None:
    enrolments.add_claims([(Claim(claim, device, "operator", 1_000, 5_000), claim_digest(code))])


def redeemed(enrolments: SqlEnrolments, code: str = CODE, now_ms: int = 2_000) -> Certificate:
    return enrolments.redeem(claim_digest(code), issued, now_ms=now_ms)


def anything(_kept: Certificate) -> None:
    pass


def test_of_fifty_at_once_one_gets_the_certificate(enrolments: SqlEnrolments) -> None:
    claimed(enrolments)

    def attempt(_: int) -> str | None:
        try:
            return redeemed(enrolments).serial
        except ClaimError:
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        won = [serial for serial in pool.map(attempt, range(AT_ONCE)) if serial is not None]
    assert len(won) == 1
    assert [each.serial for each in enrolments.certificates("car-7")] == won
    assert [claim.serial for claim in enrolments.claims(device="car-7", after="", rows_max=9)] == won


def test_no_code_is_in_the_database(enrolments: SqlEnrolments, engine: Engine) -> None:
    claimed(enrolments)
    with engine.connect() as connection:
        kept = repr(connection.execute(text("SELECT * FROM claim")).all())
    assert CODE not in kept
    assert CODE.removeprefix("ffc_") not in kept


def test_a_claim_ends_by_itself_and_by_withdrawal_and_by_the_next(enrolments: SqlEnrolments) -> None:
    claimed(enrolments)
    with pytest.raises(ClaimError, match="expired"):
        redeemed(enrolments, now_ms=5_000)
    assert enrolments.withdraw("c1", now_ms=1_500).withdrawn_ms == 1_500
    assert enrolments.withdraw("c1", now_ms=1_700).withdrawn_ms == 1_500
    with pytest.raises(ClaimError, match="withdrawn"):
        redeemed(enrolments)
    claimed(enrolments, "c2", code="ffc_" + "b" * 32)
    claimed(enrolments, "c3", code="ffc_" + "c" * 32)
    with pytest.raises(ClaimError, match="withdrawn"):
        redeemed(enrolments, "ffc_" + "b" * 32)
    assert redeemed(enrolments, "ffc_" + "c" * 32).device == "car-7"
    with pytest.raises(ClaimError, match="used already"):
        redeemed(enrolments, "ffc_" + "c" * 32)
    with pytest.raises(ClaimError, match="no such claim"):
        redeemed(enrolments, "ffc_" + "z" * 32)
    with pytest.raises(ClaimError, match="no claim c9"):
        enrolments.withdraw("c9", now_ms=1)


def test_what_is_refused_uses_no_claim_up(enrolments: SqlEnrolments) -> None:
    claimed(enrolments)
    taken = redeemed(enrolments)
    claimed(enrolments, "c2", "car-8", "ffc_" + "b" * 32)
    with pytest.raises(SharedKeyError):
        enrolments.redeem(
            claim_digest("ffc_" + "b" * 32), lambda device: issued(device, key=taken.key_digest), now_ms=2_000
        )

    def refuse(_device: str) -> Certificate:
        raise RenewalError("no")

    with pytest.raises(RenewalError):
        enrolments.redeem(claim_digest("ffc_" + "b" * 32), refuse, now_ms=2_000)
    assert redeemed(enrolments, "ffc_" + "b" * 32).device == "car-8"


def states(enrolments: SqlEnrolments) -> dict[str, State]:
    return {each.serial: each.state for each in enrolments.certificates("car-7")}


def test_a_renewal_leaves_the_old_one_good_until_the_new_one_renews(enrolments: SqlEnrolments) -> None:
    claimed(enrolments)
    first = redeemed(enrolments)
    # its answer was lost: it is never used
    lost = enrolments.renew(first.serial, anything, issued, now_ms=3_000)
    second = enrolments.renew(first.serial, anything, issued, now_ms=4_000)
    assert states(enrolments) == {
        first.serial: State.ACTIVE,
        lost.serial: State.SUPERSEDED,
        second.serial: State.ACTIVE,
    }
    third = enrolments.renew(second.serial, anything, issued, now_ms=5_000)
    assert states(enrolments)[first.serial] is State.SUPERSEDED
    assert states(enrolments)[third.serial] is State.ACTIVE
    kept = enrolments.certificate(first.serial)
    assert kept is not None
    assert kept.connected_ms == 3_000
    with pytest.raises(RenewalError):
        enrolments.renew("0" * 32, anything, issued, now_ms=5_000)


def test_a_device_that_is_enrolled_again_has_one_identity(enrolments: SqlEnrolments) -> None:
    claimed(enrolments)
    first = redeemed(enrolments)
    claimed(enrolments, "c2", code="ffc_" + "b" * 32)
    second = redeemed(enrolments, "ffc_" + "b" * 32)
    assert states(enrolments) == {first.serial: State.SUPERSEDED, second.serial: State.ACTIVE}


def test_revocation_takes_all_of_a_device_and_its_claims(enrolments: SqlEnrolments) -> None:
    claimed(enrolments)
    first = redeemed(enrolments)
    second = enrolments.renew(first.serial, anything, issued, now_ms=3_000)
    claimed(enrolments, "c2", code="ffc_" + "b" * 32)
    claimed(enrolments, "c3", "car-8", "ffc_" + "c" * 32)
    other = redeemed(enrolments, "ffc_" + "c" * 32)
    done = enrolments.revoke("car-7", Reason.STOLEN, now_ms=4_000)
    assert {each.serial for each in done} == {first.serial, second.serial}
    assert {(each.state, each.reason, each.revoked_ms) for each in done} == {(State.REVOKED, Reason.STOLEN, 4_000)}
    with pytest.raises(ClaimError, match="withdrawn"):
        redeemed(enrolments, "ffc_" + "b" * 32)
    assert {each.serial for each in enrolments.revoked(now_ms=5_000)} == {first.serial, second.serial}
    assert enrolments.revoked(now_ms=1_000_000) == []
    again = enrolments.revoke("car-7", Reason.LOST, now_ms=6_000)
    assert {each.reason for each in again} == {Reason.STOLEN}
    kept = enrolments.certificate(other.serial)
    assert kept is not None
    assert kept.state is State.ACTIVE


def test_a_renewal_and_a_revocation_at_once_leave_nothing_good(enrolments: SqlEnrolments) -> None:
    claimed(enrolments)
    first = redeemed(enrolments)

    def only_active(kept: Certificate) -> None:
        if kept.state is not State.ACTIVE:
            raise RenewalError("revoked")

    def renew() -> None:
        enrolments.renew(first.serial, only_active, issued, now_ms=3_000)

    def revoke() -> None:
        enrolments.revoke("car-7", Reason.LOST, now_ms=3_000)

    def tolerant(do: Callable[[], None]) -> None:
        with suppress(RenewalError):
            do()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tolerant, [renew, renew, renew, revoke, renew, renew, renew]))
    assert set(states(enrolments).values()) == {State.REVOKED}
