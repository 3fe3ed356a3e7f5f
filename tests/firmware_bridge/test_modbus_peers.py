"""Modbus units that nobody here wrote: modbus-serial from npm, on a serial line and over TCP, read and written; and
libmodbus as the master of the units that we play.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from firmware_bridge.drivers.modbus import ModbusRtu, ModbusRtuOptions, ModbusTcp, ModbusTcpOptions, ModbusUnit
from firmware_bridge.expected import Expected
from firmware_bridge.guarded import Guarded
from firmware_bridge.peripherals.modbus import Room
from firmware_bridge.peripherals.play import Instrument, playing
from firmware_bridge.readings import Failed, Identity, Reading, Results
from firmware_bridge.registers import Kind, Point
from tests.firmware_bridge.far_end import mono_ms, until_results
from tests.npm import installed
from tests.servers import HOST, free_port, program, wait_until

PACKAGES = {"modbus-serial": "8.0.25", "serialport": "13.0.0"}
DEADLINE_S = 5.0
UNIT = 7
SLAVE = """
const {ServerSerial, ServerTCP} = require('modbus-serial');
const coils = {3: false}, registers = {};
const vector = {
  getInputRegister: (a) => a === 0 ? 0xFF38 : 430,
  getHoldingRegister: (a) => a in registers ? registers[a] : 0x1234 + a,
  getDiscreteInput: (a) => a === 1,
  getCoil: (a) => { if (!(a in coils)) throw {modbusErrorCode: 2}; return coils[a]; },
  setCoil: (a, v) => { if (!(a in coils)) throw {modbusErrorCode: 2}; coils[a] = v; },
  readDeviceIdentification: () => ({0: 'Acme', 1: 'IO-8', 2: '1.4'}),
  setRegister: (a, v) => { if (a === 9) return; if (a === 10) throw {modbusErrorCode: 3}; registers[a] = v; },
};
const [kind, where] = process.argv.slice(1);
const server = kind === 'tcp'
  ? new ServerTCP(vector, {host: '127.0.0.1', port: Number(where), unitID: 7})
  : new ServerSerial(vector, {port: where, baudRate: 9600, unitID: 7});
server.on('initialized', () => console.log('ready'));
server.on('serverError', (e) => { console.error(e); process.exit(1); });
"""
POINTS = {
    "cold": Point(table="input", address=0, kind=Kind.I16, scale=0.1),
    "humid": Point(table="input", address=1, scale=0.1),
    "wide": Point(address=0, kind=Kind.U32),
    "closed": Point(table="discrete", address=0, kind=Kind.BIT),
    "open": Point(table="discrete", address=1, kind=Kind.BIT),
    "fan": Point(table="coil", address=3, kind=Kind.BIT),
    "siren": Point(table="coil", address=4, kind=Kind.BIT),
    "limit": Point(address=4, kind=Kind.I16, scale=0.1),
    "far": Point(address=6, kind=Kind.F32, words="low_first"),
    "stuck": Point(address=9),
    "narrow": Point(address=10),
}
WRITABLE = {"fan": (0.0, 1.0), "siren": (), "limit": (), "far": (), "stuck": (), "narrow": ()}

pytestmark = [pytest.mark.server("npm"), pytest.mark.server("node"), pytest.mark.server("socat")]


@contextmanager
def slave(kind: str, where: str) -> Iterator[None]:
    folder = installed(PACKAGES) / "node_modules"
    node = program("node")
    assert node is not None
    process = subprocess.Popen(
        [node, "-e", SLAVE, kind, where], env={"NODE_PATH": str(folder)}, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def cable(directory: Path) -> Iterator[tuple[Path, Path]]:
    """The two ends of one."""
    socat = program("socat")
    assert socat is not None
    ends = directory / "near", directory / "far"
    process = subprocess.Popen([socat, *(f"pty,raw,echo=0,link={end}" for end in ends)])
    try:
        wait_until(lambda: all(end.exists() for end in ends), "the cable is there")
        yield ends
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["rtu", "tcp"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModbusUnit]:
    """Somebody else's, and our driver to it."""
    if request.param == "tcp":
        port = free_port()
        with slave("tcp", str(port)):
            yield over_tcp(port)
    else:
        with cable(tmp_path) as (near, far), slave("rtu", str(far)):
            told = ModbusRtuOptions(port=str(near), unit=UNIT, points=POINTS, writable=WRITABLE)
            yield ModbusRtu(told, mono_ms)


def over_tcp(port: int, unit: int = UNIT) -> ModbusTcp:
    told = ModbusTcpOptions(host=HOST, port=port, unit=unit, points=POINTS, writable=WRITABLE, timeout_ms=500)
    return ModbusTcp(told, mono_ms)


def values(results: Results) -> dict[str, float | str]:
    return {name: each.value if isinstance(each, Reading) else each.why for name, each in results.items()}


async def test_every_table_is_read_and_one_bad_address_costs_its_own_point(unit: ModbusUnit) -> None:
    results = await unit.read(("cold", "humid", "wide", "closed", "open", "fan", "siren"), DEADLINE_S)
    await unit.close()
    assert values(results) == {
        "cold": -20.0,
        "humid": 43.0,
        "wide": 0x12341235,
        "closed": 0,
        "open": 1,
        "fan": 0,
        "siren": "the device answers exception 2 (illegal data address)",
    }


async def test_what_is_written_is_read_back_and_compared(unit: ModbusUnit) -> None:
    wanted = {"fan": 1.0, "limit": -12.3, "far": 2.5, "stuck": 7.0, "siren": 1.0, "narrow": 3.0}
    results = await unit.write(wanted, DEADLINE_S)
    again = await unit.read(("fan", "limit", "far"), DEADLINE_S)
    await unit.close()
    assert values(results) == {
        "fan": 1.0,
        "limit": -12.3,
        "far": 2.5,
        "stuck": f"written, but read back as {0x1234 + 9}",
        "siren": "not written: the device answers exception 2 (illegal data address)",
        "narrow": "not written: the device answers exception 3 (illegal data value)",
    }
    assert values(again) == {"fan": 1.0, "limit": -12.3, "far": 2.5}


async def test_what_the_list_does_not_allow_is_never_sent(unit: ModbusUnit) -> None:
    results = await unit.write({"wide": 1.0, "fan": 2.0, "limit": 9_999.0, "nothing": 1.0}, DEADLINE_S)
    await unit.close()
    whys = [each.why.partition(":")[0] for each in results.values() if isinstance(each, Failed)]
    assert whys == ["not written"] * 4


async def test_a_connection_that_was_cut_is_there_again_and_an_absent_unit_is_silent() -> None:
    port = free_port()
    driver = over_tcp(port)
    with slave("tcp", str(port)):
        assert values(await driver.read(("open",), DEADLINE_S)) == {"open": 1}
        absent = over_tcp(port, unit=8)
        assert "no answer in time" in str(values(await absent.read(("open",), DEADLINE_S))["open"])
        await absent.close()
    gone = await driver.read(("open",), DEADLINE_S)
    assert isinstance(gone["open"], Failed)
    with slave("tcp", str(port)):
        back = await until_results(
            lambda: driver.read(("open",), DEADLINE_S),
            lambda results: isinstance(results["open"], Reading),
            "it is back",
        )
        assert values(back) == {"open": 1}
    await driver.close()


@pytest.mark.server("mbpoll")
async def test_libmodbus_reads_the_room_that_we_play(tmp_path: Path) -> None:
    mbpoll = program("mbpoll")
    assert mbpoll is not None
    async with playing(Instrument.MODBUS_ROOM, tmp_path / "line", 1):
        command = (mbpoll, "-m", "rtu", "-b", "9600", "-P", "none", "-a", str(Room.number), "-t", "3", "-r", "1")
        asked = await asyncio.create_subprocess_exec(
            *(*command, "-c", "2", "-1", "-o", "2", str(tmp_path / "line")), stdout=subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(asked.communicate(), 20)
    said = out.decode()
    with suppress(IndexError):
        temperature = int(said.partition("[1]:")[2].split()[0])
        assert 150 < temperature < 300, said
        return
    raise AssertionError(said)


async def test_it_tells_who_it_is_and_another_one_is_never_written_to(unit: ModbusUnit) -> None:
    assert await unit.identify(DEADLINE_S) == Identity(model="IO-8", firmware="1.4")
    meant, another = (Guarded(unit, Expected(model=model), mono_ms) for model in ("IO-8", "IO-9"))
    why = "quarantined: expected model IO-9, got IO-8"
    assert await another.write({"fan": 1}, DEADLINE_S) == {"fan": Failed(f"not written: {why}")}
    assert await another.read(("fan",), DEADLINE_S) == {"fan": Failed(why)}
    assert values(await unit.read(("fan",), DEADLINE_S)) == {"fan": 0}
    assert values(await meant.write({"fan": 1}, DEADLINE_S)) == {"fan": 1}
    await unit.close()
