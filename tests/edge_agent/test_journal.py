from broker_config import device_classes, limits, telemetry
from broker_config.telemetry import GENESIS, Clock, Events
from edge_agent.clock import Stamp
from edge_agent.journal import BURST_MAX, Journal, Kind


def stamp(mono_ms: int) -> Stamp:
    return Stamp(mono_ms, mono_ms, Clock("none", 0, 0))


def test_every_kind_is_one_of_the_device_classes() -> None:
    assert set(Kind) <= set(device_classes.load("host").events)


def test_events_are_sealed_into_a_chained_batch() -> None:
    journal = Journal("b" * 16, 5_000)
    assert journal.due_ms() is None
    journal.add(Kind.AGENT_START, {"clean": True}, stamp(100))
    journal.add(Kind.LINK_UP, {"attempts": 1}, stamp(300))
    assert journal.due_ms() == 5_100
    (draft,) = journal.seal()
    record = draft.numbered("1" * 16, 2, "e" * 64)
    assert isinstance(record, Events)
    assert (record.prev, record.dt) == ("e" * 64, [0, 200])
    assert [event.kind for event in record.events] == ["agent.start", "link.up"]
    assert journal.seal() == []


def test_a_flapping_link_does_not_flood_the_journal_and_is_counted() -> None:
    journal = Journal("b" * 16, 5_000)
    for n in range(500):
        journal.add(Kind.LINK_UP, {"attempts": n}, stamp(n))
    journal.add(Kind.LINK_UP, {"attempts": 500}, stamp(61_000))
    (draft,) = journal.seal()
    assert len(draft.events) == BURST_MAX + 1
    assert draft.events[-1].data == {"attempts": 500, "suppressed": 500 - BURST_MAX}


def test_one_flood_does_not_hide_another_kind() -> None:
    journal = Journal("b" * 16, 5_000)
    for n in range(100):
        journal.add(Kind.LINK_UP, {}, stamp(n))
    journal.add(Kind.DRIVER_FAULT, {"driver": "host.cpu"}, stamp(100))
    assert journal.seal()[0].events[-1].kind == "driver.fault"


def test_whatever_a_driver_says_fits_into_an_event() -> None:
    journal = Journal("b" * 16, 5_000)
    journal.add(Kind.DRIVER_FAULT, {"error": "\x00\n\ud800" + "x" * 10_000}, stamp(0))
    payload, content_type = telemetry.encode(journal.seal()[0].numbered("1" * 16, 1, GENESIS))
    assert len(payload) < limits.KIB
    telemetry.decode(payload, content_type)
