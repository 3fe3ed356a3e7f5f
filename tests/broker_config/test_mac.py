import hashlib
import hmac

import pytest

from broker_config.ids import device_id
from broker_config.mac import PROPERTY_KID, PROPERTY_MAC, MacKey, Purpose, authentic, key_info, mac

KEY = MacKey("0badc0de", bytes(range(32)))
TOPIC = "ff/1/4b/car-7/dn/receipt"
PAYLOAD = b'{"t":"receipt"}'


def properties(**changed: str) -> dict[str, str]:
    return {PROPERTY_MAC: mac(KEY.secret, Purpose.RECEIPT, TOPIC, PAYLOAD), PROPERTY_KID: KEY.kid} | changed


def test_a_mac_is_hmac_sha256_over_kind_topic_and_payload_parted_by_nul() -> None:
    signed = (
        b"receipt"  # kind
        b"\x00"
        b"ff/1/4b/car-7/dn/receipt"  # topic
        b"\x00"
        b'{"t":"receipt"}'  # payload
    )
    assert (
        mac(KEY.secret, Purpose.RECEIPT, TOPIC, PAYLOAD) == hmac.new(KEY.secret, signed, hashlib.sha256).hexdigest()
    )


def test_the_keys_info_names_version_purpose_and_device() -> None:
    assert key_info(Purpose.RECEIPT, device_id("car-7")) == b"ff/1/receipt/car-7"
    assert key_info(Purpose.TIME, device_id("car-7")) == b"ff/1/time/car-7"


def test_what_the_server_said_is_authentic() -> None:
    assert authentic(KEY, Purpose.RECEIPT, TOPIC, PAYLOAD, properties())
    assert authentic(KEY, Purpose.RECEIPT, TOPIC, PAYLOAD, properties(other="is ignored"))


def test_a_message_for_another_purpose_topic_or_payload_is_not() -> None:
    assert not authentic(KEY, Purpose.TIME, TOPIC, PAYLOAD, properties())
    assert not authentic(KEY, Purpose.RECEIPT, TOPIC.replace("car-7", "car-8"), PAYLOAD, properties())
    assert not authentic(KEY, Purpose.RECEIPT, TOPIC, PAYLOAD + b" ", properties())
    assert not authentic(MacKey(KEY.kid, b"\0" * 32), Purpose.RECEIPT, TOPIC, PAYLOAD, properties())


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {PROPERTY_MAC: properties()[PROPERTY_MAC]},
        {PROPERTY_KID: KEY.kid},
        properties(kid="00000000"),
        properties(kid=""),
        properties(mac=""),
        properties(mac="0" * 64),
        properties(mac=properties()[PROPERTY_MAC][:-1]),
        properties(mac=properties()[PROPERTY_MAC].upper()),
        properties(mac=properties()[PROPERTY_MAC] + "\n"),
        properties(mac="\ud800" * 64),
        properties(mac="\u00e4" * 64),  # not ASCII: a no, never a crash
    ],
)
def test_anything_missing_or_changed_is_a_no(wrong: dict[str, str]) -> None:
    assert authentic(KEY, Purpose.RECEIPT, TOPIC, PAYLOAD, wrong) is False
