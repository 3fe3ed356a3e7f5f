"""``ble``: a sensor that speaks the standard BLE services of environment, battery and device information."""

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from firmware_bridge import gatt
from firmware_bridge.adapters import ble, ble_device
from firmware_bridge.adapters.ble import PLATFORM, Backends, BleError, NoValueError
from firmware_bridge.adapters.ble_device import BleDevice, BleOptions
from firmware_bridge.driver import Driver, MonoMs, Resource, all_failed
from firmware_bridge.readings import Failed, Identity, Quality, Reading, Result, Results


class Ble(Driver):
    """Wires that name the same device share its connection."""

    kind = "ble"
    summary = "Bluetooth LE device: environmental sensing, battery; known by its serial number"
    points = tuple(gatt.POINTS)
    options_type = BleOptions
    example = 'address = "C0:98:E5:00:00:01"\nserial = "ESS-0042"\nmode = "notify"'

    def __init__(self, options: Struct, mono_ms: MonoMs, backends: Backends = PLATFORM) -> None:
        super().__init__(options, mono_ms)
        assert isinstance(options, BleOptions)
        self._told = options
        self._backends = backends
        self._stale_ms = int(options.stale_s * 1000)
        self._absent_ms = int(options.absent_s * 1000)
        self._device: BleDevice | None = None

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, BleOptions)
        return (f"ble:{options.adapter}:{options.address}", (cls.kind, options))

    async def present(self) -> bool:
        return self._backends is not PLATFORM or ble.there_is(self._told.adapter)

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        """The first time it waits until the device is connected, or until that is known to fail."""
        until_s = asyncio.get_running_loop().time() + deadline_s
        device = await self._started(until_s)
        if device.quarantined:
            return all_failed(points, f"quarantined: {device.quarantined}")
        if self._told.mode == "notify":
            now_ms = self._mono_ms()
            return {point: self._told_of(device, point, now_ms) for point in points}
        return await self._asked(device, points, until_s)

    async def _started(self, until_s: float) -> BleDevice:
        if self._device is None:
            self._device = ble_device.join(self._told, self._mono_ms, self._backends)
        device = self._device
        device.start()
        while device.connecting:
            device.news.clear()
            try:
                async with asyncio.timeout_at(until_s):
                    await device.news.wait()
            except TimeoutError:
                break
        return device

    async def identify(self, deadline_s: float) -> Identity | Failed:
        """By its device information; what it does not tell of that is empty."""
        until_s = asyncio.get_running_loop().time() + deadline_s
        device = await self._started(until_s)
        if device.quarantined:
            return Failed(f"quarantined: {device.quarantined}")
        told: list[str] = []
        for text in (gatt.SERIAL, gatt.MODEL, gatt.FIRMWARE):
            try:
                async with asyncio.timeout_at(until_s):
                    told.append(gatt.text(await device.read(text)))
            except NoValueError:
                told.append("")
            except BleError as error:
                return Failed(str(error))
            except TimeoutError:
                return Failed("no time left for it")
        return Identity(*told)

    async def _asked(self, device: BleDevice, points: Sequence[str], until_s: float) -> Results:
        out: dict[str, Result] = {}
        why = ""
        for point in points:
            if why:  # who does not answer now is not asked the rest of it
                out[point] = Failed(why)
                continue
            try:
                async with asyncio.timeout_at(until_s):
                    out[point] = self._result(point, await device.read(gatt.POINTS[point]))
            except NoValueError as error:
                out[point] = Failed(str(error))
            except BleError as error:
                out[point] = Failed(why := str(error))
            except TimeoutError:
                out[point] = Failed(why := "no time left for it")
        return out

    def _result(self, point: str, data: bytes, quality: Quality = Quality.GOOD, at_ms: int | None = None) -> Result:
        found = gatt.value(gatt.POINTS[point], data)
        if isinstance(found, Failed):
            return found
        return Reading(found, quality, None, self._mono_ms() if at_ms is None else at_ms)

    def _told_of(self, device: BleDevice, point: str, now_ms: int) -> Result:
        data, at_ms = device.told.get(point, (None, 0))
        if data is None or now_ms - at_ms > self._absent_ms:
            why = device.gone_because or device.absent.get(point)
            return Failed(why or f"not notified for {self._absent_ms / 1000:g} s")
        fresh = now_ms - at_ms <= self._stale_ms and not device.gone_because
        return self._result(point, data, Quality.GOOD if fresh else Quality.STALE, at_ms)

    async def close(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            await ble_device.leave(self._told, device, self._backends)
