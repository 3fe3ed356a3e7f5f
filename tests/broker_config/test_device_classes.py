import re

import msgspec
import pytest

from broker_config import device_classes
from broker_config.device_classes import Change, SpoolClass, UnknownClassError
from broker_config.device_classes.settings import Setting
from broker_config.ids import STREAM_PATTERN
from broker_config.telemetry import JOURNAL

EVENT_KIND = re.compile(r"[a-z][a-z0-9_.]{0,47}\Z")


@pytest.mark.parametrize("name", device_classes.names())
def test_every_class_is_whole(name: str) -> None:
    loaded = device_classes.load(name)
    assert loaded.name == name
    assert loaded.description
    assert loaded.streams[JOURNAL].spool_class is SpoolClass.KEEP
    for stream, spec in loaded.streams.items():
        assert re.fullmatch(STREAM_PATTERN, stream)
        assert bool(spec.fields) is (stream != JOURNAL)
        for field in spec.fields.values():
            assert field.min < field.max
            assert field.unit
    for kind, meaning in loaded.events.items():
        assert EVENT_KIND.match(kind)
        assert meaning


def test_the_host_is_a_class_and_its_agent_tells_of_its_own_start_and_stop() -> None:
    host = device_classes.load("host")
    assert {"cpu", "memory", "storage", "network", "temperature", JOURNAL} == set(host.streams)
    assert {"agent.start", "agent.stop", "clock.set", "link.up", "link.down"} <= set(host.events)


@pytest.mark.parametrize("name", ["", "nothing", "../host", "host.toml", "HOST", "host\n", "x" * 1_000])
def test_an_unknown_class_is_refused_and_the_known_are_named(name: str) -> None:
    with pytest.raises(UnknownClassError, match=r"expected one of .*host.*, got ") as caught:
        device_classes.load(name)
    assert len(str(caught.value)) < 300


def test_every_stream_of_every_class_is_known() -> None:
    known = device_classes.known_streams()
    for name in device_classes.names():
        for stream, spec in device_classes.load(name).streams.items():
            assert set(spec.fields) <= known[stream]


def test_a_field_of_streams_of_one_name_means_the_same_in_every_class() -> None:
    units: dict[tuple[str, str], set[str]] = {}
    for name in device_classes.names():
        for stream, spec in device_classes.load(name).streams.items():
            for field, told in spec.fields.items():
                units.setdefault((stream, field), set()).add(told.unit)
    assert {at: found for at, found in units.items() if len(found) > 1} == {}


def test_every_class_is_also_a_board_with_an_agent() -> None:
    host = device_classes.load("host")
    for name in device_classes.names():
        loaded = device_classes.load(name)
        assert set(host.streams) <= set(loaded.streams)
        assert set(host.events) <= set(loaded.events)
    assert set(device_classes.load("body_camera").streams["storage"].fields) == {
        "free_bytes",
        "locked_bytes",
        "write_errors",
    }


@pytest.mark.parametrize(
    ("name", "lease", "holds_off"),
    [
        ("body_camera", "recording", {Change.CONFIG, Change.FIRMWARE, Change.COMMAND}),
        ("body_camera", "on_call", {Change.CONFIG, Change.FIRMWARE, Change.COMMAND}),
        ("in_car_terminal", "ignition_on", {Change.FIRMWARE}),
        ("traffic_light", "peak_window", {Change.CONFIG, Change.FIRMWARE, Change.COMMAND}),
        ("interrogation_room", "interview_in_progress", {Change.CONFIG, Change.FIRMWARE, Change.COMMAND}),
    ],
)
def test_what_is_never_done_at_a_bad_moment(name: str, lease: str, holds_off: set[Change]) -> None:
    assert set(device_classes.load(name).leases[lease].defers) == holds_off


def test_every_fault_of_a_configuration_is_told_at_once() -> None:
    camera = device_classes.load("body_camera")
    assert camera.config_faults({"pre_event_s": 30, "video": "720p", "mute_allowed": True}) == []
    assert camera.config_faults(
        {
            "pre_event_s": 30.5,
            "video": "4k",
            "mute_allowed": 1,
            "battery_low_pct": 4,
            "colour": "red",
        }
    ) == [
        "pre_event_s: expected integer, got 30.5",
        "video: expected one of 720p, 1080p, 1440p, got '4k'",
        "mute_allowed: expected boolean, got 1",
        "battery_low_pct: expected 5 to 50 %, got 4",
        "colour: unknown",
    ]
    assert camera.config_faults({"pre_event_s": None}) == ["pre_event_s: expected integer, got None"]


def test_what_a_command_is_given_is_checked() -> None:
    camera = device_classes.load("body_camera")
    assert camera.parameter_faults("locate", {}) == []
    assert camera.parameter_faults("recording.start", {"for_s": 1}) == ["reason: missing", "for_s: unknown"]
    (unknown,) = camera.parameter_faults("shell", {})
    assert unknown.startswith("command: expected one of identify, ")
    assert unknown.endswith(", locate, recording.start, restart, got 'shell'")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"type": "integer"}, "integer needs unit, minimum and maximum"),
        ({"type": "boolean", "unit": "/"}, "boolean has no unit, minimum or maximum"),
        ({"type": "string"}, "string, and nothing else, needs enum or max_length"),
        ({"type": "boolean", "enum": ["x"]}, "string, and nothing else, needs enum or max_length"),
        ({"type": "number", "unit": "s", "minimum": 2, "maximum": 1}, "expected minimum at most maximum"),
        ({"type": "integer", "unit": "s", "minimum": 1, "maximum": 2, "default": 3}, "default: expected 1 to 2 s"),
        ({"type": "integer", "unit": "s", "minimum": 1, "maximum": 2, "default": True}, "default: expected integer"),
        ({"type": "string", "max_length": 3, "default": "long"}, "default: expected at most 3 characters, got 4"),
        ({"type": "object"}, "Invalid enum value 'object'"),
        ({"type": "boolean", "secret": True}, "unknown field `secret`"),
    ],
)
def test_a_setting_that_is_not_whole_is_refused(table: dict[str, object], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(why)):
        msgspec.convert({"description": "x", **table}, Setting)
