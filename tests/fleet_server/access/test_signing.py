"""The signer signs what its own policy allows, whoever asks, and never counts back."""

from dataclasses import replace

import msgspec
import pytest

from broker_config import signing, topics
from broker_config.device_classes import SafetyClass
from broker_config.signing import ED25519, LIFETIME_MS_MAX, Kind, Refusal
from broker_config.topics import Down
from edge_agent import obeying
from edge_agent.obeying import Facts, Obey, Refuse
from edge_agent.verify import Check, verified
from edge_agent.verify import Request as CheckRequest
from fleet_server.access import orders
from fleet_server.access.signing import (
    BODY_BYTES_MAX,
    RESERVED,
    Issuer,
    Policy,
    RefusedError,
    Request,
    SignerError,
    State,
    command_request,
    decide,
    read_request,
)
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from tests.orders import CAR, NOW_MS, ROOTS, SECOND, SERVER, SITE, FixedKey, claims, command, unable

POLICY = Policy(SITE)
FULL = State(0, 10, 0)


def request(kind: Kind = Kind.COMMAND, *, lifetime_ms: int = 60_000, body: object = None) -> Request:
    raw = msgspec.Raw(msgspec.json.encode(command() if body is None else body))
    return Request(kind, CAR, lifetime_ms, raw)


def issuer(reserved: list[int], *, last: int = 0, policy: Policy = POLICY) -> Issuer:
    return Issuer(FixedKey(SERVER), policy, last=last, reserve=reserved.append)


def test_the_claims_are_the_signers_own() -> None:
    told, state = decide(request(), FULL, POLICY, now_ms=NOW_MS, mono_ms=0)
    assert told == claims()
    assert state == State(NOW_MS, 9, 0)


@pytest.mark.parametrize(
    ("asked", "policy", "why"),
    [
        (request(Kind.FIRMWARE, body={}), POLICY, "kind"),  # signed where no network reaches
        (request(), replace(POLICY, kinds=frozenset({Kind.TWIN})), "kind"),
        (request(), replace(POLICY, lifetime_ms_max=59_999), "lifetime"),
        (request(Kind.TWIN, body="x" * BODY_BYTES_MAX), POLICY, "body"),
        (request(body={"t": "command"}), POLICY, "body"),
        (request(body={"t": "command", "v": 1, "id": "1" * 16, "name": "rm -rf"}), POLICY, "body"),
    ],
)
def test_what_is_not_signed(asked: Request, policy: Policy, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        decide(asked, FULL, policy, now_ms=NOW_MS, mono_ms=0)


def test_signatures_are_bounded_in_number() -> None:
    state = State(0, 2, 0)
    for _ in range(2):
        _, state = decide(request(), state, POLICY, now_ms=NOW_MS, mono_ms=0)
    with pytest.raises(RefusedError, match="rate"):
        decide(request(), state, POLICY, now_ms=NOW_MS, mono_ms=1)
    decide(request(), state, POLICY, now_ms=NOW_MS, mono_ms=2)  # 500 a second


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"kind":"command","target":"*","lifetime_ms":1,"body":{}}',
        b'{"kind":"command","target":["car-7","car-8"],"lifetime_ms":1,"body":{}}',
        b'{"kind":"command","target":"car-7","lifetime_ms":0,"body":{}}',
        b'{"kind":"shell","target":"car-7","lifetime_ms":1,"body":{}}',
        b'{"kind":"command","target":"car-7","lifetime_ms":1,"body":{},"counter":7}',
    ],
)
def test_what_is_no_request(data: bytes) -> None:
    with pytest.raises(RefusedError, match="request"):
        read_request(data)


@pytest.mark.parametrize("lifetime_ms", [-1, 0, LIFETIME_MS_MAX + 1])
def test_a_command_needs_a_lifetime(lifetime_ms: int) -> None:
    with pytest.raises(RefusedError):
        command_request(CAR, command(), lifetime_ms=lifetime_ms)


def test_counters_grow_whatever_the_clock_does_and_are_durable_before_they_are_used() -> None:
    reserved: list[int] = []
    signer = issuer(reserved)
    used = []
    for now_ms in (NOW_MS, NOW_MS, NOW_MS - 86_400_000, NOW_MS + 5, NOW_MS + RESERVED, NOW_MS + RESERVED + 1):
        envelope = signer.sign(request(), now_ms=now_ms, mono_ms=0)
        used.append(signing.decode_claims(envelope).counter)
        assert used[-1] <= reserved[-1]
    assert used == sorted(set(used))
    assert len(reserved) == 2
    again = issuer(reserved, last=reserved[-1])
    later = signing.decode_claims(again.sign(request(), now_ms=NOW_MS, mono_ms=0)).counter
    assert later > used[-1]


def test_nothing_is_signed_while_the_counter_cannot_be_kept() -> None:
    def full(counter: int) -> None:
        raise OSError(28, "no space")

    signer = Issuer(FixedKey(SERVER), POLICY, last=0, reserve=full)
    with pytest.raises(SignerError, match="no space"):
        signer.sign(request(), now_ms=NOW_MS, mono_ms=0)


def decided(data: bytes, commands: dict[str, SafetyClass] | None = None) -> Refusal | None:
    """What the device says of it."""
    order = obeying.read(data, Kind.COMMAND, ROOTS)
    assert not isinstance(order, Refuse), order
    right = verified(CheckRequest(order.signed, tuple(Check(*each) for each in order.candidates)))
    facts = Facts(CAR, ROOTS, commands or {"identify": SafetyClass.HARMLESS}, {}, 0, NOW_MS, unable=unable)
    decision = obeying.decide(order, frozenset(right), facts)
    return None if isinstance(decision, Obey) else decision.reason


def test_what_it_signs_is_obeyed_and_what_is_hazardous_only_with_a_second_signature() -> None:
    envelope = issuer([]).sign(request(), now_ms=NOW_MS, mono_ms=0)
    assert decided(signing.encode(envelope)) is None
    hazardous = {"identify": SafetyClass.HAZARDOUS}
    assert decided(signing.encode(envelope), hazardous) is Refusal.TOO_FEW_SIGNERS
    second = SECOND.signature(envelope.payload)
    twice = msgspec.structs.replace(envelope, signatures=(*envelope.signatures, second))
    assert decided(signing.encode(twice), hazardous) is None


class Direct:
    """A signer without a process."""

    def sign(self, request: Request) -> bytes:
        return signing.encode(issuer([]).sign(request, now_ms=NOW_MS, mono_ms=0))


def test_an_order_is_said_where_its_device_listens() -> None:
    said: list[tuple[str, bytes]] = []
    envelope = orders.command(
        CAR, command(), lifetime_ms=60_000, signer=Direct(), publish=lambda topic, data: said.append((topic, data))
    )
    assert said == [(topics.down(CAR, Down.COMMAND), envelope)]
    assert decided(envelope) is None


def test_what_is_not_signed_is_not_said() -> None:
    class Refuses:
        def sign(self, request: Request) -> bytes:
            raise RefusedError("no")

    said: list[bytes] = []
    with pytest.raises(RefusedError):
        orders.command(
            CAR, command(), lifetime_ms=1, signer=Refuses(), publish=lambda _topic, data: said.append(data)
        )
    assert said == []


def test_a_keys_file_is_an_ed25519_key_or_refused() -> None:
    key = FileKey(new_key_pem())
    assert (key.algorithm, len(key.public), len(key.sign(b"x"))) == (ED25519, 32, 64)
    for pem in (b"", b"secret-looking", new_key_pem()[:60]):
        with pytest.raises(SignerError) as refused:
            FileKey(pem)
        assert "secret" not in str(refused.value)
