"""``nmea0183``: a GNSS receiver that talks NMEA 0183 on a serial port."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from firmware_bridge import nmea
from firmware_bridge.adapters.serial_port import SerialOptions, SerialPort
from firmware_bridge.driver import Driver, MonoMs, Resource
from firmware_bridge.nmea import Lines, Position
from firmware_bridge.readings import Failed, Quality, Reading, Result, Results

SETTLE_S: Final = 0.25
"""The sentences of one moment come in one burst; so long after the first of them the last has come."""
NO_FIX: Final = 0.0

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class NmeaOptions(SerialOptions, frozen=True, kw_only=True):
    """A part older than ``stale_s`` is stale, and it is absent when older than ``absent_s``."""

    stale_s: Seconds = 3.0
    absent_s: Seconds = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stale_s > self.absent_s:
            raise ValueError(f"stale_s: expected at most absent_s {self.absent_s:g}, got {self.stale_s:g}")


class Nmea0183(Driver):
    kind = "nmea0183"
    summary = "GNSS receiver on a serial port: one position out of RMC, GGA and GSA"
    points = nmea.POINTS
    options_type = NmeaOptions
    shares = False  # it listens all the time
    example = 'port = "/dev/serial/by-id/usb-u-blox_GNSS-if00"\nbaud = 9600'

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, NmeaOptions)
        self._stale_ms = int(options.stale_s * 1000)
        self._absent_ms = int(options.absent_s * 1000)
        self._lines = Lines()
        self._position = Position()
        self._news = asyncio.Event()
        self._damaged = 0
        self._port = SerialPort(options, heard=self._heard, changed=self._changed)

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, NmeaOptions)
        return (options.port, (cls.kind, options))

    def _heard(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            part = nmea.parse(line)
            if part is None:
                self._damaged += 1
            else:
                self._position.take(part, self._mono_ms())
                self._news.set()

    def _changed(self, _why: str) -> None:
        self._lines.clear()
        self._news.set()

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        """What is known now; the first time it waits until something is."""
        self._port.start()
        if self._position.heard_ms is None:
            await self._first(points, deadline_s)
        now_ms = self._mono_ms()
        return {point: self._result(point, now_ms) for point in points}

    async def _first(self, points: Sequence[str], deadline_s: float) -> None:
        until_s = asyncio.get_running_loop().time() + deadline_s
        while not self._told_all(points) and (self._port.opening or not self._port.closed_because):
            self._news.clear()
            try:
                async with asyncio.timeout_at(until_s):
                    await self._news.wait()
            except TimeoutError:
                return
            if self._position.heard_ms is not None:  # the burst has begun
                until_s = min(until_s, asyncio.get_running_loop().time() + SETTLE_S)

    def _told_all(self, points: Sequence[str]) -> bool:
        now_ms = self._mono_ms()
        return all(self._position.value(point, now_ms) is not None for point in points)

    def _result(self, point: str, now_ms: int) -> Result:
        position = self._position
        silent = position.heard_ms is None or now_ms - position.heard_ms > self._absent_ms
        found = position.value(point, now_ms)
        if point == "age_s":  # is as old as the position, but true as long as somebody is there to ask
            if found is None or silent:
                return Failed(self._why_silent()) if silent else Reading(0.0, Quality.BAD, None, now_ms)
            return Reading(found.value, Quality.GOOD, position.utc_ms, found.at_ms)
        if found is not None and now_ms - found.at_ms <= self._stale_ms:
            return Reading(found.value, Quality.GOOD, position.utc_ms, found.at_ms)
        if found is not None and now_ms - found.at_ms <= self._absent_ms:
            return Reading(found.value, Quality.STALE, position.utc_ms, found.at_ms)
        if silent:
            return Failed(self._why_silent())
        if position.no_fix_ms is not None:  # that there is no value is what the receiver says, and no fault of its
            return Reading(found.value if found else NO_FIX, Quality.BAD, None, now_ms)
        return Failed("no sentence tells it")

    def _why_silent(self) -> str:
        if self._port.closed_because:
            return self._port.closed_because
        damaged = f", {self._damaged} damaged ones" if self._damaged else ""
        return f"no whole sentence for {self._absent_ms / 1000:g} s{damaged}"

    async def close(self) -> None:
        await self._port.close()
