import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU

from firmware_bridge.adapters.modbus import DeviceRefusal, Function, Question, WhoIsThere, Wire
from firmware_bridge.drivers.modbus import ModbusRtu, ModbusRtuOptions
from firmware_bridge.peripherals.modbus import Cabinet, Room
from firmware_bridge.peripherals.play import Instrument, playing
from firmware_bridge.readings import Failed, Quality, Reading, Results
from firmware_bridge.registers import Kind, Point
from tests.firmware_bridge.far_end import far_end, mono_ms, until_results

DEADLINE_S = 3.0
ROOM = {
    "temp_c": Point(table="input", address=0, kind=Kind.I16, scale=0.1),
    "humidity_pct": Point(table="input", address=1, scale=0.1),
    "audio_dbfs": Point(table="input", address=2, kind=Kind.I16, scale=0.1),
    "occupied": Point(table="discrete", address=0, kind=Kind.BIT),
}


def driver(link: Path, points: dict[str, Point], unit: int = Room.number, **options: object) -> ModbusRtu:
    told = ModbusRtuOptions(port=str(link), unit=unit, points=points, **options)  # type: ignore[arg-type]
    return ModbusRtu(told, mono_ms)


def framed(data: bytes) -> bytes:
    return data + FramerRTU.compute_CRC(data).to_bytes(2, "big")


def whys(results: Results) -> dict[str, str]:
    return {name: result.why if isinstance(result, Failed) else "" for name, result in results.items()}


def values(results: Results) -> dict[str, float]:
    return {name: result.value for name, result in results.items() if isinstance(result, Reading)}


def good(results: Results) -> bool:
    return all(isinstance(r, Reading) and r.quality is Quality.GOOD for r in results.values())


async def test_a_room_is_read_with_sign_and_scale(tmp_path: Path) -> None:
    async with playing(Instrument.MODBUS_ROOM, tmp_path / "line", 1):
        d = driver(tmp_path / "line", ROOM)
        results = await d.read(tuple(ROOM), DEADLINE_S)
        await d.close()
    assert good(results), results
    found = values(results)
    assert 15 < found["temp_c"] < 30
    assert 30 < found["humidity_pct"] < 60
    assert -70 < found["audio_dbfs"] < -10
    assert found["occupied"] in {0, 1}


async def test_an_address_that_the_device_lacks_costs_only_its_own_point(tmp_path: Path) -> None:
    points = {
        **ROOM,
        "beyond": Point(table="input", address=6),
        "coil": Point(table="coil", address=900, kind=Kind.BIT),
    }
    async with playing(Instrument.MODBUS_ROOM, tmp_path / "line", 1):
        d = driver(tmp_path / "line", points, hole_max=10)
        for _ in range(2):  # the second time it is asked for alone from the start
            results = await d.read(tuple(points), DEADLINE_S)
            told = whys(results)
            assert told.pop("beyond") == "the device answers exception 2 (illegal data address)"
            assert told.pop("coil") == "the device answers exception 2 (illegal data address)"
            assert set(told.values()) == {""}
        await d.close()


async def test_wires_of_one_line_take_turns(tmp_path: Path) -> None:
    async with playing(Instrument.MODBUS_CABINET, tmp_path / "line", 1):
        signal = driver(tmp_path / "line", {"plan": Point(table="input", address=0)}, Cabinet.number)
        mains = driver(tmp_path / "line", {"mains_v": Point(table="input", address=9, scale=0.1)}, Cabinet.number)
        nobody = driver(tmp_path / "line", {"x": Point(address=0)}, 99, timeout_ms=50, retries=0)
        for _ in range(5):
            plan, volts, none = await asyncio.gather(
                signal.read(("plan",), DEADLINE_S),
                mains.read(("mains_v",), DEADLINE_S),
                nobody.read(("x",), DEADLINE_S),
            )
            assert values(plan) == {"plan": 3}
            assert 220 < values(volts)["mains_v"] < 240
            assert whys(none) == {"x": "no answer in time: silence"}
        await signal.close()
        assert values(await mains.read(("mains_v",), DEADLINE_S))  # the port stays for who is left
        await mains.close()
        await nobody.close()


async def test_unplugged_it_is_a_fault_and_replugged_it_reads_again(tmp_path: Path) -> None:
    async with playing(Instrument.MODBUS_ROOM, tmp_path / "line", 1) as cable:
        d = driver(tmp_path / "line", ROOM, timeout_ms=100)
        assert good(await d.read(tuple(ROOM), DEADLINE_S))
        for _ in range(2):
            cable.unplug()
            gone = await until_results(
                lambda: d.read(tuple(ROOM), DEADLINE_S), lambda r: "No such file" in str(r), "the fault"
            )
            assert set(whys(gone)) == set(ROOM)
            cable.plug()
            await until_results(lambda: d.read(tuple(ROOM), DEADLINE_S), good, "readings again")
        await d.close()


async def test_a_terminal_that_takes_no_parity_is_a_fault_and_nothing_worse(tmp_path: Path) -> None:
    # kernels differ: some refuse it at once, some the second time, some take it
    async with far_end(tmp_path / "line"):
        for _ in range(3):
            d = driver(tmp_path / "line", {"x": Point(address=0)}, parity="even", data_bits=7, timeout_ms=100)
            why = whys(await d.read(("x",), DEADLINE_S))["x"]
            assert why.startswith(("the port does not take these settings", "no answer in time: silence"))
            await d.close()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x07",
        b"\x07\x03\x02\x00",  # cut short
        b"\x07\x03\x02\x00\x01\x00\x00",  # a wrong checksum
        framed(b"\x08\x03\x02\x00\x01"),  # another unit
        framed(b"\x07\x04\x02\x00\x01"),  # another function
        framed(b"\x07\x03\x04\x00\x01\x00\x02"),  # more than was asked
        framed(b"\x07\x03\x00"),  # less
        framed(b"\x07\x03\x01\x00"),  # half a register
        framed(b"\x07\x83\x02")[:-1],
        framed(b"\x07\x84\x02"),  # the exception of another question
        b"\xff" * 300,
        b"\x00" * 5000,
    ],
)
async def test_what_is_no_answer_is_never_taken_for_one(tmp_path: Path, bad: bytes) -> None:
    async with far_end(tmp_path / "line", lambda _data: bad) as far:
        d = driver(tmp_path / "line", {"x": Point(address=0)}, timeout_ms=60, retries=1)
        told = whys(await d.read(("x",), DEADLINE_S))["x"]
        await d.close()
    assert told.startswith("no answer in time")
    assert far.heard == [framed(b"\x07\x03\x00\x00\x00\x01")] * 2  # asked once more, and no oftener


async def test_an_answer_that_was_only_late_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    answers = [framed(b"\x07\x03\x02\x00\x01"), framed(b"\x07\x03\x02\x00\x02")]
    async with far_end(tmp_path / "line") as far:
        loop = asyncio.get_running_loop()

        def late(_data: bytes) -> None:
            # the first after its time is up, when the second would be awaited if the line were not left silent
            loop.call_later(0.15 if len(answers) == 2 else 0.08, far.terminal.say, answers.pop(0))

        far.answer = late
        d = driver(tmp_path / "line", {"x": Point(address=0)}, timeout_ms=100, retries=1)
        assert values(await d.read(("x",), DEADLINE_S)) == {"x": 2}
        await d.close()


async def test_an_answer_in_pieces_is_put_together(tmp_path: Path) -> None:
    whole = framed(b"\x07\x03\x02\x12\x34")
    async with far_end(tmp_path / "line") as far:

        def in_pieces(_data: bytes) -> None:
            for at in range(len(whole)):
                asyncio.get_running_loop().call_later(0.01 * at, far.terminal.say, whole[at : at + 1])

        far.answer = in_pieces
        d = driver(tmp_path / "line", {"x": Point(address=0)}, timeout_ms=1000)
        assert values(await d.read(("x",), DEADLINE_S)) == {"x": 0x1234}
        await d.close()


@pytest.mark.parametrize("function", list(Function))
@given(data=st.binary(max_size=300))
def test_no_bytes_whatever_break_the_codec(function: Function, data: bytes) -> None:
    question = Question(7, function, 0, 3)
    for each in (
        data,
        b"\x07" + data,
        b"\x07" + bytes([function]) + data,
        framed(b"\x07" + bytes([function]) + data),
    ):
        found = question.answer(each)
        assert found is None or isinstance(found, DeviceRefusal) or len(found) == 3


OBJECTS = b"\x2b\x0e\x01\x01\x00\x00\x02\x00\x04Acme\x01\x04IO-8"


@pytest.mark.parametrize("wire", list(Wire))
def test_who_is_there_is_taken_whole_or_not_at_all(wire: Wire) -> None:
    asked = WhoIsThere(7, wire, 0x1234 if wire is Wire.TCP else 0)

    def frame(body: bytes, unit: int = 7) -> bytes:
        if wire is Wire.RTU:
            return framed(bytes([unit]) + body)
        return b"\x12\x34\x00\x00" + (len(body) + 1).to_bytes(2, "big") + bytes([unit]) + body

    assert asked.frame() == frame(b"\x2b\x0e\x01\x00")
    whole = frame(OBJECTS)
    assert asked.answer(whole) == {0: b"Acme", 1: b"IO-8"}
    assert asked.answer(frame(b"\xab\x01")) == DeviceRefusal(1)
    assert [asked.answer(whole[:end]) for end in range(len(whole))] == [None] * len(whole)
    for bad in (
        frame(OBJECTS, unit=8),
        frame(OBJECTS[:-1]),
        frame(OBJECTS + b"\x00"),
        frame(b"\x2b\x0d" + OBJECTS[2:]),
        frame(b"\x03" + OBJECTS[1:]),
        frame(b"\xab"),
        whole + b"\x00",
    ):
        assert asked.answer(bad) is None


@given(data=st.binary(max_size=300))
def test_no_bytes_whatever_tell_who_is_there(data: bytes) -> None:
    for each in (data, framed(b"\x07\x2b" + data), framed(b"\x07\x2b\x0e\x01" + data)):
        found = WhoIsThere(7).answer(each)
        assert found is None or isinstance(found, dict)


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=125))
def test_registers_come_back_as_they_were_sent(registers: list[int]) -> None:
    body = b"".join(each.to_bytes(2, "big") for each in registers)
    frame = framed(bytes([7, 3, len(body)]) + body)
    question = Question(7, Function.HOLDING, 0, len(registers))
    assert question.answer(frame) == tuple(registers)
    assert all(question.answer(frame[:end]) is None for end in range(len(frame)))
