"""``smp``: a microcontroller that is managed over SMP (Zephyr's MCUmgr): its statistics and settings as points."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from firmware_bridge.adapters.smp_links import link_to
from firmware_bridge.adapters.smp_values import ValueSession
from firmware_bridge.driver import Driver, MonoMs, Resource
from firmware_bridge.firmware.ports import DeviceRefusedError, LinkError
from firmware_bridge.readings import Failed, Quality, Reading, Result, Results
from firmware_bridge.smp_points import Point

POINTS_MAX: Final = 64


class SmpOptions(Struct, frozen=True, kw_only=True):
    """``at``: ``serial:PATH``, ``tcp:HOST:PORT``, ``udp:HOST:PORT`` or ``ble:ADDRESS``. ``writable``: setting -> the
    values that may be written, an empty list is each that its form takes; nothing else is ever written. ``save``:
    have the device keep what was written over a reset.
    """

    at: Annotated[str, Meta(min_length=1, max_length=4096)]
    points: Annotated[dict[str, Point], Meta(min_length=1, max_length=POINTS_MAX)]
    timeout_ms: Annotated[int, Meta(ge=50, le=30_000)] = 2_000
    writable: dict[str, tuple[float, ...]] = field(default_factory=dict)
    save: bool = True

    def __post_init__(self) -> None:
        link_to(self.at)
        settings = [name for name, point in self.points.items() if point.source == "setting"]
        foreign = sorted(set(self.writable) - set(settings))
        if foreign:
            raise ValueError(f"writable: expected of {', '.join(settings) or 'none'}, got {', '.join(foreign)[:80]}")


class Smp(Driver):
    """The link is let go after each reading, so that an update of its firmware finds it free."""

    kind = "smp"
    summary = "microcontroller over SMP (Zephyr's MCUmgr): statistics, settings, whether its image is confirmed"
    points = ()
    options_type = SmpOptions
    shares = False
    example = (
        'at = "serial:/dev/serial/by-id/usb-Zephyr_dock_BC-0007-if00"\nwritable = { report_s = [10, 60] }\n'
        'points.battery_pct = { source = "setting", name = "dock/battery", form = "u8" }\n'
        'points.report_s = { source = "setting", name = "dock/report", form = "u16" }\n'
        'points.inserted = { source = "statistic", group = "dock", name = "inserted" }'
    )

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, SmpOptions)
        self._told = options
        self._session = ValueSession(lambda: link_to(options.at), answer_s=options.timeout_ms / 1000)

    @classmethod
    def points_of(cls, options: Struct) -> tuple[str, ...]:
        assert isinstance(options, SmpOptions)
        return tuple(options.points)

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, SmpOptions)
        return (options.at, (cls.kind,))

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        until_s = asyncio.get_running_loop().time() + deadline_s
        out: dict[str, Result] = {}
        try:
            for asked in self._questions(points):
                try:
                    async with asyncio.timeout_at(until_s):
                        out |= await self._ask(asked)
                except DeviceRefusedError as error:
                    out |= {name: Failed(str(error)) for name in asked}
        except (LinkError, TimeoutError) as error:  # one that is silent now is not asked the rest of it
            why = str(error) or "no answer in time"
            out |= {name: Failed(why) for name in points if name not in out}
        finally:
            await self._session.close()
        return out

    def _questions(self, points: Sequence[str]) -> list[tuple[str, ...]]:
        """Points that one question answers, together."""
        groups: dict[tuple[str, str], list[str]] = {}
        for name in points:
            point = self._told.points[name]
            groups.setdefault((point.source, point.group or point.name), []).append(name)
        return [tuple(names) for names in groups.values()]

    async def _ask(self, names: tuple[str, ...]) -> dict[str, Result]:
        """Raises LinkError, DeviceRefusedError."""
        point = self._told.points[names[0]]
        if point.source == "statistic":
            fields = await self._session.statistics(point.group)
            return {name: self._counted(self._told.points[name], fields) for name in names}
        if point.source == "image":
            confirmed = await self._session.confirmed()
            return {name: self._good(self._told.points[name].value(confirmed)) for name in names}
        data = await self._session.setting(point.name)
        return {name: self._stored(self._told.points[name], data) for name in names}

    def _counted(self, point: Point, fields: Mapping[str, int]) -> Result:
        if point.name not in fields:
            return Failed(f"the device has no {point.name} in group {point.group}")
        return self._good(point.value(fields[point.name]))

    def _stored(self, point: Point, data: bytes) -> Result:
        try:
            return self._good(point.value_of(data))
        except ValueError as error:
            return Failed(str(error))

    def _good(self, value: float) -> Reading:
        return Reading(value, Quality.GOOD, None, self._mono_ms())

    async def write(self, settings: Mapping[str, float], deadline_s: float) -> Results:
        """See Driver."""
        until_s = asyncio.get_running_loop().time() + deadline_s
        out: dict[str, Result] = {}
        try:
            for name, value in settings.items():
                try:
                    async with asyncio.timeout_at(until_s):
                        out[name] = await self._write(name, value)
                except DeviceRefusedError as error:
                    out[name] = Failed(f"not written: {error}")
                except (LinkError, TimeoutError) as error:
                    out[name] = Failed(f"unknown whether it was written: {error or 'no answer in time'}")
        finally:
            await self._session.close()
        return out

    async def _write(self, name: str, value: float) -> Result:
        """Raises LinkError, DeviceRefusedError."""
        allowed = self._told.writable.get(name)
        if allowed is None:
            return Failed(f"not written: not on the list of what may be written: {', '.join(self._told.writable)}")
        if allowed and value not in allowed:
            return Failed(f"not written: expected one of {', '.join(f'{each:g}' for each in allowed)}, got {value:g}")
        point = self._told.points[name]
        try:
            data = point.bytes_of(value)
        except ValueError as error:
            return Failed(f"not written: {error}")
        await self._session.set(point.name, data)
        try:
            found = await self._session.setting(point.name)
        except DeviceRefusedError as error:
            return Failed(f"written, but cannot be read back: {error}")
        if found != data:
            return Failed(f"written as {data.hex()}, but read back as {found.hex()[:32]}")
        if self._told.save:
            try:
                await self._session.save()
            except DeviceRefusedError as error:
                return Failed(f"written, but not kept over a reset: {error}")
        return self._good(point.value_of(found))

    async def close(self) -> None:
        await self._session.close()
