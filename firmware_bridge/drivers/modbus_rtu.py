"""``modbus_rtu``: one unit on an RS-485 line, by a register map that the profile gives."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from firmware_bridge.adapters import serial_bus
from firmware_bridge.adapters.modbus import DeviceRefusal, Function, Question
from firmware_bridge.adapters.serial_bus import NoAnswerError, SerialBus
from firmware_bridge.adapters.serial_port import PortClosedError, SerialOptions
from firmware_bridge.driver import Driver, MonoMs, Resource
from firmware_bridge.readings import Failed, Quality, Reading, Result, Results
from firmware_bridge.registers import Block, Point, plan, value

FUNCTIONS: Final = {
    "coil": Function.COILS,
    "discrete": Function.DISCRETE,
    "holding": Function.HOLDING,
    "input": Function.INPUT,
}
SILENT_CHARS: Final = 3.5
"""Between two frames. Source: Modbus over Serial Line V1.02, section 2.5.1.1"""
POINTS_MAX: Final = 64


class ModbusRtuOptions(SerialOptions, frozen=True, kw_only=True):
    """``points``: our point -> where it is. ``pause_ms``: between two frames, at least; the standard's 3.5 characters
    are always kept. ``hole_max``: unasked addresses that one question may run over.
    """

    unit: Annotated[int, Meta(ge=1, le=247)]
    points: Annotated[dict[str, Point], Meta(min_length=1, max_length=POINTS_MAX)]
    timeout_ms: Annotated[int, Meta(ge=10, le=10_000)] = 500
    retries: Annotated[int, Meta(ge=0, le=5)] = 1
    pause_ms: Annotated[int, Meta(ge=0, le=1000)] = 5
    hole_max: Annotated[int, Meta(ge=0, le=100)] = 0


class ModbusRtu(Driver):
    """Wires that name the same port share its line, one question at a time."""

    kind = "modbus_rtu"
    summary = "Modbus RTU unit on a serial port: registers and bits by a map in the profile"
    points = ()
    options_type = ModbusRtuOptions
    example = (
        'port = "/dev/serial/by-id/usb-FTDI_RS485-if00"\nunit = 7\n'
        'points.temp_c = { table = "input", address = 0, kind = "i16", scale = 0.1 }'
    )

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, ModbusRtuOptions)
        self._told = options
        self._pause_s = max(options.pause_ms / 1000, SILENT_CHARS * options.char_s)
        self._alone: set[str] = set()
        """Points whose block was refused: each is asked for by itself, so that one bad address costs only its own."""
        self._bus: SerialBus | None = None

    @classmethod
    def points_of(cls, options: Struct) -> tuple[str, ...]:
        assert isinstance(options, ModbusRtuOptions)
        return tuple(options.points)

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, ModbusRtuOptions)
        return (options.port, (cls.kind, *options.line()))

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        if self._bus is None:
            self._bus = serial_bus.join(self._told)
        until_s = asyncio.get_running_loop().time() + deadline_s
        out: dict[str, Result] = {}
        todo = self._plan(points)
        while todo:
            block = todo.pop(0)
            try:
                answer = await self._ask(self._bus, block, until_s)
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

    async def _ask(self, bus: SerialBus, block: Block, until_s: float) -> tuple[int, ...] | DeviceRefusal:
        question = Question(self._told.unit, FUNCTIONS[block.table], block.address, block.length)
        loop = asyncio.get_running_loop()
        tries = 1 + self._told.retries
        while True:
            tries -= 1
            left_s = until_s - loop.time()
            if left_s <= 0:
                raise NoAnswerError("no time left for it")
            try:
                async with asyncio.timeout_at(until_s):  # another driver may have the line
                    return await bus.ask(
                        question.frame(),
                        question.answer,
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
            await serial_bus.leave(self._told, bus)
