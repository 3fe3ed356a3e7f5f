import pytest

from firmware_bridge import gatt
from firmware_bridge.readings import Failed


@pytest.mark.parametrize(
    ("point", "data", "expected"),
    [
        ("temp_c", "66 08", 21.5),
        ("temp_c", "0c fe", -5.0),
        ("temp_c", "00 80", "the device has no value"),
        ("temp_c", "01 80", "0x2a6e: expected -273.15 to 327.67, got -327.67"),
        ("temp_c", "66", "0x2a6e: expected 2 bytes, got 1"),
        ("temp_c", "66 08 00", "0x2a6e: expected 2 bytes, got 3"),
        ("temp_c", "", "0x2a6e: expected 2 bytes, got 0"),
        ("humidity_pct", "d4 12", 48.2),
        ("humidity_pct", "11 27", "0x2a6f: expected 0 to 100, got 100.01"),
        ("humidity_pct", "ff ff", "the device has no value"),
        ("pressure_pa", "02 76 0f 00", 101325.0),
        ("dew_point_c", "f6", -10.0),
        ("dew_point_c", "80", "the device has no value"),
        ("illuminance_lx", "10 27 00", 100.0),
        ("illuminance_lx", "ff ff ff", "the device has no value"),
        ("co2_ppm", "20 03", 800.0),
        ("co2_ppm", "fe ff", "the device has no value"),  # "that or more"
        ("co2_ppm", "ff ff", "the device has no value"),
        ("battery_pct", "64", 100.0),
        ("battery_pct", "65", "0x2a19: expected 0 to 100, got 101"),
    ],
)
def test_what_bytes_mean(point: str, data: str, expected: float | str) -> None:
    found = gatt.value(gatt.POINTS[point], bytes.fromhex(data))
    assert (found.why if isinstance(found, Failed) else found) == expected


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"ESS-0042", "ESS-0042"), (b"ESS-0042\0\0junk", "ESS-0042"), (b" A\n", "A"), (b"\xff\xfe", "��"), (b"", "")],
)
def test_text_is_one_printable_line(data: bytes, told: str) -> None:
    assert gatt.text(data) == told


@pytest.mark.parametrize(
    ("expected", "told", "why"),
    [
        ("", "anything", None),
        ("ESS-0042", "ESS-0042", None),
        ("ESS-0042", "ESS-0043", "expected serial number ESS-0042, got ESS-0043"),
        ("ESS-0042", "", "expected serial number ESS-0042, got none"),
    ],
)
def test_who_is_the_device_that_is_meant(expected: str, told: str, why: str | None) -> None:
    assert gatt.wrong_identity(expected, told) == why
