"""Of each measure the newest is shown, what is old is not, and who follows gets each once."""

from fleet_server.standing.held import Held
from fleet_server.standing.measures import COVERAGE, ROLLOUTS, UPLOADS
from fleet_server.standing.sample import Sample

AT = 1_767_254_400_000


def upload(device: str, at_ms: int, files: float = 1) -> Sample:
    return Sample(UPLOADS, at_ms, (files, 0.0, 0.0, 0.0), device, "body_camera", "hq")


def test_the_newest_of_each_device_node_and_site_is_shown() -> None:
    held = Held()
    nodes = [Sample(COVERAGE, AT, (1.0,) * 4, org=org) for org in ("hq", "hq/one")]
    site = Sample(ROLLOUTS, AT, (0.0,) * 6)
    held.put([upload("a", AT), upload("b", AT), *nodes, site])
    held.put([upload("a", AT + 30_000, files=2)])
    assert held.samples(AT + 30_000) == [upload("a", AT + 30_000, files=2), upload("b", AT), *nodes, site]


def test_twice_its_cadence_is_old() -> None:
    held = Held()
    held.put([upload("a", AT)])
    assert held.samples(AT + 60_000) == [upload("a", AT)]
    assert held.samples(AT + 60_001) == []


def test_with_a_faster_pace_it_is_old_sooner() -> None:
    held = Held(pace=30)
    held.put([upload("a", AT)])
    assert (len(held.samples(AT + 2_000)), len(held.samples(AT + 2_001))) == (1, 0)


def test_what_a_whole_look_did_not_find_is_gone() -> None:
    held = Held()
    held.put([upload("a", AT), upload("b", AT), Sample(ROLLOUTS, AT, (0.0,) * 6)])
    held.put([upload("b", AT + 1)])
    held.passed(UPLOADS, AT + 1)
    assert held.samples(AT + 1) == [upload("b", AT + 1), Sample(ROLLOUTS, AT, (0.0,) * 6)]


def test_who_follows_gets_each_once_and_hears_how_many_it_missed() -> None:
    held = Held()
    assert held.since(0) == (0, [], 0)
    held.put([upload("a", AT), upload("b", AT)])
    first = held.since(0)
    assert first == (2, [upload("a", AT), upload("b", AT)], 0)
    assert held.since(first.mark) == (2, [], 0)
    held.put([upload("a", AT + 1), upload("a", AT + 2)])
    assert held.since(first.mark) == (4, [upload("a", AT + 2)], 1)
