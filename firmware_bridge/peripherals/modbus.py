"""Plays Modbus RTU units on pymodbus's own server: the sensors of an interrogation room, a signal cabinet.

The server opens a terminal by its path, so there are two with a pump between them.
"""

import logging
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from firmware_bridge.peripherals.terminal import Terminal

BAUD: Final = 9600
WORD: Final = 0xFFFF
DISCRETE: Final = 2
INPUT: Final = 4


def words_i16(value: float) -> int:
    """A signed value as a register."""
    return round(value) & WORD


class Unit(ABC):
    """What a unit's tables hold, as a function of the seconds since the start."""

    number: int
    bits_max: int
    words_max: int

    def __init__(self, seed: int) -> None:
        self._phase = random.Random(seed).uniform(0, 2 * math.pi)  # noqa: S311  # a play

    def _wave(self, seconds: float, period_s: float) -> float:
        return math.sin(self._phase + 2 * math.pi * seconds / period_s)

    @abstractmethod
    def bits(self, seconds: float) -> list[bool]:
        """Discrete inputs from 0."""

    @abstractmethod
    def words(self, seconds: float) -> list[int]:
        """Input registers from 0."""


class Room(Unit):
    """Discrete: occupied, door open. Input: temperature 0.1 degrees signed, humidity 0.1 %, audio 0.1 dBFS signed,
    channels, gap in ms (two registers, high first).
    """

    number = 7
    bits_max = 2
    words_max = 6

    def bits(self, seconds: float) -> list[bool]:
        return [self._wave(seconds, 240) > -0.3, self._wave(seconds, 240) < -0.95]

    def words(self, seconds: float) -> list[int]:
        talk = abs(self._wave(seconds, 7)) if self._wave(seconds, 240) > -0.3 else 0.0
        return [
            words_i16(215 + 8 * self._wave(seconds, 600)),
            words_i16(430 + 25 * self._wave(seconds, 900)),
            words_i16(-620 + 350 * talk),
            4,
            0,
            0,
        ]


class Cabinet(Unit):
    """Discrete: door open, lamps dimmed, conflict monitor well. Input: plan, mode, cycle s, phase, offset s, lamps
    failed, vehicles an hour, occupancy 0.1 %, temperature 0.1 degrees signed, mains 0.1 V.
    """

    number = 11
    bits_max = 3
    words_max = 10
    CYCLE_S: Final = 80
    PHASES: Final = 4
    OFFSET_S: Final = 14

    def bits(self, seconds: float) -> list[bool]:
        return [self._wave(seconds, 1800) > 0.995, False, True]

    def words(self, seconds: float) -> list[int]:
        return [
            3,
            2,
            self.CYCLE_S,
            1 + int(seconds % self.CYCLE_S * self.PHASES / self.CYCLE_S),
            self.OFFSET_S,
            0,
            round(900 + 300 * self._wave(seconds, 300)),
            round(180 + 60 * self._wave(seconds, 300)),
            words_i16(285 + 30 * self._wave(seconds, 1200)),
            round(2300 + 25 * self._wave(seconds, 45)),
        ]


class ModbusPeripheral:
    """A unit behind *link*. An address of another unit is met with silence, as on a real line."""

    def __init__(self, unit: Unit, link: Path, directory: Path, now_s: Callable[[], float]) -> None:
        """*directory*: for the server's own end."""
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._unit = unit
        self._now_s = now_s
        self._inside = Terminal(directory / "server", self._answered)
        self._outside = Terminal(link, self._asked)
        self._server_port = directory / "server"
        self._server: ModbusSerialServer | None = None

    async def start(self) -> None:
        """Serve, and plug it in."""
        self._inside.plug()
        bits = [SimData(0, count=16, values=False, datatype=DataType.BITS)]
        words = [SimData(0, count=self._unit.words_max, values=0, datatype=DataType.REGISTERS)]
        unused = [SimData(0, values=0, datatype=DataType.REGISTERS)]
        device = SimDevice(
            id=self._unit.number,
            simdata=([SimData(0, count=16, values=False, datatype=DataType.BITS)], bits, unused, words),
            action=self._refresh,
        )
        self._server = ModbusSerialServer(
            [device],
            framer=FramerType.RTU,
            port=str(self._server_port),
            baudrate=BAUD,
            ignore_missing_devices=True,
        )
        await self._server.serve_forever(background=True)
        self.plug()

    def plug(self) -> None:
        """See Terminal."""
        self._outside.plug()

    def unplug(self) -> None:
        """See Terminal."""
        self._outside.unplug()

    async def stop(self) -> None:
        """Unplug it and end the server."""
        self.unplug()
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]
        self._inside.unplug()

    async def _refresh(
        self,
        function: int,
        _start: int,
        _address: int,
        _count: int,
        registers: list[int],
        _values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if function == DISCRETE:
            bits = self._unit.bits(self._now_s())
            registers[0] = sum(1 << at for at, bit in enumerate(bits) if bit)
        elif function == INPUT:
            words = self._unit.words(self._now_s())
            registers[: len(words)] = words
        return None

    def _asked(self, data: bytes) -> None:
        # the server answers for any unit it is asked as, once it has one; the line's other units are not here
        if data[:1] == bytes([self._unit.number]):
            self._inside.say(data)

    def _answered(self, data: bytes) -> None:
        self._outside.say(data)
