"""The driver of microcontrollers over SMP: Zephyr's server as a program, and a node with settings."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.adapters.smp import SmpSession
from firmware_bridge.adapters.smp_links import link_to
from firmware_bridge.drivers.smp import Smp, SmpOptions
from firmware_bridge.firmware.ports import DeviceRefusedError
from firmware_bridge.readings import Failed, Quality, Reading, Results
from firmware_bridge.smp_points import Form, Point
from tests.firmware_bridge.far_end import mono_ms
from tests.firmware_bridge.mcu import mcu
from tests.firmware_bridge.settings_node import node
from tests.firmware_bridge.smp_peers import peer
from tests.servers import HOST, free_port

DEADLINE_S = 20.0
REPORT = Point(source="setting", name="report", form=Form.U16)


@contextlib.contextmanager
def zephyr(directory: Path) -> Iterator[str]:
    """Zephyr's SMP server as a program; where it is. It is a 32 bit one."""
    program = directory / "server"
    program.write_bytes(peer("native_sim_serial_bigrx.exe").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen(
        [program, "-flash_in_ram"], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            assert process.stdout is not None
            said = b""
            while (found := re.search(rb"pseudotty: (/dev/pts/\d+)", said)) is None:
                line = process.stdout.readline()
                assert line, said
                said += line
            yield f"serial:{found[1].decode()}"
        finally:
            process.kill()


def values(results: Results) -> dict[str, float]:
    return {name: each.value for name, each in results.items() if isinstance(each, Reading)}


def why(results: Results, name: str) -> str:
    result = results[name]
    assert isinstance(result, Failed), result
    return result.why


def driver(at: str, points: dict[str, Point], **options: object) -> Smp:
    return Smp(SmpOptions(at=at, points=points, **options), mono_ms)  # type: ignore[arg-type]


@pytest.mark.server("/lib/ld-linux.so.2")
async def test_statistics_of_zephyr_are_read_and_what_it_lacks_costs_only_itself(tmp_path: Path) -> None:
    points = {
        "ticks": Point(group="smp_svr_stats", name="ticks", offset=0.5),
        "calls": Point(group="flash_sim_thresholds", name="max_write_calls"),
        "absent": Point(group="smp_svr_stats", name="absent"),
        "nowhere": Point(group="nowhere", name="x"),
        "report": REPORT,
        "confirmed": Point(source="image"),
    }
    with zephyr(tmp_path) as at:
        d = driver(at, points, writable={"report": ()})
        results = await d.read(tuple(points), DEADLINE_S)
        assert set(values(results)) == {"ticks", "calls"}
        assert values(results)["ticks"] % 1 == 0.5
        assert why(results, "absent") == "the device has no absent in group smp_svr_stats"
        assert "error" in why(results, "nowhere")
        assert why(results, "report") == "the device answers error 5 of group 3"
        assert "error" in why(results, "confirmed")
        written = await d.write({"report": 30}, DEADLINE_S)
        assert why(written, "report") == "not written: the device answers error 5 of group 3"
        await d.close()


@pytest.mark.server("qemu-system-arm")
async def test_whether_the_image_that_runs_is_confirmed_is_a_point() -> None:
    with mcu() as device:
        d = driver(device.at, {"confirmed": Point(source="image")})
        result = (await d.read(("confirmed",), DEADLINE_S))["confirmed"]
        assert isinstance(result, Reading)
        assert (result.value, result.quality) == (1, Quality.GOOD)


async def test_a_setting_is_written_read_back_and_kept() -> None:
    async with node(report=b"\x1e\x00") as found:
        d = driver(f"udp:{HOST}:{found.port}", {"report_s": REPORT}, writable={"report_s": (10, 60)})
        assert values(await d.read(("report_s",), DEADLINE_S)) == {"report_s": 30}
        assert values(await d.write({"report_s": 60}, DEADLINE_S)) == {"report_s": 60}
        assert found.settings == found.saved == {"report": b"\x3c\x00"}
        assert why(await d.write({"report_s": 61}, DEADLINE_S), "report_s") == (
            "not written: expected one of 10, 60, got 61"
        )
        found.deaf = True
        assert why(await d.write({"report_s": 10}, DEADLINE_S), "report_s") == (
            "written as 0a00, but read back as 3c00"
        )
        found.settings["report"] = b"\x01"
        assert why(await d.read(("report_s",), DEADLINE_S), "report_s") == "expected 2 bytes of u16, got 1"


async def test_nothing_is_written_that_no_list_allows_or_that_no_bytes_can_say() -> None:
    async with node(report=b"\x1e\x00") as found:
        d = driver(f"udp:{HOST}:{found.port}", {"report_s": REPORT})
        assert "not on the list" in why(await d.write({"report_s": 60}, DEADLINE_S), "report_s")
        d = driver(f"udp:{HOST}:{found.port}", {"report_s": REPORT}, writable={"report_s": ()})
        for value in (-1, 65_536, float("nan"), float("inf")):
            assert "expected what u16 can hold" in why(await d.write({"report_s": value}, DEADLINE_S), "report_s")
        assert found.settings == {"report": b"\x1e\x00"}


async def test_where_nobody_is_every_point_is_a_failure() -> None:
    d = driver(f"tcp:{HOST}:{free_port()}", {"a": REPORT, "b": Point(group="g", name="n")}, writable={"a": ()})
    results = await d.read(("a", "b"), DEADLINE_S)
    assert values(results) == {}
    assert set(results) == {"a", "b"}
    assert "unknown whether" in why(await d.write({"a": 1}, DEADLINE_S), "a")


async def test_an_upload_that_gets_nowhere_ends() -> None:
    async with node() as found:
        session = SmpSession(lambda: link_to(f"udp:{HOST}:{found.port}"))
        with pytest.raises(DeviceRefusedError, match="expected an offset above 7 of 1000, got 7"):
            assert {offset async for offset in session.upload(b"x" * 1000)} == set()
        await session.close()


async def test_an_answer_that_comes_late_is_no_answer_to_the_next_question() -> None:
    async with node(report=b"\x1e\x00", other=b"\x07\x00") as found:
        points = {"a": REPORT, "b": Point(source="setting", name="other", form=Form.U16)}
        d = driver(f"udp:{HOST}:{found.port}", points)
        found.late = True
        for _ in range(3):
            assert values(await d.read(("a", "b"), DEADLINE_S)) == {"a": 30, "b": 7}


def test_the_driver_loads_no_library_that_is_larger_than_the_agent() -> None:
    code = (
        "import sys, firmware_bridge.drivers.smp;"
        "print({'cryptography', 'smpclient', 'pydantic', 'bleak'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"at": "usb"}, "expected serial:PATH"),
        ({"at": "serial:/dev/ttyUSB0"}, "stays with the device"),
        ({"writable": {"b": ()}}, "writable: expected of a, got b"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        SmpOptions(**{"at": "udp:localhost:1337", "points": {"a": REPORT}, **options})  # type: ignore[arg-type]


@given(form=st.sampled_from([form for form in Form if form is not Form.F32]), data=st.binary(min_size=4, max_size=4))
def test_what_is_written_means_what_was_asked(form: Form, data: bytes) -> None:
    size = int(form[1:]) // 8
    point = Point(source="setting", name="x", form=form, scale=0.5, offset=-3)
    assert point.bytes_of(point.value_of(data[:size])) == data[:size]
