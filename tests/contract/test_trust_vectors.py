"""Changes of the signers as files: what an agent in another language must follow, and what it must refuse.

``trust.json``: the version that the device has, and steps with the version that it has after each alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from broker_config import signing, trust
from broker_config.enrolment import trust_proof
from broker_config.signing import PAYLOAD_TYPE, BadEnvelopeError, Roots
from broker_config.trust import STEP_TYPE
from edge_agent import obeying
from edge_agent.obeying import Refuse
from edge_agent.verify import Check, Request, verified
from tests.orders import SECOND, SERVER, STRANGER, signer
from tests.steps import OTHER_ROOT, ROOT, ROOTS, THREE, TWO, after, changer, step

VECTORS: Final = Path(__file__).parent / "vectors" / "trust.json"
NONCE: Final = "00" * 8
LAST: Final = after(THREE, signers=(signer(SERVER), changer(ROOT), changer(OTHER_ROOT)))
STOLEN: Final = after(ROOTS, signers=(changer(STRANGER),))
CASES: Final[dict[str, tuple[Roots, bytes, int]]] = {
    "another signer": (ROOTS, step(TWO, ROOT), 2),
    "a good signature beside a stranger's": (ROOTS, step(TWO, STRANGER, ROOT), 2),
    "both whom the new version needs": (TWO, step(THREE, ROOT, OTHER_ROOT), 3),
    "a signer less": (THREE, step(LAST, OTHER_ROOT, ROOT), 4),
    "by no key of the version before": (ROOTS, step(TWO, STRANGER), 1),
    "by whoever orders": (ROOTS, step(TWO, SERVER), 1),
    "all keys are another's": (ROOTS, step(STOLEN, STRANGER), 1),
    "by the old keys, and not by the new ones": (ROOTS, step(STOLEN, ROOT), 1),
    "too few for the new version": (TWO, step(THREE, ROOT), 2),
    "too few for the version before": (THREE, step(LAST, ROOT), 3),
    "one signs twice": (THREE, step(LAST, ROOT, ROOT), 3),
    "the same version again": (TWO, step(TWO, ROOT), 2),
    "the version before": (THREE, step(TWO, ROOT, OTHER_ROOT), 3),
    "a version is skipped": (ROOTS, step(THREE, ROOT, OTHER_ROOT), 1),
    "another site's": (ROOTS, step(after(ROOTS, site="5f" * 32), ROOT), 1),
    "nobody could change it any more": (ROOTS, step(after(ROOTS, thresholds=signing.Thresholds()), ROOT), 1),
    "nobody may change the version before": (
        after(ROOTS, thresholds=signing.Thresholds(), version=1), step(TWO, ROOT), 1,
    ),
    "as an order": (ROOTS, step(TWO, ROOT, payload_type=PAYLOAD_TYPE), 1),
}  # fmt: skip


def followed(roots: Roots, data: bytes) -> Roots:
    """By the device's own means."""
    try:
        read = trust.read_step(data)
        checks = tuple(Check(*each) for each in trust.candidates(read, roots))
        return trust.check_step(roots, read, frozenset(verified(Request(read.signed, checks))))
    except BadEnvelopeError:
        return roots


def test_steps_are_in_the_vectors_byte_for_byte(golden: Callable[[Path, str], None]) -> None:
    keys = (SERVER, SECOND, STRANGER, ROOT, OTHER_ROOT)
    table = {
        "payload_type": STEP_TYPE,
        "private_keys": {key.keyid: key.private.private_bytes_raw().hex() for key in keys},
        "proof": {
            "nonce": "00" * 8,
            "version": 3,
            "kid": "630dcd29",
            "hex": trust_proof("00" * 8, 3, "630dcd29").hex(),
        },
        "steps": [
            {"name": name, "signers_json": signing.encode(roots).decode(), "step": data.decode(), "version": version}
            for name, (roots, data, version) in CASES.items()
        ],
    }
    golden(VECTORS, json.dumps(table, indent=2) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_the_steps_in_the_vectors(name: str) -> None:
    (case,) = (case for case in json.loads(VECTORS.read_text())["steps"] if case["name"] == name)
    before = signing.decode_roots(case["signers_json"].encode())
    now = followed(before, case["step"].encode())
    assert now.version == case["version"]
    assert (now == before) is (before.version == case["version"])


def test_no_bit_of_a_step_can_be_turned_so_that_other_signers_count() -> None:
    whole = bytearray(step(TWO, ROOT))
    for at in range(len(whole)):
        for bit in range(8):
            whole[at] ^= 1 << bit
            assert followed(ROOTS, bytes(whole)) in {ROOTS, TWO}
            whole[at] ^= 1 << bit


def test_a_step_is_no_order_whoever_signs_it() -> None:
    for data in (step(TWO, ROOT, SERVER), step(TWO, ROOT, SERVER, payload_type=PAYLOAD_TYPE)):
        assert isinstance(obeying.read(data, signing.Kind.COMMAND, ROOTS), Refuse)


def test_signers_of_before_stay_readable_and_nobody_may_change_them() -> None:
    old = signing.decode_roots(json.loads((VECTORS.parent / "signing.json").read_text())["signers_json"].encode())
    assert old.changed_by == 0
    with pytest.raises(trust.StepError, match="has to enrol again"):
        trust.check_follows(old, after(old))
