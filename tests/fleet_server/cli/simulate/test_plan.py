"""What befalls whom, how fast connections are begun, and what the audit makes of the API's answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.cli import answers
from fleet_server.cli.simulate import audit, faults, readings, report
from fleet_server.cli.simulate.audit import Found, Given
from fleet_server.cli.simulate.faults import Fault
from fleet_server.cli.simulate.gate import Gate, peak_a_second


def test_the_same_seed_plans_the_same_and_another_another() -> None:
    first, again, other = (faults.schedule(tuple(Fault), seed=seed, devices=100, seconds=60.0) for seed in (1, 1, 2))
    assert first == again != other
    assert [strike.at_s for strike in first] == sorted(strike.at_s for strike in first)
    assert {fault: sum(strike.fault is fault for strike in first) for fault in Fault} == {
        **dict.fromkeys(Fault, 5),
        Fault.RECONNECT_STORM: 1,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("nat_drop", (Fault.NAT_DROP,)),
        (" power_cut, nat_drop,power_cut", (Fault.POWER_CUT, Fault.NAT_DROP)),
    ],
)
def test_faults_are_named_with_commas(text: str, expected: tuple[Fault, ...]) -> None:
    assert faults.parse(text) == expected


def test_what_is_no_fault_is_named() -> None:
    with pytest.raises(ValueError, match=r"power_cut.*got fire, flood"):
        faults.parse("fire,nat_drop,flood")


def test_every_fault_says_what_it_does() -> None:
    assert set(faults.MEANING) == set(Fault)


@given(rate=st.integers(1, 500), ticks=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 2_000)), max_size=60))
def test_no_second_sees_more_connections_begun_than_stated(rate: int, ticks: list[tuple[float, int]]) -> None:
    gate, now_s, begun = Gate(rate), 10.0, []
    for step_s, wanted in ticks:
        now_s += step_s
        begun += [now_s] * gate.take(wanted, now_s)
    assert peak_a_second(begun) <= rate


def test_the_stated_rate_is_reached() -> None:
    gate = Gate(300)
    assert sum(gate.take(10_000, 5.0 + tick * 0.02) for tick in range(500)) >= 0.98 * 300 * 10


def test_a_rate_of_none_lets_all_go() -> None:
    assert Gate(0).take(10_000, 1.0) == 10_000


def device(*streams: answers.Stream, name: str = "sim-000001") -> answers.Device:
    return answers.Device(
        device=name,
        device_class="host",
        agent="simulate",
        connected=False,
        reporting=False,
        healthy=True,
        flaps=0,
        why=[],
        last_status_ms=None,
        last_record_ms=None,
        streams=list(streams),
    )


def stream(*, last: int, held: int, missing: int = 0, quarantined: int = 0, gone: int = 0) -> answers.Stream:
    return answers.Stream("cpu", "a" * 16, last, held, missing, quarantined, gone)


@pytest.mark.parametrize(
    ("given", "server", "found"),
    [
        (Given(5, 0), stream(last=5, held=5), Found(5, 0, 0, 0)),
        (Given(5, 2), stream(last=5, held=3, gone=2), Found(3, 0, 0, 0)),
        (Given(5, 0), stream(last=5, held=4, quarantined=1), Found(4, 0, 1, 0)),
        (Given(5, 0), stream(last=5, held=4, missing=1), Found(4, 1, 0, 1)),
        (Given(5, 0), stream(last=4, held=4), Found(4, 0, 0, 1)),  # the server never heard of the newest
        (Given(5, 1), stream(last=5, held=5), Found(5, 0, 0, 0)),  # evicted while it was under way
    ],
)
def test_what_was_given_and_is_not_there_is_lost(given: Given, server: answers.Stream, found: Found) -> None:
    assert audit.compare({("sim-000001", "cpu", "a" * 16): given}, [device(server)]) == found


def test_a_device_that_the_server_does_not_know_is_lost_and_others_do_not_count() -> None:
    mine = {("sim-000001", "cpu", "a" * 16): Given(3, 1)}
    assert audit.compare(mine, [device(stream(last=9, held=9), name="car-7")]) == Found(0, 2, 0, 2)


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([], 0.5, None), ([4.0], 0.99, 4.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0)]
)
def test_percentile(values: list[float], share: float, expected: float | None) -> None:
    assert report.percentile(values, share) == expected


def test_streams_are_the_classes_own() -> None:
    assert [signal.stream for signal in readings.signals("host")] == ["cpu", "memory", "storage", "network"]
    with pytest.raises(ValueError, match=r"streams of host: expected some of cpu.*got mood"):
        readings.signals("host", ("cpu", "mood"))
