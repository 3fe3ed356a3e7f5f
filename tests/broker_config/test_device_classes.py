import re

import pytest

from broker_config import device_classes
from broker_config.device_classes import SpoolClass, UnknownClassError
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
