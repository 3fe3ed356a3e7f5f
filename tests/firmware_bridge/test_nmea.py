import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import nmea
from firmware_bridge.nmea import LINE_BYTES_MAX, Lines
from firmware_bridge.peripherals.drive import Moment
from firmware_bridge.peripherals.gnss import burst, sentence
from firmware_bridge.position import NOTHING, Part, Position

UTC_TIME = datetime(2026, 11, 23, 12, 30, 5, tzinfo=UTC)


def line(body: str) -> str:
    return sentence(body).decode().strip()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (
            "GPRMC,225446.00,A,4916.4500,N,12311.1200,W,000.5,054.7,191194,020.3,E",
            Part(True, {"lat": 49.2741667, "lon": -123.1853333, "speed_mps": 0.257}, 785_285_686_000),
        ),
        (
            "GNRMC,123519,A,4807.038,S,01131.000,E,022.4,084.4,230326,,,A",  # no fractions, mixed constellations
            Part(True, {"lat": -48.1173, "lon": 11.5166667, "speed_mps": 11.524}, 1_774_269_319_000),
        ),
        ("GPRMC,225446.00,V,,,,,,,191194,,,N", Part(False, {}, None)),
        ("GPRMC,,A,4916.45,N,12311.12,W,,,,,,A", Part(True, {"lat": 49.2741667, "lon": -123.1853333}, None)),
        (
            "GPGGA,123519.00,4807.0380,N,01131.0000,E,1,08,0.9,545.4,M,46.9,M,,",
            Part(True, {"lat": 48.1173, "lon": 11.5166667, "alt_m": 545.4, "hdop": 0.9}, None),
        ),
        ("GPGGA,123519.00,,,,,0,00,99.99,,,,,,", Part(False, {}, None)),
        ("GPGSA,A,3,04,05,,09,12,,,24,,,,,2.5,1.3,2.1", Part(None, {"fix": 3.0, "hdop": 1.3}, None)),
        ("GPGSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99", Part(None, {"fix": 0.0}, None)),
        ("GPVTG,054.7,T,034.4,M,005.5,N,010.2,K", NOTHING),
        ("GPTXT,01,01,02,u-blox ag", NOTHING),
        ("PGRME,15.0,M,45.0,M,25.0,M", NOTHING),  # a maker's own
    ],
)
def test_what_a_sentence_tells(body: str, part: Part) -> None:
    assert nmea.parse(line(body)) == part


GOOD = line("GPGGA,123519.00,4807.0380,N,01131.0000,E,1,08,0.9,545.4,M,46.9,M,,")


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "$",
        "$*00",
        GOOD[:-3],  # no checksum
        GOOD[:-2] + "00",  # a wrong one
        GOOD.replace("4807", "4808"),  # a digit turned over
        GOOD[1:],
        GOOD[:40],
        GOOD + GOOD,
        line("GPGGA,123519.00,4860.0000,N,01131.0000,E,1,08,0.9,545.4,M,46.9,M,,"),  # sixty minutes
        line("GPGGA,123519.00,9107.0380,N,01131.0000,E,1,08,0.9,545.4,M,46.9,M,,"),
        line("GPGGA,123519.00,4807.0380,X,01131.0000,E,1,08,0.9,545.4,M,46.9,M,,"),
        line("GPGGA,123519.00,4807.0380,N,18131.0000,E,1,08,0.9,545.4,M,46.9,M,,"),
        line("GPGGA,123519.00,4807.0380,N,,,1,08,0.9,545.4,M,46.9,M,,"),
        line("GPGGA,123519.00,4807.0380,N,01131.0000,E,,08,0.9,545.4,M,46.9,M,,"),
        line("GPRMC,225446.00,A,,,,,,,191194,,,A"),  # valid, it says, and no place
        line("GPRMC"),
        line("GPGSA,A,7,,,,,,,,,,,,,1,1,1"),
        line("GPGSA"),
        "$GPRMC,\ufffd\ufffd*12",
    ],
)
def test_a_damaged_sentence_tells_nothing(damaged: str) -> None:
    assert nmea.parse(damaged) is None


@pytest.mark.parametrize("field", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("junk", ["nan", "inf", "1e9", "-", "9" * 60, "x"])
def test_junk_in_a_field_never_becomes_a_value(field: int, junk: str) -> None:
    fields = GOOD.strip("$").partition("*")[0].split(",")
    fields[field] = junk
    part = nmea.parse(line(",".join(fields)))
    for value in part.values.values() if part is not None else ():
        assert math.isfinite(value)
        assert abs(value) <= 100_000


@given(st.text(max_size=120))
def test_no_text_whatever_breaks_the_parser(text: str) -> None:
    nmea.parse(text)
    nmea.parse("$" + text)


@given(
    st.sampled_from(["GPRMC", "GNRMC", "GPGGA", "GPGSA", "PUBX"]),
    st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="*$"), max_size=12)),
)
def test_no_fields_whatever_break_the_parser(kind: str, fields: list[str]) -> None:
    part = nmea.parse(line(",".join((kind, *fields))))
    assert part is None or all(math.isfinite(value) for value in part.values.values())


@given(
    st.floats(-89.999, 89.999),
    st.floats(-179.999, 179.999),
    st.floats(0, 90),
    st.floats(-400, 8000),
    st.integers(1, 40),
)
def test_what_a_receiver_says_is_what_is_understood_however_it_is_cut(
    lat: float, lon: float, speed_mps: float, alt_m: float, piece: int
) -> None:
    said = burst(Moment(lat, lon, alt_m, speed_mps, 0, 0), UTC_TIME)
    lines, position = Lines(), Position()
    for at in range(0, len(said), piece):
        for text in lines.feed(said[at : at + piece]):
            part = nmea.parse(text)
            assert part is not None
            position.take(part, 7)
    known = {name: heard.value for name, heard in position.known.items()}
    assert known["lat"] == pytest.approx(lat, abs=2e-6)
    assert known["lon"] == pytest.approx(lon, abs=2e-6)
    assert known["speed_mps"] == pytest.approx(speed_mps, abs=0.01)
    assert known["alt_m"] == pytest.approx(alt_m, abs=0.06)
    assert known["fix"] == 3
    assert position.utc_ms == int(UTC_TIME.timestamp() * 1000)


@given(st.lists(st.binary(max_size=600), max_size=20))
def test_bytes_of_any_kind_take_bounded_memory(pieces: list[bytes]) -> None:
    lines = Lines()
    for piece in pieces:
        assert all(len(text) <= LINE_BYTES_MAX for text in lines.feed(piece))
        assert len(lines._rest) <= LINE_BYTES_MAX


def test_a_line_that_began_before_the_cable_was_pulled_is_not_continued() -> None:
    lines = Lines()
    whole = sentence("GPGSA,A,3,,,,,,,,,,,,,1,1,1")
    assert list(lines.feed(whole[:10])) == []
    lines.clear()
    assert list(lines.feed(whole[10:] + whole)) == [whole.decode().strip()]


def test_noise_before_a_sentence_costs_only_itself() -> None:
    whole = sentence("GPGSA,A,3,,,,,,,,,,,,,1,1,1")
    assert list(Lines().feed(b"\xff\x00$GPG" + whole)) == [whole.decode().strip()]


def test_each_part_keeps_its_own_age() -> None:
    position = Position()
    position.take(Part(True, {"lat": 1.0, "lon": 2.0, "speed_mps": 3.0}, None), 1000)
    position.take(Part(False, {}, None), 2000)
    assert position.value("age_s", 4500) == (3.5, 4500)
    assert position.value("lat", 4500) == (1.0, 1000)
    assert position.value("fix", 4500) == (0.0, 2000)
    assert position.value("alt_m", 4500) is None


@pytest.mark.parametrize(
    ("parts", "fix"),
    [
        ([], None),
        ([Part(True, {"lat": 1, "lon": 2}, None)], 2),  # no GSA: nobody knows about the height
        ([Part(None, {"fix": 3}, None)], 3),
        ([Part(None, {"fix": 3}, None), Part(False, {}, None)], 0),  # what says that it has no place is believed
        ([Part(False, {}, None), Part(None, {"fix": 3}, None), Part(True, {"lat": 1, "lon": 2}, None)], 3),
    ],
)
def test_how_the_fix_was_made(parts: list[Part], fix: float | None) -> None:
    position = Position()
    for part in parts:
        position.take(part, 0)
    found = position.value("fix", 0)
    assert (None if found is None else found.value) == fix
