"""The driver of signal controllers, against Net-SNMP's agent."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import ntcip
from firmware_bridge.adapters.snmp import parse_address
from firmware_bridge.adapters.snmp_codec import Question
from firmware_bridge.drivers.ntcip1202 import Ntcip1202, NtcipOptions
from firmware_bridge.readings import Failed, Quality, Reading, Results
from tests.firmware_bridge.far_end import mono_ms
from tests.firmware_bridge.snmpd import TIME_S, Controller, controller
from tests.servers import HOST, free_port

DEADLINE_S = 10.0
VERSIONS: tuple[Literal["1", "2c"], ...] = ("1", "2c")
CROSSING = {
    "plan": 3,
    "mode": 2,
    "cycle_s": 90,
    "phase": 3,
    "offset_s": 17,
    "conflict_ok": 1,
    "volume_vph": 900,
    "occupancy_pct": 20.5,
    "reds": 0b1011_1011,
    "yellows": 0,
    "greens": 0b0100_0100,
    "time_s": TIME_S,
}


@pytest.fixture
def crossing(tmp_path: Path) -> Iterator[Controller]:
    with controller(tmp_path) as found:
        yield found


def driver(port: int, **options: object) -> Ntcip1202:
    told = {"at": f"udp:{HOST}:{port}", "community": "reads", "write_community": "writes", "detectors": (1, 2)}
    return Ntcip1202(NtcipOptions(**{**told, **options}), mono_ms)  # type: ignore[arg-type]


def values(results: Results) -> dict[str, float]:
    return {name: result.value for name, result in results.items() if isinstance(result, Reading)}


def why(results: Results, name: str) -> str:
    result = results[name]
    assert isinstance(result, Failed), result
    return result.why


@pytest.mark.server("snmpd")
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_crossing_is_read_and_tells_its_own_time(crossing: Controller, version: str) -> None:
    d = driver(crossing.port, version=version)
    results = await d.read(ntcip.POINTS, DEADLINE_S)
    await d.close()
    assert values(results) == CROSSING
    for result in results.values():
        assert isinstance(result, Reading)
        assert result.quality is Quality.GOOD
        assert result.device_ms == TIME_S * 1000


@pytest.mark.server("snmpd")
@pytest.mark.parametrize("version", VERSIONS)
async def test_an_object_that_the_controller_lacks_costs_only_the_points_that_need_it(
    crossing: Controller, version: str
) -> None:
    crossing.hold(ntcip.CONTROL_STATUS, None)
    crossing.hold(ntcip.GLOBAL_TIME, None)
    d = driver(crossing.port, version=version)
    results = await d.read(ntcip.POINTS, DEADLINE_S)
    await d.close()
    assert {name for name in results if isinstance(results[name], Failed)} == {"mode", "time_s"}
    assert why(results, "mode") == "the agent has no such object"
    assert values(results) == {name: value for name, value in CROSSING.items() if name not in {"mode", "time_s"}}


@pytest.mark.server("snmpd")
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_plan_is_written_once_it_is_allowed_and_read_back(crossing: Controller, version: str) -> None:
    d = driver(crossing.port, version=version, writable={"plan": (1, 2), "time_s": ()})
    assert values(await d.write({"plan": 2, "time_s": TIME_S + 60}, DEADLINE_S)) == {"plan": 2, "time_s": TIME_S + 60}
    assert crossing.value(ntcip.PATTERN_CONTROL) == 2
    assert crossing.value(ntcip.GLOBAL_TIME) == TIME_S + 60
    assert why(await d.write({"plan": 3}, DEADLINE_S), "plan") == "not written: expected one of 1, 2, got 3"
    assert crossing.value(ntcip.PATTERN_CONTROL) == 2
    await d.close()


@pytest.mark.server("snmpd")
async def test_nothing_is_written_while_the_monitor_reports_a_conflict_or_cannot_be_read(
    crossing: Controller,
) -> None:
    d = driver(crossing.port, writable={"plan": ()})
    for oid, value, expected in (
        (ntcip.FLASH_STATUS, 6, "holds the crossing in flash"),
        (ntcip.FLASH_STATUS, 2, ""),
        (ntcip.ALARM_STATUS_1, 0b1001_0000, "holds the crossing in flash"),
        (ntcip.ALARM_STATUS_1, None, "cannot be read: the agent has no such object"),
    ):
        crossing.hold(oid, value)
        results = await d.write({"plan": 2}, DEADLINE_S)
        if expected:
            assert why(results, "plan") == f"not written: the conflict monitor {expected}"
            assert crossing.value(ntcip.PATTERN_CONTROL) == 0
        else:
            assert values(results) == {"plan": 2}
            crossing.hold(ntcip.PATTERN_CONTROL, 0)
    await d.close()


@pytest.mark.server("snmpd")
async def test_nothing_is_written_that_no_list_allows(crossing: Controller) -> None:
    d = driver(crossing.port)
    expected = "not written: not on the list of what may be written: nothing is"
    assert why(await d.write({"plan": 2}, DEADLINE_S), "plan") == expected
    assert crossing.value(ntcip.PATTERN_CONTROL) == 0
    await d.close()


@pytest.mark.server("snmpd")
async def test_what_was_taken_and_not_done_shows_when_it_is_read_back(crossing: Controller) -> None:
    crossing.be_deaf_to(ntcip.PATTERN_CONTROL)
    d = driver(crossing.port, writable={"plan": ()})
    assert why(await d.write({"plan": 2}, DEADLINE_S), "plan") == "written, but read back as 0"
    await d.close()


@pytest.mark.server("snmpd")
@pytest.mark.parametrize(("version", "told"), [("1", "no such object"), ("2c", "gives no access")])
async def test_a_community_that_may_only_read_writes_nothing(crossing: Controller, version: str, told: str) -> None:
    d = driver(crossing.port, version=version, write_community="reads", writable={"plan": ()})
    assert told in why(await d.write({"plan": 2}, DEADLINE_S), "plan")
    assert crossing.value(ntcip.PATTERN_CONTROL) == 0
    await d.close()


@pytest.mark.server("snmpd")
async def test_wires_of_one_controller_take_turns_and_a_wrong_community_is_silence(crossing: Controller) -> None:
    signal, monitor = driver(crossing.port), driver(crossing.port)
    found = await asyncio.gather(*(d.read(("plan", "conflict_ok"), DEADLINE_S) for d in (signal, monitor) * 5))
    assert [values(results) for results in found] == [{"plan": 3, "conflict_ok": 1}] * 10
    await signal.close()
    assert values(await monitor.read(("plan",), DEADLINE_S)) == {"plan": 3}
    await monitor.close()
    stranger = driver(crossing.port, community="guessed", timeout_ms=100, retries=1)
    assert why(await stranger.read(("plan",), DEADLINE_S), "plan") == "the agent did not answer within 100 ms"
    await stranger.close()


@pytest.mark.server("snmpd")
def test_a_technicians_command_writes_by_the_same_rules(crossing: Controller) -> None:
    command = [sys.executable, "-m", "firmware_bridge", "write", "--driver", "ntcip1202", "plan=2", "--json"]
    for option in (
        f"at=udp:{HOST}:{crossing.port}",
        "community=reads",
        "write_community=writes",
        "writable.plan=[2]",
    ):
        command += ["-o", option]
    crossing.hold(ntcip.FLASH_STATUS, 6)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert crossing.value(ntcip.PATTERN_CONTROL) == 0
    crossing.hold(ntcip.FLASH_STATUS, 2)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert crossing.value(ntcip.PATTERN_CONTROL) == 2


async def test_where_nobody_is_every_point_is_a_failure_at_once() -> None:
    d = driver(free_port(), retries=0)
    assert why(await d.read(("plan", "phase"), DEADLINE_S), "phase") == "Connection refused"
    assert why(await d.write({"plan": 1}, DEADLINE_S), "plan").startswith("not written: ")
    await d.close()


def test_a_setting_that_there_is_not_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match="writable: expected of plan, time_s, got hold"):
        NtcipOptions(at="udp:192.0.2.20", writable={"hold": ()})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("udp:192.0.2.20", ("192.0.2.20", 161)),
        ("udp:controller:1161", ("controller", 1161)),
        ("udp:[2001:db8::7]:1161", ("2001:db8::7", 1161)),
        ("udp:[2001:db8::7]", ("2001:db8::7", 161)),
        ("udp:2001:db8::7", None),
        ("udp:controller:0", None),
        ("udp:controller:65536", None),
        ("tcp:controller:161", None),
        ("udp:", None),
        ("controller", None),
    ],
)
def test_what_is_an_address(text: str, address: tuple[str, int] | None) -> None:
    if address is not None:
        assert parse_address(text) == address
    else:
        with pytest.raises(ValueError, match="at: expected udp:HOST or udp:HOST:PORT, got"):
            NtcipOptions(at=text)


@given(data=st.binary(max_size=300))
@pytest.mark.parametrize("version", VERSIONS)
def test_no_bytes_whatever_break_the_codec(version: Literal["1", "2c"], data: bytes) -> None:
    question = Question(version, "reads", 7, (ntcip.FLASH_STATUS, ntcip.GLOBAL_TIME))
    whole = question.message()
    for each in (data, whole[: len(data)], whole[:8] + data, whole[:-2] + data):
        assert question.answer(each) is None  # a question is no answer either


def test_its_library_is_a_codec_and_loads_no_engine() -> None:
    code = (
        "import sys, firmware_bridge.drivers.ntcip1202;"
        "print({'cryptography', 'pysnmp.hlapi', 'pysnmp.entity', 'pysmi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
