"""A BLE device that comes back: a task connects to it, asks who it is, takes what it notifies, and after any end of
the connection tries again for as long as it takes. Who turns out to be another device is refused for good.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from firmware_bridge import gatt, reopening
from firmware_bridge.adapters import ble
from firmware_bridge.adapters.ble import PLATFORM, Backends, BleError, BleLink, NoValueError
from firmware_bridge.driver import MonoMs

Seconds = Annotated[float, Meta(gt=0, le=600)]


class BleOptions(Struct, frozen=True, kw_only=True):
    """``address``: upper case. ``serial``: what device information must tell as serial number; empty: whoever has the
    address is good. ``mode`` ``notify``: values come when the device says so, and are stale and then absent by the
    driver's options; ``read``: they are asked for.
    """

    address: Annotated[str, Meta(pattern=r"^[0-9A-F]{2}(:[0-9A-F]{2}){5}$")]
    adapter: Annotated[str, Meta(pattern=r"^hci[0-9]{1,3}$")] = "hci0"
    serial: Annotated[str, Meta(max_length=gatt.TEXT_MAX)] = ""
    mode: Literal["read", "notify"] = "read"
    scan_s: Seconds = 8.0
    connect_s: Seconds = 15.0
    io_s: Seconds = 5.0
    stale_s: Seconds = 60.0
    absent_s: Seconds = 300.0

    def __post_init__(self) -> None:
        if self.stale_s > self.absent_s:
            raise ValueError(f"stale_s: expected at most absent_s {self.absent_s:g}, got {self.stale_s:g}")


_NOT_YET: Final = "not connected yet"


class BleDevice:
    """What the wires of one device share. ``told``: point -> what was notified last, and when (monotonic, ms)."""

    def __init__(
        self,
        options: BleOptions,
        backends: Backends,
        mono_ms: MonoMs,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._options = options
        self._backends = backends
        self._mono_ms = mono_ms
        self._uniform = uniform
        self._task: asyncio.Task[None] | None = None
        self._link: BleLink | None = None
        self._turn = asyncio.Lock()
        self.news = asyncio.Event()
        self.told: dict[str, tuple[bytes, int]] = {}
        self.absent: dict[str, str] = {}
        """Point -> why the device never notifies it."""
        self.serial = ""
        """What the connected device tells; empty where it tells none or is not asked."""
        self.gone_because = _NOT_YET
        """Empty while it is connected."""
        self.quarantined = ""
        """Why it is not the device that is meant; it is left alone from then on."""
        self.users = 0

    @property
    def connecting(self) -> bool:
        """Whether the first attempt has not ended yet."""
        return self.gone_because == _NOT_YET

    def start(self) -> None:
        """Begin to connect; idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def read(self, point: gatt.Characteristic | gatt.Text) -> bytes:
        """Ask for a value. Raises BleError: and the connection is over; NoValueError: that one is not to be had."""
        async with self._turn:
            link = self._link
            if link is None:
                raise BleError(self.gone_because)
            try:
                return await link.read(point.service, point.number)
            except BleError:
                link.lost.set()  # the task lets go of it
                raise

    async def close(self) -> None:
        """Let go of it. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        adapter = ble.join(self._options.adapter, self._backends)
        try:
            while not self.quarantined:
                began_s = loop.time()
                why = await self._once(adapter)
                connected = self._link is not None
                self._link = None
                earned = connected and loop.time() - began_s >= reopening.STABLE_S
                failures = 1 if earned else failures + 1
                self.gone_because = self.quarantined or why
                self.news.set()
                if not self.quarantined:
                    await asyncio.sleep(reopening.delay_s(failures, self._uniform))
        finally:
            ble.leave(self._options.adapter, self._backends, adapter)

    async def _once(self, adapter: ble.BleAdapter) -> str:
        """Connect and stay so until it ends; returns why it did."""
        told = self._options
        try:
            link = await adapter.connect(told.address, scan_s=told.scan_s, connect_s=told.connect_s, io_s=told.io_s)
        except (BleError, NoValueError) as error:
            return str(error)
        try:
            await self._identify(link)
            if self.quarantined:
                return self.quarantined
            if told.mode == "notify":
                await self._subscribe(link)
            self._link = link
            self.gone_because = ""
            self.news.set()
            await link.lost.wait()
        except (BleError, NoValueError) as error:
            return str(error)
        finally:
            await link.close()
        return "the connection was lost"

    async def _identify(self, link: BleLink) -> None:
        """Unknown is no: who tells no serial number while one is expected is not read."""
        if not self._options.serial:
            return
        self.serial = gatt.text(await link.read(gatt.SERIAL.service, gatt.SERIAL.number))
        self.quarantined = gatt.wrong_identity(self._options.serial, self.serial) or ""

    async def _subscribe(self, link: BleLink) -> None:
        """And read each once: a device may notify only what changes."""
        self.absent.clear()
        for name, point in gatt.POINTS.items():
            try:
                self._tell(name, await link.read(point.service, point.number))
                await link.subscribe(point.service, point.number, partial(self._tell, name))
            except NoValueError as error:
                self.absent[name] = str(error)

    def _tell(self, name: str, data: bytes) -> None:
        self.told[name] = (data, self._mono_ms())
        self.news.set()


_devices: dict[tuple[str, str, Backends], BleDevice] = {}
"""A device has one owner in a process, so this is the process's."""


def join(options: BleOptions, mono_ms: MonoMs, backends: Backends = PLATFORM) -> BleDevice:
    """The device of *options.address*. Whoever joins leaves once. That all agree on the rest is checked before."""
    key = (options.adapter, options.address, backends)
    device = _devices.get(key)
    if device is None:
        device = _devices[key] = BleDevice(options, backends, mono_ms)
    device.users += 1
    return device


async def leave(options: BleOptions, device: BleDevice, backends: Backends = PLATFORM) -> None:
    """The last one lets go of it."""
    device.users -= 1
    key = (options.adapter, options.address, backends)
    if device.users == 0 and _devices.get(key) is device:
        del _devices[key]
        await device.close()
