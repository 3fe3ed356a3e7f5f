"""Unknown is no: an order is obeyed only if everything about it is known to be right."""

from dataclasses import replace

import msgspec
import pytest

from broker_config import signing
from broker_config.device_classes import SafetyClass
from broker_config.signing import Kind, Refusal, Roots, Thresholds
from edge_agent import obeying
from edge_agent.obeying import TELL_EVERY_MS, Facts, Obey, Order, Refuse
from tests.orders import (
    CAR,
    ID,
    NOW_MS,
    ROOTS,
    SECOND,
    SERVER,
    SITE,
    STRANGER,
    Key,
    claims,
    command,
    order,
    signer,
    unable,
)

FACTS = Facts(
    CAR,
    ROOTS,
    {"identify": SafetyClass.HARMLESS, "wipe": SafetyClass.HAZARDOUS},
    {},
    0,
    NOW_MS,
    unable=unable,
)


def read(told: signing.Claims, *keys: Key, channel: Kind = Kind.COMMAND) -> Order:
    found = obeying.read(order(told, *keys), channel, ROOTS)
    assert isinstance(found, Order), found
    return found


def decided(told: signing.Claims, facts: Facts = FACTS, *keys: Key) -> Refusal | None:
    """With every signature right. None: obeyed."""
    found = read(told, *keys, channel=told.kind)
    match obeying.decide(found, found.keyids, facts):
        case Obey():
            assert obeying.hopeless(found, facts) is None
            return None
        case Refuse() as refused:
            assert obeying.hopeless(found, facts) == refused
            return refused.reason


def test_what_is_right_is_obeyed() -> None:
    found = read(claims())
    assert obeying.decide(found, found.keyids, FACTS) == Obey(claims(), command())


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (claims(site="5f" * 32), Refusal.WRONG_SITE),
        (claims(target="car-8"), Refusal.NOT_FOR_THIS_DEVICE),
        (claims(at_ms=NOW_MS - 59_999), None),
        (claims(at_ms=NOW_MS - 60_000), Refusal.EXPIRED),
        (claims(at_ms=NOW_MS + 30_000), None),
        (claims(at_ms=NOW_MS + 30_001), Refusal.NOT_YET),
        (claims(counter=NOW_MS + 86_400_000), None),
        (claims(counter=NOW_MS + 86_400_001), Refusal.NOT_YET),  # it would lock out every later order
        (claims(command("reboot")), Refusal.TOO_FEW_SIGNERS),  # what the class does not know is hazardous
        (claims(command("wipe")), Refusal.TOO_FEW_SIGNERS),
        (claims({}, kind=Kind.TWIN), Refusal.UNSUPPORTED),
        (claims({}, kind=Kind.FIRMWARE), Refusal.UNSUPPORTED),
    ],
)
def test_who_when_and_what(told: signing.Claims, reason: Refusal | None) -> None:
    assert decided(told) is reason


@pytest.mark.parametrize(
    ("last", "floor", "reason"),
    [
        ({}, 0, None),
        ({Kind.COMMAND: NOW_MS - 1}, 0, None),
        ({Kind.COMMAND: NOW_MS}, 0, Refusal.REPLAYED),
        ({Kind.COMMAND: NOW_MS + 1}, 0, Refusal.REPLAYED),
        ({Kind.TWIN: NOW_MS + 1}, 0, None),  # each kind counts for itself
        ({}, NOW_MS, Refusal.REPLAYED),
        ({}, None, Refusal.NOT_KEPT),
    ],
)
def test_a_counter_counts_once(last: dict[Kind, int], floor: int | None, reason: Refusal | None) -> None:
    assert decided(claims(), replace(FACTS, last=last, floor=floor)) is reason


def test_without_a_time_that_somebody_vouches_for_nothing_is_obeyed() -> None:
    assert decided(claims(), replace(FACTS, now_ms=None)) is Refusal.CLOCK_NOT_SET


def test_without_signers_nothing_is_obeyed() -> None:
    assert obeying.read(order(claims()), Kind.COMMAND, None) == Refuse(Refusal.UNKNOWN_KEY, ID)
    assert decided(claims(), replace(FACTS, roots=None)) is Refusal.UNKNOWN_KEY


def test_what_is_hazardous_needs_two_different_signers_that_are_right() -> None:
    told = claims(command("wipe"))
    assert decided(told, FACTS, SERVER, SERVER) is Refusal.TOO_FEW_SIGNERS
    assert decided(told, FACTS, SERVER, STRANGER) is Refusal.TOO_FEW_SIGNERS
    assert decided(told, FACTS, SERVER, SECOND) is Refusal.UNSUPPORTED  # enough, and this device cannot
    both = read(told, SERVER, SECOND)
    decision = obeying.decide(both, frozenset({SERVER.keyid}), FACTS)
    assert decision == Refuse(Refusal.TOO_FEW_SIGNERS, ID)


def test_thresholds_are_the_devices_own() -> None:
    roots = Roots(1, 2, SITE, (signer(SERVER), signer(SECOND)), Thresholds(harmless=2))
    assert decided(claims(), replace(FACTS, roots=roots), SERVER) is Refusal.TOO_FEW_SIGNERS
    assert decided(claims(), replace(FACTS, roots=roots), SERVER, SECOND) is None


def test_a_signature_that_nobody_checked_counts_for_nothing() -> None:
    assert obeying.decide(read(claims()), frozenset(), FACTS) == Refuse(Refusal.BAD_SIGNATURE, ID)
    other = frozenset({STRANGER.keyid, SECOND.keyid})
    assert obeying.decide(read(claims()), other, FACTS) == Refuse(Refusal.BAD_SIGNATURE, ID)


@pytest.mark.parametrize(
    ("data", "channel", "reason"),
    [
        (b"", Kind.COMMAND, Refusal.MALFORMED),
        (b" " * (signing.ENVELOPE_BYTES_MAX + 1), Kind.COMMAND, Refusal.TOO_LARGE),
        (order(claims({"t": "command"})), Kind.COMMAND, Refusal.MALFORMED),
        (order(claims({}, kind=Kind.TWIN)), Kind.COMMAND, Refusal.WRONG_KIND),
        (order(claims()), Kind.TWIN, Refusal.WRONG_KIND),
        (order(claims(), STRANGER), Kind.COMMAND, Refusal.UNKNOWN_KEY),
        (order(claims({}, kind=Kind.TWIN), SECOND), Kind.TWIN, Refusal.UNKNOWN_KEY),  # it may sign commands only
    ],
)
def test_what_is_not_even_taken_apart(data: bytes, channel: Kind, reason: Refusal) -> None:
    found = obeying.read(data, channel, ROOTS)
    assert isinstance(found, Refuse)
    assert found.reason is reason


def test_every_reason_is_one_the_wire_can_carry() -> None:
    assert all(msgspec.json.decode(msgspec.json.encode(reason), type=Refusal) is reason for reason in Refusal)


def test_refusals_are_told_once_a_reason_and_minute_and_none_is_lost_count_of() -> None:
    refusals = obeying.Refusals()
    told = []
    for at_ms in range(0, 5 * TELL_EVERY_MS, 10):
        refusals.add(Refusal.EXPIRED)
        told += list(refusals.due(at_ms).items())
    told += list(refusals.due(5 * TELL_EVERY_MS - 1, everything=True).items())
    assert len(told) == 6
    assert told[0] == (Refusal.EXPIRED, 1)
    assert sum(count for _, count in told) == 5 * TELL_EVERY_MS // 10


def test_one_reason_does_not_hide_another() -> None:
    refusals = obeying.Refusals()
    refusals.add(Refusal.EXPIRED)
    assert refusals.due(0) == {Refusal.EXPIRED: 1}
    refusals.add(Refusal.EXPIRED)
    refusals.add(Refusal.REPLAYED)
    assert refusals.due(1) == {Refusal.REPLAYED: 1}
