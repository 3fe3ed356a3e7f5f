"""Who is meant: every comparison, what binds closer, and that an error says where it is and what was expected."""

from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.change.selector import (
    COMPARISONS_MAX,
    DEPTH_MAX,
    SELECTOR_CHARS_MAX,
    VALUES_MAX,
    BadSelectorError,
    Fact,
    Sort,
    facts,
    named,
    parse,
)

CAM: Mapping[str, Fact] = {
    "device": "cam-17",
    "class": "body_camera",
    "node": "hq/station-07/post-3",
    "unit": "unit-4",
    "group": frozenset({"night-shift", "pair-9"}),
    "connected": True,
    "healthy": False,
    "agent": "1.4.2",
    "config.video": "1080p",
    "config.pre_event_s": 30,
    "power.battery_pct": 83.4,
}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("device==cam-17", True),
        ("device==cam-1", False),
        ("device==cam-*", True),
        ("device==*-1*7", True),
        ("device=='cam-*'", False),  # in quotes it is a star
        ("device!=cam-1*", False),
        ("class==body_camera;connected==true", True),
        ("connected==false,healthy==false", True),
        ("connected==false,healthy==false;device==cam-1", False),  # "and" binds closer
        ("(connected==false,healthy==false);device==cam-17", True),
        ("node==hq/station-07", True),
        ("node==hq/station-0", False),  # a node and what is below, no beginning of a name
        ("node==hq/*/post-3", True),
        ("node!=hq", False),
        ("group==night-shift", True),
        ("group==pair-*", True),
        ("group!=night-shift", False),
        ("group=in=(day-shift,pair-9)", True),
        ("group=out=(day-shift)", True),
        ("device=in=(cam-1,cam-17)", True),
        ("device=out=(cam-1,cam-17)", False),
        ("power.battery_pct=gt=83", True),
        ("power.battery_pct=ge=83.4", True),
        ("power.battery_pct=lt=83.4", False),
        ("power.battery_pct=le=8.34e1", True),
        ("config.pre_event_s==30", True),
        ("config.pre_event_s=in=(10,30)", True),
        ("config.video==1080p", True),
        (' device == "cam-17" ; unit==unit-4 ', True),
        ("agent==1.4.*", True),
    ],
)
def test_who_is_meant(text: str, meant: bool) -> None:
    assert parse(text).holds(CAM.get) is meant


@pytest.mark.parametrize("sign", ["==x", "!=x", "=in=(x)", "=out=(x)"])
def test_what_is_not_known_is_never_a_yes(sign: str) -> None:
    assert not parse(f"hardware{sign}").holds(CAM.get)
    assert not parse("storage.free_bytes=lt=5,storage.free_bytes=ge=5,storage.free_bytes!=5").holds(CAM.get)


@pytest.mark.parametrize(
    ("text", "position", "expected", "got"),
    [
        ("", 0, "a fact", "the end"),
        ("colour==red", 0, "a fact", "'colour'"),
        ("device=cam", 6, "one of == != =in= =out=", "'='"),
        ("device=gt=cam", 6, "one of", "'=gt='"),
        ("device==", 8, "a value", "the end"),
        ("connected==yes", 11, "true or false", "'yes'"),
        ("power.battery_pct=gt=full", 21, "a number", "'full'"),
        ("power.battery_pct==inf", 19, "a number", "'inf'"),
        ("(device==a", 10, '")"', "the end"),
        ("device==a)", 9, '";", "," or the end', "')'"),
        ("device==a;;unit==b", 10, "a fact", "';'"),
        ("device=in=a", 10, '"("', "'a'"),
        ("device=in=()", 11, "a value", "')'"),
        ("device=='a", 8, "a value", '"\'"'),
        ("device==a unit==b", 10, '";", "," or the end', "'unit'"),
        ("device==ä", 8, "a value", "'ä'"),
    ],
)
def test_an_error_says_where_and_what(text: str, position: int, expected: str, got: str) -> None:
    with pytest.raises(BadSelectorError) as caught:
        parse(text)
    assert caught.value.position == position
    assert expected in caught.value.expected
    assert caught.value.got == got


@pytest.mark.parametrize(
    "text",
    [
        "(" * (DEPTH_MAX + 1) + "device==a" + ")" * (DEPTH_MAX + 1),
        ",".join(["unit==a"] * (COMPARISONS_MAX + 1)),
        f"unit=in=({','.join('a' * (VALUES_MAX + 1))})",
        "unit==" + "a" * SELECTOR_CHARS_MAX,
    ],
)
def test_length_and_depth_are_bounded(text: str) -> None:
    with pytest.raises(BadSelectorError, match="at most"):
        parse(text)


def test_what_is_as_large_as_it_may_be_is_read() -> None:
    assert parse("(" * DEPTH_MAX + "unit==unit-4" + ")" * DEPTH_MAX).holds(CAM.get)
    assert parse(",".join(["unit==unit-4"] * COMPARISONS_MAX)).holds(CAM.get)


@settings(deadline=None)
@given(st.text(alphabet="device=unit!,;()*'\"\\ 1.power_battery_pctltge", max_size=60))
def test_any_text_is_a_selector_or_an_error(text: str) -> None:
    with suppress(BadSelectorError):
        assert parse(text).holds(CAM.get) in {True, False}


@settings(deadline=None)
@given(st.text(max_size=20), st.lists(st.text(alphabet="ab*", max_size=4), max_size=4))
def test_a_star_stands_for_any_text(text: str, parts: list[str]) -> None:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    assert parse(f"unit=='{quoted}'").holds({"unit": text}.get)
    pattern = "a" + "*".join(parts)
    filled = pattern.replace("*", "b" * len(parts))
    assert parse(f"unit=={pattern}").holds({"unit": filled}.get)


def test_settings_and_readings_of_every_class_are_facts() -> None:
    assert facts()["config.mute_allowed"] is Sort.FLAG
    assert facts()["cabinet.temp_c"] is Sort.NUMBER
    assert facts()["node"] is Sort.PATH


def test_only_the_facts_named_need_be_looked_up() -> None:
    assert named(parse("device==a,(unit==b;power.battery_pct=gt=1)")) == {"device", "unit", "power.battery_pct"}
