"""Signed orders as files: what an agent in another language must read, check, obey and refuse.

``signing.json``: the signers that the device has, the bytes that a signature covers, and envelopes with what is to
become of each on a device that is ``device``, at ``now_ms``, and has obeyed ``last`` of each kind. The private keys
are there too, so that its own signer can be checked.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib import dsse
from securesystemslib.signer import CryptoSigner

from broker_config import signing
from broker_config.device_classes import SafetyClass
from broker_config.signing import PAYLOAD_TYPE, Kind, Refusal
from edge_agent import obeying
from edge_agent.obeying import Facts, Obey, Refuse
from edge_agent.verify import Check, Request, verified
from tests.orders import CAR, NOW_MS, ROOTS, SECOND, SERVER, SITE, STRANGER, claims, command, envelope, unable

VECTORS: Final = Path(__file__).parent / "vectors" / "signing.json"
LAST: Final = NOW_MS - 1_000
COMMANDS: Final = {"identify": SafetyClass.HARMLESS, "recording.start": SafetyClass.HAZARDOUS}
GOOD: Final = envelope(claims())
OTHER_BYTES: Final = msgspec.structs.replace(GOOD, payload=signing.encode(claims(counter=NOW_MS + 1)))
CASES: Final = {
    "obeyed": GOOD,
    "obeyed: a good signature beside one of a stranger": envelope(claims(), STRANGER, SERVER),
    Refusal.BAD_SIGNATURE: OTHER_BYTES,
    Refusal.UNKNOWN_KEY: envelope(claims(), STRANGER),
    Refusal.WRONG_SITE: envelope(claims(site="5f" * 32)),
    Refusal.NOT_FOR_THIS_DEVICE: envelope(claims(target="car-8")),
    Refusal.EXPIRED: envelope(claims(issued_ms=NOW_MS - 60_000, expires_ms=NOW_MS)),
    Refusal.NOT_YET: envelope(claims(issued_ms=NOW_MS + 30_001)),
    Refusal.REPLAYED: envelope(claims(counter=LAST)),
    Refusal.TOO_FEW_SIGNERS: envelope(claims(command("recording.start"))),
    Refusal.WRONG_KIND: envelope(claims({}, kind=Kind.TWIN)),
    Refusal.UNSUPPORTED: envelope(claims(command("recording.start")), SERVER, SECOND),
    Refusal.MALFORMED: msgspec.structs.replace(GOOD, payload_type="application/json"),
}


def facts() -> Facts:
    return Facts(CAR, ROOTS, COMMANDS, {Kind.COMMAND: LAST}, 0, NOW_MS, unable=unable)


def outcome(data: bytes) -> str:
    """By the device's own means."""
    order = obeying.read(data, Kind.COMMAND, ROOTS)
    if isinstance(order, Refuse):
        return order.reason
    right = verified(Request(order.signed, tuple(Check(*each) for each in order.candidates)))
    match obeying.decide(order, frozenset(right), facts()):
        case Obey():
            return "obeyed"
        case Refuse(reason, _):
            return reason


def test_orders_are_in_the_vectors_byte_for_byte(golden: Callable[[Path, str], None]) -> None:
    table = {
        "device": CAR,
        "site": SITE,
        "now_ms": NOW_MS,
        "last": LAST,
        "commands": COMMANDS,
        "private_keys": {key.keyid: key.private.private_bytes_raw().hex() for key in (SERVER, SECOND, STRANGER)},
        "signers_json": signing.encode(ROOTS).decode(),
        "payload_type": PAYLOAD_TYPE,
        "orders": [
            {
                "name": name,
                "outcome": name.partition(":")[0],
                "claims": made.payload.decode(),
                "signed_hex": signing.pre_authentication(made.payload_type, made.payload).hex(),
                "envelope": signing.encode(made).decode(),
            }
            for name, made in CASES.items()
        ],
    }
    golden(VECTORS, json.dumps(table, indent=2) + "\n")


def orders() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(VECTORS.read_text())["orders"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_the_orders_in_the_vectors(name: str) -> None:
    (order,) = (order for order in orders() if order["name"] == name)
    assert outcome(order["envelope"].encode()) == order["outcome"]


def test_no_bit_of_an_order_can_be_turned_so_that_something_else_is_obeyed() -> None:
    whole = bytearray(signing.encode(GOOD))
    obeyed = 0
    for at in range(len(whole)):
        for bit in range(8):
            whole[at] ^= 1 << bit
            order = obeying.read(bytes(whole), Kind.COMMAND, ROOTS)
            if not isinstance(order, Refuse) and outcome(bytes(whole)) == "obeyed":
                assert order.claims == claims()  # spare bits of base64, or a name that nobody reads
                obeyed += 1
            whole[at] ^= 1 << bit
    assert obeyed < 8


def test_the_signers_in_the_vectors_are_read() -> None:
    assert signing.decode_roots(json.loads(VECTORS.read_text())["signers_json"].encode()) == ROOTS


def test_another_library_signs_and_checks_the_same_envelopes() -> None:
    """securesystemslib, which is what TUF and in-toto have for it."""
    theirs = dsse.Envelope.from_dict(json.loads(signing.encode(GOOD)))
    assert theirs.pae() == signing.pre_authentication(GOOD.payload_type, GOOD.payload)
    signer = CryptoSigner(Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
    unsigned = dsse.Envelope(GOOD.payload, PAYLOAD_TYPE, {})
    signature = unsigned.sign(signer)
    assert bytes.fromhex(signature.signature) == GOOD.signatures[0].sig
    read = signing.decode_envelope(json.dumps(unsigned.to_dict()).encode())
    assert signing.decode_claims(read) == claims()
