"""``modbus_rtu`` and ``modbus_tcp``: one unit on an RS-485 line or behind a TCP connection, by a register map that
the profile gives.
"""

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Annotated, ClassVar, Final, TypeAlias, TypeVar

from msgspec import Meta, Struct, field

from broker_config.text import shown
from firmware_bridge.adapters import question_bus, serial_port, tcp_port
from firmware_bridge.adapters.modbus import TRANSACTIONS, DeviceRefusal, Function, Order, Question, WhoIsThere, Wire
from firmware_bridge.adapters.question_bus import NoAnswerError, PortClosedError, QuestionBus
from firmware_bridge.adapters.serial_port import SerialOptions
from firmware_bridge.adapters.tcp_port import TcpOptions
from firmware_bridge.driver import Driver, MonoMs, Resource
from firmware_bridge.readings import Failed, Identity, Quality, Reading, Result, Results
from firmware_bridge.registers import Block, Point, is_as_written, plan, value, words_of

T = TypeVar("T")
FUNCTIONS: Final = {
    "coil": Function.COILS,
    "discrete": Function.DISCRETE,
    "holding": Function.HOLDING,
    "input": Function.INPUT,
}
SILENT_CHARS: Final = 3.5
"""Between two frames. Source: Modbus over Serial Line V1.02, section 2.5.1.1"""
POINTS_MAX: Final = 64


Points = Annotated[dict[str, Point], Meta(min_length=1, max_length=POINTS_MAX)]
Writable: TypeAlias = dict[str, tuple[float, ...]]


def _check_writable(points: Mapping[str, Point], writable: Writable) -> None:
    """Raises ValueError."""
    for name, values in writable.items():
        if name not in points:
            raise ValueError(f"writable: expected of {', '.join(points)[:80]}, got {name[:40]!r}")
        for each in values or (0.0,):
            try:
                words_of(points[name], each)
            except ValueError as error:
                raise ValueError(f"writable.{name}: {error}") from error


class ModbusRtuOptions(SerialOptions, frozen=True, kw_only=True):
    """``points``: our point -> where it is. ``pause_ms``: between two frames, at least; the standard's 3.5 characters
    are always kept. ``hole_max``: unasked addresses that one question may run over. ``writable``: coil or holding
    register -> the values that may be written, an empty list is each that it takes; nothing else is ever written.
    """

    unit: Annotated[int, Meta(ge=1, le=247)]
    points: Points
    timeout_ms: Annotated[int, Meta(ge=10, le=10_000)] = 500
    retries: Annotated[int, Meta(ge=0, le=5)] = 1
    pause_ms: Annotated[int, Meta(ge=0, le=1000)] = 5
    hole_max: Annotated[int, Meta(ge=0, le=100)] = 0
    writable: Writable = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_writable(self.points, self.writable)


class ModbusTcpOptions(TcpOptions, frozen=True, kw_only=True):
    """As of Modbus RTU. ``unit``: 255 is the device itself, others are behind it."""

    port: Annotated[int, Meta(ge=1, le=65_535)] = 502
    unit: Annotated[int, Meta(ge=1, le=255)] = 1
    points: Points
    timeout_ms: Annotated[int, Meta(ge=10, le=10_000)] = 1_000
    retries: Annotated[int, Meta(ge=0, le=5)] = 1
    pause_ms: Annotated[int, Meta(ge=0, le=1000)] = 0
    hole_max: Annotated[int, Meta(ge=0, le=100)] = 0
    writable: Writable = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_writable(self.points, self.writable)


class ModbusUnit(Driver):
    """Wires that name the same port share it, one question at a time."""

    points = ()
    wire: ClassVar[Wire]

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, ModbusRtuOptions | ModbusTcpOptions)
        self._told = options
        self._pause_s = options.pause_ms / 1000
        self._alone: set[str] = set()
        """Points whose block was refused: each is asked for by itself, so that one bad address costs only its own."""
        self._bus: QuestionBus | None = None
        self._transactions = cycle(range(1, TRANSACTIONS + 1)) if self.wire is Wire.TCP else cycle((0,))

    @classmethod
    def points_of(cls, options: Struct) -> tuple[str, ...]:
        assert isinstance(options, ModbusRtuOptions | ModbusTcpOptions)
        return tuple(options.points)

    @abstractmethod
    def _join(self) -> QuestionBus:
        """The bus of its port."""

    @property
    @abstractmethod
    def _port(self) -> str:
        """The name of its port."""

    def _joined(self) -> QuestionBus:
        if self._bus is None:
            self._bus = self._join()
        return self._bus

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        bus = self._joined()
        until_s = asyncio.get_running_loop().time() + deadline_s
        out: dict[str, Result] = {}
        todo = self._plan(points)
        while todo:
            block = todo.pop(0)
            try:
                answer = await self._ask(bus, block, until_s)
            except (NoAnswerError, PortClosedError) as error:
                # a unit that is silent now is not asked the rest of it
                out |= {point: Failed(str(error)) for each in (block, *todo) for point in each.points}
                break
            if isinstance(answer, DeviceRefusal) and len(block.points) > 1:
                self._alone.update(block.points)
                todo[:0] = self._plan(block.points)
            elif isinstance(answer, DeviceRefusal):
                out[block.points[0]] = Failed(str(answer))
            else:
                out |= self._results(block, answer)
        return out

    def _plan(self, asked: Sequence[str]) -> list[Block]:
        def planned(names: Sequence[str]) -> list[Block]:
            return plan(
                self._told.points,
                names,
                hole_max=self._told.hole_max,
                bits_max=Function.COILS.count_max,
                regs_max=Function.INPUT.count_max,
            )

        together = [name for name in asked if name not in self._alone]
        return planned(together) + [block for name in asked if name in self._alone for block in planned((name,))]

    async def write(self, settings: Mapping[str, float], deadline_s: float) -> Results:
        until_s = asyncio.get_running_loop().time() + deadline_s
        return {name: await self._write(name, wanted, until_s) for name, wanted in settings.items()}

    async def _write(self, name: str, wanted: float, until_s: float) -> Result:
        allowed = self._told.writable.get(name)
        if allowed is None:
            return Failed(f"not written: expected of {', '.join(self._told.writable) or 'none'}")
        if allowed and wanted not in allowed:
            return Failed(
                f"not written: expected one of {', '.join(f'{each:g}' for each in allowed)}, got {wanted:g}"
            )
        point = self._told.points[name]
        assert point.table in {"coil", "holding"}, "checked with the options"
        try:
            words = words_of(point, wanted)
        except ValueError as error:
            return Failed(f"not written: {error}")
        unit, bus = self._told.unit, self._joined()
        order = Order(unit, point.table, point.address, words, self.wire, next(self._transactions))
        try:
            taken = await self._said(bus, order.frame(), order.answer, until_s, tries=1)
        except (NoAnswerError, PortClosedError):
            taken = True  # it may have been done: that shows when it is read
        if isinstance(taken, DeviceRefusal):
            return Failed(f"not written: {taken}")
        found = (await self.read((name,), until_s - asyncio.get_running_loop().time()))[name]
        if isinstance(found, Failed):
            return Failed(f"unknown whether it was written: {found.why}")
        return (
            found
            if is_as_written(point, wanted, found.value)
            else Failed(f"written, but read back as {found.value:g}")
        )

    async def identify(self, deadline_s: float) -> Identity | Failed:
        """By function 43, which many units do not have; the standard's own part of it knows no serial number."""
        until_s = asyncio.get_running_loop().time() + deadline_s
        asked = WhoIsThere(self._told.unit, self.wire, next(self._transactions))
        try:
            told: dict[int, bytes] | DeviceRefusal = await self._said(
                self._joined(), asked.frame(), asked.answer, until_s, tries=1 + self._told.retries
            )
        except (NoAnswerError, PortClosedError) as error:
            return Failed(str(error))
        if isinstance(told, DeviceRefusal):
            return Failed(str(told))
        return Identity(model=shown(told.get(1, b""), 64), firmware=shown(told.get(2, b""), 64))

    async def _ask(self, bus: QuestionBus, block: Block, until_s: float) -> tuple[int, ...] | DeviceRefusal:
        question = Question(
            self._told.unit,
            FUNCTIONS[block.table],
            block.address,
            block.length,
            self.wire,
            next(self._transactions),
        )
        return await self._said(bus, question.frame(), question.answer, until_s, tries=1 + self._told.retries)

    async def _said(
        self,
        bus: QuestionBus,
        frame: bytes,
        answer: Callable[[bytes], T | None],
        until_s: float,
        *,
        tries: int,
    ) -> T:
        """Raises NoAnswerError, PortClosedError."""
        loop = asyncio.get_running_loop()
        while True:
            tries -= 1
            left_s = until_s - loop.time()
            if left_s <= 0:
                raise NoAnswerError("no time left for it")
            try:
                async with asyncio.timeout_at(until_s):  # another driver may have the line
                    return await bus.ask(
                        frame,
                        answer,
                        timeout_s=min(left_s, self._told.timeout_ms / 1000),
                        pause_s=self._pause_s,
                    )
            except TimeoutError:
                raise NoAnswerError("the line was not free in time") from None
            except NoAnswerError:
                if not tries:
                    raise

    def _results(self, block: Block, words: tuple[int, ...]) -> Mapping[str, Result]:
        now_ms = self._mono_ms()
        out: dict[str, Result] = {}
        for name in block.points:
            point = self._told.points[name]
            start = point.address - block.address
            found = value(point, words[start : start + point.count])
            if found is None:
                out[name] = Failed("the device has no value")
            else:
                out[name] = Reading(found, Quality.GOOD if math.isfinite(found) else Quality.BAD, None, now_ms)
        return out

    async def close(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            await question_bus.leave(self._port, bus)


class ModbusRtu(ModbusUnit):
    """On a serial line."""

    kind = "modbus_rtu"
    summary = "Modbus RTU unit on a serial port: registers and bits by a map in the profile"
    options_type = ModbusRtuOptions
    wire = Wire.RTU
    example = (
        'port = "/dev/serial/by-id/usb-FTDI_RS485-if00"\nunit = 7\n'
        'points.temp_c = { table = "input", address = 0, kind = "i16", scale = 0.1 }'
    )

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, ModbusRtuOptions)
        self._line = options
        self._pause_s = max(self._pause_s, SILENT_CHARS * options.char_s)

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, ModbusRtuOptions)
        return (options.port, (cls.kind, *options.line()))

    def _join(self) -> QuestionBus:
        return serial_port.joined(self._line)

    @property
    def _port(self) -> str:
        return self._line.port


class ModbusTcp(ModbusUnit):
    """Behind a TCP connection."""

    kind = "modbus_tcp"
    summary = "Modbus TCP device, or a unit behind one: registers and bits by a map in the profile"
    options_type = ModbusTcpOptions
    wire = Wire.TCP
    example = (
        'host = "192.0.2.30"\nunit = 1\n'
        'points.door_open = { table = "discrete", address = 0, kind = "bit" }\n'
        'points.fan = { table = "coil", address = 3, kind = "bit" }\nwritable = { fan = [0, 1] }'
    )

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, ModbusTcpOptions)
        self._where = options

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, ModbusTcpOptions)
        return (options.name, (cls.kind,))

    def _join(self) -> QuestionBus:
        return tcp_port.joined(self._where)

    @property
    def _port(self) -> str:
        return self._where.name
