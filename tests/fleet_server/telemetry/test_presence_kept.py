"""What ingest remembers of a device's presence, over a real store and a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config import topics
from broker_config.telemetry import GENESIS, JOURNAL, Clock, Event, Events, key_text
from broker_config.telemetry import encode as encode_batch
from fleet_server.telemetry import presence
from tests.fleet_server.fleet import Arrival
from tests.fleet_server.telemetry.messages import (
    BOOT,
    CAR,
    EPOCH,
    LIFE,
    NEXT_EPOCH,
    NOW,
    OTHER_LIFE,
    T0,
    Server,
    birth,
    will,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path / "telemetry.db")
    yield one
    one.store.close()


def journal(seq: int, *events: Event, life: str = LIFE) -> Arrival:
    """A batch of the device's journal."""
    dt = list(range(len(events)))
    record = Events(1, JOURNAL, life, seq, BOOT, T0, 60_000, Clock("ntp", 0, 5), GENESIS, dt, list(events))
    payload, content_type = encode_batch(record)
    properties = [("key", key_text(JOURNAL, life, seq))]
    return Arrival(topics.up(CAR, topics.Up.EVENT), payload, content_type, properties, 1)


FAULT = Event("driver.fault", {"driver": "host.cpu", "error": "no answer"})
OK = Event("driver.ok", {"driver": "host.cpu"})


def faults(server: Server) -> tuple[str, ...]:
    return presence.present(server.ingest.devices[CAR].faults)


def test_a_fault_in_the_journal_is_known_until_it_ends_and_after_a_restart(server: Server) -> None:
    server.told(birth(), journal(1, FAULT))
    assert faults(server) == ("driver.fault host.cpu: no answer",)
    server.crash()
    assert faults(server) == ("driver.fault host.cpu: no answer",)
    server.told(journal(2, OK))
    assert faults(server) == ()


def test_a_backlog_that_comes_later_begins_nothing_again(server: Server) -> None:
    server.told(birth(), journal(2, OK), journal(1, FAULT))
    assert faults(server) == ()


def test_a_new_life_of_the_journal_has_the_last_word(server: Server) -> None:
    server.told(birth(), journal(900, FAULT), journal(1, OK, life=OTHER_LIFE))
    assert faults(server) == ()


def test_connections_are_counted_by_epoch_and_the_will_says_when_one_ended(server: Server) -> None:
    server.told(birth(), birth(), birth(epoch=NEXT_EPOCH))
    device = server.ingest.devices[CAR]
    assert len(device.connections_ms) == 2  # the same epoch again is the same connection
    server.told(will(EPOCH))
    assert device.willed_ms is None
    server.told(will(NEXT_EPOCH))
    assert device.willed_ms is not None
    assert device.willed_ms >= NOW
