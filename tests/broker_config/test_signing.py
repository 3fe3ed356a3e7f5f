"""What is no envelope, claims or signers of the contract is told as such, whatever it is."""

import base64
import json

import msgspec
import pytest

from broker_config import signing
from broker_config.device_classes import SafetyClass
from broker_config.signing import (
    ENVELOPE_BYTES_MAX,
    LIFETIME_MS_MAX,
    PAYLOAD_TYPE,
    BadEnvelopeError,
    Envelope,
    Kind,
    Roots,
    Signature,
    Thresholds,
    TooLargeError,
)
from tests.orders import CAR, NOW_MS, ROOTS, SECOND, SERVER, SITE, STRANGER, claims, command, envelope, order, signer


def test_an_order_comes_back_as_it_was_signed() -> None:
    read = signing.decode_envelope(order(claims()))
    found = signing.decode_claims(read)
    assert (found.kind, found.target, found.site, found.counter) == (Kind.COMMAND, CAR, SITE, NOW_MS)
    assert signing.decode_command(found) == command()


def test_every_truncation_is_refused() -> None:
    whole = order(claims())
    for length in range(len(whole)):
        with pytest.raises(BadEnvelopeError):
            signing.decode_envelope(whole[:length])


NESTED = b"[" * 60_000
TEXT = json.loads(order(claims()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        NESTED,
        b'{"payload":' + NESTED,
        b'{"payload":"","payloadType":"x","signatures":[{"keyid":"k","sig":"eA=="}],"more":' + NESTED,
        b'{"payload":"","payloadType":"x","signatures":[{"keyid":"k","sig":"eA=="}],"more":' + NESTED + b"]" * 60_000,
        json.dumps(TEXT | {"signatures": []}).encode(),  # stripped
        json.dumps(TEXT | {"signatures": None}).encode(),
        json.dumps(TEXT | {"signatures": TEXT["signatures"] * 9}).encode(),
        json.dumps(TEXT | {"payload": "no base64!"}).encode(),
        json.dumps(TEXT | {"payload": TEXT["payload"] + "="}).encode(),
        json.dumps(TEXT | {"payload": 7}).encode(),
        json.dumps(TEXT | {"payloadType": "x" * 129}).encode(),
    ],
    ids=range(16),
)
def test_what_is_no_envelope(data: bytes) -> None:
    with pytest.raises(BadEnvelopeError):
        signing.decode_envelope(data)


def test_a_byte_too_many_is_not_read() -> None:
    with pytest.raises(TooLargeError):
        signing.decode_envelope(b" " * (ENVELOPE_BYTES_MAX + 1))


GOOD = json.loads(signing.encode(claims()))
BYTES = signing.encode(claims())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        NESTED,
        json.dumps(GOOD).encode(),  # with blanks
        BYTES + b" ",
        BYTES.replace(b'"v":1', b'"v":1,"v":1'),
        BYTES.replace(b'"target":"car-7"', b'"target":"car-8","target":"car-7"'),
        BYTES[:-1] + b',"more":1}',
        BYTES.replace(b'"claims"', b'"birth"'),
        BYTES.replace(b'"v":1,"kind"', b'"v":2,"kind"'),
        BYTES.replace(b'"command","site"', b'"shell","site"'),
        BYTES.replace(b"car-7", b"Car 7"),
        BYTES.replace(b"car-7", b"car-7\\n"),
        signing.encode(claims(counter=0)),
        signing.encode(claims(counter=2**53)),
        signing.encode(claims(issued_ms=-1)),
        signing.encode(claims(expires_ms=NOW_MS)),  # expired when it was issued
        signing.encode(claims(expires_ms=NOW_MS + LIFETIME_MS_MAX + 1)),
        signing.encode(claims(site="5e" * 31)),
    ],
    ids=range(19),
)
def test_what_is_no_claims(payload: bytes) -> None:
    assert signing.decode_claims(Envelope(BYTES, PAYLOAD_TYPE, ()))
    with pytest.raises(BadEnvelopeError):
        signing.decode_claims(Envelope(payload, PAYLOAD_TYPE, ()))


def test_another_payload_type_is_another_protocols() -> None:
    with pytest.raises(BadEnvelopeError, match="payload type"):
        signing.decode_claims(Envelope(BYTES, "application/json", ()))


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"{}",
        signing.encode(command()).replace(b'"v":1', b'"v":1,"shell":"x"'),
        signing.encode(command("IDENTIFY")),
        signing.encode(command(order_id="1")),
        signing.encode(command()).replace(b'"parameters":{}', b'"parameters":{"a":{"b":1}}'),
        signing.encode(command()).replace(b'"parameters":{}', b'"parameters":{"a":1e400}'),
    ],
)
def test_what_is_no_command(body: bytes) -> None:
    with pytest.raises(BadEnvelopeError):
        signing.decode_command(msgspec.structs.replace(claims(), body=msgspec.Raw(body)))


def test_only_the_first_signature_of_a_key_that_may_sign_the_kind_is_worth_a_check() -> None:
    read = envelope(claims(), STRANGER, SERVER, SECOND)
    again = replace_signatures(read, (*read.signatures, Signature(SERVER.keyid, b"later")))
    found = signing.candidates(again, ROOTS, Kind.COMMAND)
    assert [(each.keyid, each.sig) for each in found] == [(s.keyid, s.sig) for s in read.signatures[1:]]
    assert [each.keyid for each in signing.candidates(read, ROOTS, Kind.TWIN)] == [SERVER.keyid]


def test_an_algorithm_that_is_not_known_makes_no_signature() -> None:
    keyid = signing.key_id("sm2-sm3", SERVER.public)
    roots = Roots(1, 1, SITE, (signing.Signer(keyid, "sm2-sm3", SERVER.public, ("command",)),))
    read = replace_signatures(envelope(claims()), (Signature(keyid, b"x"),))
    assert signing.candidates(read, signing.decode_roots(signing.encode(roots)), Kind.COMMAND) == ()


def test_signers_are_refused_if_one_key_could_count_twice_or_is_called_otherwise() -> None:
    twice = signing.encode(ROOTS).replace(SECOND.keyid.encode(), SERVER.keyid.encode())
    with pytest.raises(BadEnvelopeError, match="expected"):
        signing.decode_roots(twice)
    with pytest.raises(ValueError, match="twice"):
        Roots(1, 1, SITE, (signer(SERVER), signer(SERVER)))


def test_what_is_hazardous_always_needs_two() -> None:
    with pytest.raises(BadEnvelopeError):
        signing.decode_roots(signing.encode(ROOTS).replace(b'"hazardous":2', b'"hazardous":1'))
    assert [Thresholds().of(each) for each in SafetyClass] == [1, 1, 2]


def test_what_a_class_does_not_say_is_hazardous() -> None:
    known = {"restart": SafetyClass.DISRUPTIVE}
    assert signing.safety_of(command("restart"), known) is SafetyClass.DISRUPTIVE
    assert signing.safety_of(command("wipe"), known) is SafetyClass.HAZARDOUS
    assert signing.safety_of(None, known) is SafetyClass.DISRUPTIVE


def replace_signatures(read: Envelope, signatures: tuple[Signature, ...]) -> Envelope:
    return msgspec.structs.replace(read, signatures=signatures)


def test_base64_of_the_envelope_is_the_usual_one() -> None:
    text = json.loads(order(claims()))
    assert base64.b64decode(text["payload"], validate=True) == BYTES
