"""Plays an instrument at the far end of a terminal, or at a port of the loopback, until it is told to stop."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, assert_never

from firmware_bridge.peripherals.gnss import Gnss
from firmware_bridge.peripherals.lines import Camera, Vehicle
from firmware_bridge.peripherals.terminal import Terminal

EVERY_S: Final = 1.0
QUERY_BYTES_MAX: Final = 256


class Instrument(StrEnum):
    """What can be played."""

    GNSS = "gnss"
    MODBUS_ROOM = "modbus-room"
    MODBUS_CABINET = "modbus-cabinet"
    NTCIP_CONTROLLER = "ntcip-controller"
    LINE_CAMERA = "line-camera"
    LINE_VEHICLE = "line-vehicle"


class Cable(Protocol):
    """What can be pulled, and put in again."""

    def plug(self) -> None: ...
    def unplug(self) -> None: ...


class _Answers(Protocol):
    def answer(self, query: str, seconds: float) -> str: ...


@asynccontextmanager
async def playing(instrument: Instrument, link: Path, seed: int, port: int = 0) -> AsyncIterator[Cable]:
    """Play *instrument* behind *link*, plugged in at first. One that is on a network is at *port* of the loopback,
    and *link* is a file that is there as long as it is.
    """
    began_s = time.monotonic()

    def now_s() -> float:
        return time.monotonic() - began_s

    match instrument:
        case Instrument.GNSS:
            async with _receiver(Gnss(seed), link, now_s) as cable:
                yield cable
        case Instrument.MODBUS_ROOM | Instrument.MODBUS_CABINET:
            async with _unit(instrument, link, seed, now_s) as cable:
                yield cable
        case Instrument.NTCIP_CONTROLLER:
            from firmware_bridge.peripherals.controller import Controller, SnmpPeripheral  # noqa: PLC0415  # megabytes

            controller = SnmpPeripheral(Controller(seed), port, link, now_s, time.time)
            controller.plug()
            try:
                yield controller
            finally:
                controller.unplug()
        case Instrument.LINE_CAMERA:
            async with _lines(Camera(seed), link, now_s) as cable:
                yield cable
        case Instrument.LINE_VEHICLE:
            async with _lines(Vehicle(seed), link, now_s) as cable:
                yield cable
        case _:
            assert_never(instrument)


@asynccontextmanager
async def _receiver(receiver: Gnss, link: Path, now_s: Callable[[], float]) -> AsyncIterator[Cable]:
    terminal = Terminal(link, lambda _data: None)
    terminal.plug()

    async def speak() -> None:
        while True:
            terminal.say(receiver.burst(now_s(), datetime.now(UTC)))
            await asyncio.sleep(EVERY_S)

    speaking = asyncio.create_task(speak())
    try:
        yield terminal
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        terminal.unplug()


@asynccontextmanager
async def _unit(instrument: Instrument, link: Path, seed: int, now_s: Callable[[], float]) -> AsyncIterator[Cable]:
    from firmware_bridge.peripherals.modbus import Cabinet, ModbusPeripheral, Room  # noqa: PLC0415  # megabytes

    unit = Room(seed) if instrument is Instrument.MODBUS_ROOM else Cabinet(seed)
    with tempfile.TemporaryDirectory() as directory:
        found = ModbusPeripheral(unit, link, Path(directory), now_s)
        await found.start()
        try:
            yield found
        finally:
            await found.stop()


@asynccontextmanager
async def _lines(player: _Answers, link: Path, now_s: Callable[[], float]) -> AsyncIterator[Cable]:
    rest = bytearray()

    def heard(data: bytes) -> None:
        rest.extend(data)
        while b"\n" in rest:
            query, _, after = bytes(rest).partition(b"\n")
            rest[:] = after
            answer = player.answer(query.decode("ascii", "replace").strip(), now_s())
            if answer:
                terminal.say(answer.encode() + b"\n")
        del rest[QUERY_BYTES_MAX:]

    terminal = Terminal(link, heard)
    terminal.plug()
    try:
        yield terminal
    finally:
        terminal.unplug()
