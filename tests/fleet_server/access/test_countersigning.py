"""A second person signs what the signer signed, all of it readable, once, and while it counts."""

from dataclasses import dataclass

import msgspec
import pytest

from broker_config import signing
from broker_config.device_classes import SafetyClass
from broker_config.signing import ED25519, SIGNERS_MAX, Envelope, Kind, Refusal, Roots
from edge_agent import obeying
from edge_agent.obeying import Facts, Obey, Refuse
from edge_agent.verify import Check, verified
from edge_agent.verify import Request as CheckRequest
from fleet_server.access import countersigning
from fleet_server.access.countersigning import countersign, public_text, read, read_public
from fleet_server.access.signers import with_signer
from fleet_server.access.signing import RefusedError
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
    envelope,
    signer,
    unable,
)

COMMAND = frozenset({Kind.COMMAND})
ALONE = Roots(1, 1, SITE, (signer(SERVER),))


@dataclass(frozen=True)
class Own:
    """A person's key."""

    key: Key
    algorithm: str = ED25519

    @property
    def public(self) -> bytes:
        return self.key.public

    def sign(self, data: bytes) -> bytes:
        return self.key.private.sign(data)


def decided(signed: Envelope, roots: Roots) -> Refusal | None:
    """What a device says of it that holds ``identify`` hazardous; None: it obeys."""
    order = obeying.read(signing.encode(signed), Kind.COMMAND, roots)
    assert not isinstance(order, Refuse), order
    right = verified(CheckRequest(order.signed, tuple(Check(*each) for each in order.candidates)))
    facts = Facts(CAR, roots, {"identify": SafetyClass.HAZARDOUS}, {}, 0, NOW_MS, unable=unable)
    decision = obeying.decide(order, frozenset(right), facts)
    return None if isinstance(decision, Obey) else decision.reason


def test_a_device_obeys_what_is_hazardous_only_once_an_added_person_has_signed() -> None:
    roots = with_signer(ALONE, SECOND.public, COMMAND)
    assert (roots.version, roots.signers[-1]) == (2, signer(SECOND, Kind.COMMAND))
    order = envelope(claims())
    assert decided(order, roots) is Refusal.TOO_FEW_SIGNERS
    signed = countersign(order, roots, Own(SECOND), now_ms=NOW_MS)
    assert signed.payload == order.payload
    assert signed.signatures[0] == order.signatures[0]
    assert decided(signed, roots) is None
    assert decided(signed, ALONE) is Refusal.TOO_FEW_SIGNERS  # the device has to know the person


def test_what_is_read_is_what_was_signed() -> None:
    told = claims(command("recording.start"))
    assert read(envelope(told), ROOTS, now_ms=NOW_MS) == (told, command("recording.start"), (SERVER.keyid,))
    twin = claims({"a": 1}, kind=Kind.TWIN)
    assert read(envelope(twin), ROOTS, now_ms=NOW_MS).command is None


@pytest.mark.parametrize(
    ("order", "key", "expected"),
    [
        (envelope(claims()), STRANGER, "no signer of version 1"),
        (envelope(claims()), SERVER, "another person"),
        (envelope(claims({}, kind=Kind.TWIN)), SECOND, "may sign command, not twin"),
        (envelope(claims(), STRANGER), SECOND, "none that is right"),
        (envelope(claims(at_ms=NOW_MS - 60_000)), SECOND, "expired 0 ms ago"),
        (envelope(claims(site="5f" * 32)), SECOND, "site: expected 5e5e5e5e, got 5f5f5f5f"),
        (envelope(claims({"not": "a command"})), SECOND, "order: "),
        (msgspec.structs.replace(envelope(claims()), payload_type="text/plain"), SECOND, "payload type"),
    ],
)
def test_it_is_refused(order: Envelope, key: Key, expected: str) -> None:
    with pytest.raises(RefusedError, match=expected):
        countersign(order, ROOTS, Own(key), now_ms=NOW_MS)


def test_a_changed_order_is_refused_and_a_wrong_signature_beside_a_right_one_is_left_out() -> None:
    changed = msgspec.structs.replace(envelope(claims()), payload=signing.encode(claims(command("recording.start"))))
    with pytest.raises(RefusedError, match="none that is right"):
        countersign(changed, ROOTS, Own(SECOND), now_ms=NOW_MS)
    order = envelope(claims())
    forged = STRANGER.signature(order.payload, keyid=SECOND.keyid)
    both = msgspec.structs.replace(order, signatures=(forged, *order.signatures))
    assert both.signatures[0].keyid == SECOND.keyid
    signed = countersign(both, ROOTS, Own(SECOND), now_ms=NOW_MS)
    assert signed.signatures == (*order.signatures, SECOND.signature(order.payload))


def test_a_key_is_added_once_and_within_the_bound() -> None:
    roots = with_signer(ALONE, SECOND.public, COMMAND)
    with pytest.raises(RefusedError, match="there already"):
        with_signer(roots, SECOND.public, COMMAND)
    with pytest.raises(RefusedError, match="expected some of"):
        with_signer(ALONE, SECOND.public, frozenset())
    full = Roots(1, 1, SITE, tuple(signer(Key.of(seed)) for seed in range(10, 10 + SIGNERS_MAX)))
    with pytest.raises(RefusedError, match=f"at most {SIGNERS_MAX}"):
        with_signer(full, SECOND.public, COMMAND)


def test_a_public_key_as_text() -> None:
    assert read_public(public_text(SECOND.public)) == SECOND.public
    for text in ("", SECOND.public.hex(), public_text(b"short"), countersigning.PUBLIC_PREFIX + "!" * 44, "é"):
        with pytest.raises(RefusedError, match="ed25519:, then 32 bytes in base64"):
            read_public(text)


def test_the_order_says_which_it_is() -> None:
    order = read(envelope(claims()), ROOTS, now_ms=NOW_MS)
    assert order.command is not None
    assert order.command.id == ID
