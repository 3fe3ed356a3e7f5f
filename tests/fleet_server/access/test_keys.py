import hashlib
import hmac
import json
from itertools import product

import pytest

from broker_config.ids import device_id
from broker_config.mac import Purpose
from fleet_server.access.keys import BadMasterKeyError, MasterKey, derive, device_keys_json

MASTER = MasterKey(bytes(range(32)))
CAR_7 = device_id("car-7")


def hkdf_sha256_one_block(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with an empty salt and 32 bytes of output, written out."""
    extracted = hmac.digest(b"\0" * 32, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def test_keys_are_hkdf_sha256_with_an_empty_salt() -> None:
    key = derive(MASTER, Purpose.RECEIPT, CAR_7)
    assert key.secret == hkdf_sha256_one_block(MASTER.secret, b"ff/1/receipt/car-7")


def test_the_kid_is_public_and_says_nothing_of_the_key() -> None:
    assert MASTER.kid == hashlib.sha256(MASTER.secret).hexdigest()[:8] == derive(MASTER, Purpose.TIME, CAR_7).kid


def test_no_two_devices_or_purposes_share_a_key() -> None:
    devices = [device_id(name) for name in ("car-7", "car-70", "7")]
    assert len({derive(MASTER, purpose, device).secret for purpose, device in product(Purpose, devices)}) == 6


def test_the_devices_file_holds_its_keys_and_no_others() -> None:
    assert json.loads(device_keys_json(MASTER, CAR_7)) == {
        "kid": MASTER.kid,
        "receipt": derive(MASTER, Purpose.RECEIPT, CAR_7).secret.hex(),
        "time": derive(MASTER, Purpose.TIME, CAR_7).secret.hex(),
    }


def test_a_master_key_survives_its_file() -> None:
    made = MasterKey.new()
    assert MasterKey.parse(made.text()) == made
    assert made != MasterKey.new()


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "0" * 63, "G" * 64, "AA" * 32, "00" * 32 + "\n\n", "\n"])
def test_what_is_no_master_key_is_refused_and_never_shown(text: str) -> None:
    with pytest.raises(BadMasterKeyError, match=r"expected 64 hex digits on one line$"):
        MasterKey.parse(text)


def test_the_secret_does_not_show_in_a_repr() -> None:
    assert repr(MASTER) == "MasterKey()"
