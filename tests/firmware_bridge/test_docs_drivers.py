"""docs/drivers.md does what it says: its profile is read, and its driver is run as it stands there."""

import asyncio
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from broker_config import device_classes
from edge_agent import profile
from firmware_bridge.peripherals.play import Instrument, playing
from firmware_bridge.readings import Failed, Reading, Results
from firmware_bridge.registry import DRIVERS, driver_class
from tests.firmware_bridge.far_end import far_end, mono_ms, until_results

DOC = Path(__file__).parents[2] / "docs" / "drivers.md"
DEADLINE_S = 5.0
WARM = b"\x02\x00\xd7\x30\x00"  # begins, 21.5 degrees, 48 %, heater off


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOC.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"expected one block of {language}, got {len(found)}"
    return str(found[0])


@pytest.fixture
def probe5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's driver, entered as the page says; a module of its own for each test."""
    name = f"probe5_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(block("python"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DRIVERS, "probe5", (name, "Probe5"))
    return importlib.import_module(name)


class Probe:
    """The far end: it answers each whole question, unless it is told otherwise."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.body = WARM
        self.obeys = True
        self.asked: list[bytes] = []

    def __call__(self, data: bytes) -> bytes | None:
        self.asked.append(data)
        if data[1:2] == b"H":
            if self.obeys:
                self.body = self.body[:4] + data[2:3]
            return None  # so that only reading back can tell
        framed: bytes = self._module.framed(self.body)
        return framed


def driver(link: Path, **options: object) -> Any:
    cls = driver_class("probe5")
    return cls(cls.options_type(port=str(link), timeout_ms=200, **options), mono_ms)


def values(results: Results) -> dict[str, float]:
    return {name: result.value for name, result in results.items() if isinstance(result, Reading)}


async def test_the_pages_driver_reads_and_what_has_no_value_costs_only_its_point(
    tmp_path: Path, probe5: ModuleType
) -> None:
    far = Probe(probe5)
    async with far_end(tmp_path / "port", far):
        d = driver(tmp_path / "port")
        assert values(await d.read(d.points, DEADLINE_S)) == {"temp_c": 21.5, "humidity_pct": 48, "heater": 0}
        far.body = b"\x02\x7f\xff\x30\x01"
        told = await d.read(d.points, DEADLINE_S)
        assert told["temp_c"] == Failed("the device has no value")
        assert values(told) == {"humidity_pct": 48, "heater": 1}
        await d.close()


def test_its_answer_is_taken_whole_and_undamaged_or_not_at_all(probe5: ModuleType) -> None:
    whole = probe5.framed(WARM)
    assert probe5.answer(whole) == (21.5, 48.0, 0.0)
    assert [probe5.answer(whole[:end]) for end in range(len(whole))] == [None] * len(whole)
    for at in range(len(whole)):
        assert probe5.answer(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]) is None
    for wrong in (b"\x03" + WARM[1:], WARM[:3] + b"\x65\x00", WARM[:4] + b"\x02"):
        assert probe5.answer(probe5.framed(wrong)) is None


async def test_it_writes_only_from_its_list_and_reads_back(tmp_path: Path, probe5: ModuleType) -> None:
    far = Probe(probe5)
    async with far_end(tmp_path / "port", far):
        locked, free = (
            driver(tmp_path / "port"),
            driver(tmp_path / "port", writable={"heater": (0, 1), "temp_c": (1,)}),
        )
        for d, settings in ((locked, {"heater": 1}), (free, {"heater": 2}), (free, {"temp_c": 1})):
            told = await d.write(settings, DEADLINE_S)
            assert [result.why[:12] for result in told.values()] == ["not written:"]
        assert far.asked == []
        assert values(await free.write({"heater": 1}, DEADLINE_S)) == {"heater": 1}
        far.obeys = False
        assert await free.write({"heater": 0}, DEADLINE_S) == {"heater": Failed("written, but read back as 1")}
        await locked.close()
        await free.close()


async def test_it_ends_in_time_and_reads_again_after_its_cable_was_pulled(tmp_path: Path, probe5: ModuleType) -> None:
    far = Probe(probe5)
    async with far_end(tmp_path / "port", far) as cable:
        d = driver(tmp_path / "port")
        assert values(await d.read(d.points, DEADLINE_S))
        cable.terminal.unplug()
        gone = await until_results(
            lambda: d.read(d.points, DEADLINE_S), lambda results: "No such file" in str(results), "the fault"
        )
        assert set(gone) == set(d.points)
        cable.terminal.plug()
        await until_results(lambda: d.read(d.points, DEADLINE_S), lambda results: bool(values(results)), "readings")
        cable.answer = lambda _data: None
        async with asyncio.timeout(DEADLINE_S):
            assert not values(await d.read(d.points, 0.1))
        await d.close()


async def test_the_pages_profile_reads_a_room_that_is_played(tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    file.write_text(block("toml"))
    room = device_classes.load("interrogation_room")
    faults: list[str] = []
    profile.read(file, {}, room, tmp_path, faults)
    assert faults[0] == "addresses.line: missing; profile room has no default"
    faults.clear()
    found = profile.read(file, {"line": str(tmp_path / "line")}, room, tmp_path, faults)
    assert not faults
    assert found is not None
    (wire,) = found.wires
    assert (wire.fields, wire.points, wire.every_s) == (("temp_c", "humidity_pct"), ("t1", "h1"), 5)
    async with playing(Instrument.MODBUS_ROOM, tmp_path / "line", 1):
        d = driver_class(wire.driver)(wire.options, mono_ms)
        told = values(await d.read(wire.points, DEADLINE_S))
        await d.close()
    assert 15 < told["t1"] < 30
    assert 30 < told["h1"] < 60
