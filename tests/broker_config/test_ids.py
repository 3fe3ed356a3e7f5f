import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.ids import (
    COMMON_NAME_CHARS_MAX,
    BadIdError,
    DeviceId,
    SiteId,
    device_id,
    hex16,
    server_client_id,
    server_user,
    shard,
    shard_of,
    site_id,
)

SITE = SiteId("5e" * 32)
DEVICE_IDS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(DEVICE_IDS)
def test_every_name_of_the_alphabet_is_a_device(name: str) -> None:
    assert device_id(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-car",
        "_fleet-server",
        "Car-7",
        "car 7",
        "car_7",
        "car.7",
        "car/7",
        "car+",
        "#",
        "$SYS",
        "car-7\n",
        "car-7\0",
        "kär",
        "c\u0430r",  # a Cyrillic letter that looks like an a
        "\u0667",  # a digit, but no ASCII
        "a" * 64,
    ],
)
def test_what_is_no_device_id_is_refused(name: str) -> None:
    with pytest.raises(BadIdError, match="device id: expected 1 to 63 of"):
        device_id(name)


@given(DEVICE_IDS)
def test_a_device_lives_in_the_shard_of_its_names_hash(name: str) -> None:
    assert int(shard_of(DeviceId(name)), 16) == hashlib.sha256(name.encode()).digest()[0]


@pytest.mark.parametrize("text", ["", "0", "000", "g0", "AB", "+", "0\n", "00\n"])
def test_a_shard_is_two_hex_digits(text: str) -> None:
    with pytest.raises(BadIdError):
        shard(text)
    assert shard("0f") == "0f"


@pytest.mark.parametrize("text", ["", "0" * 15, "0" * 17, "G" * 16, "AB" * 8, "0" * 16 + "\n"])
def test_a_life_is_16_hex_digits(text: str) -> None:
    with pytest.raises(BadIdError):
        hex16(text)
    assert hex16("0123456789abcdef") == "0123456789abcdef"


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "AB" * 32, "0" * 64 + "\n"])
def test_a_site_id_is_64_hex_digits(text: str) -> None:
    with pytest.raises(BadIdError):
        site_id(text)
    assert site_id("0f" * 32) == "0f" * 32


def test_the_servers_names_fit_no_common_name_and_are_no_device_ids() -> None:
    for name in (server_user(SITE), server_client_id(SITE), server_client_id(SITE, "00-7f")):
        assert len(name) > COMMON_NAME_CHARS_MAX
        with pytest.raises(BadIdError):
            device_id(name)


def test_workers_of_different_shards_are_different_clients() -> None:
    assert server_client_id(SITE) == f"_ingest-00-ff-{SITE}"
    assert server_client_id(SITE, "00-7f") != server_client_id(SITE, "80-ff")
    with pytest.raises(BadIdError, match="shards: expected FIRST-LAST"):
        server_client_id(SITE, "0-255")
