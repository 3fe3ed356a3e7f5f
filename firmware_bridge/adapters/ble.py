"""Bluetooth Low Energy, the only file that knows bleak: one owner an adapter, who alone scans, and connects one
device after the other. Every wait ends by a time of ours: bleak's own are not kept on each of its paths.

Another backend of bleak's can be given, for tests and for radios that BlueZ does not drive.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple

from bleak import BleakAdapter, BleakClient, BleakScanner
from bleak.args.bluez import BlueZAdapterArgs, BlueZClientArgs, BlueZScannerArgs
from bleak.backends.adapter import BaseBleakAdapter
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakDBusError, BleakGATTProtocolError

from broker_config.text import shown
from firmware_bridge.gatt import SERVICES, SMP_SERVICE, long_uuid

FRESH_S: Final = 5.0
"""Who was heard of so lately, in anybody's scan, is not scanned for again."""
END_S: Final = 3.0
"""For what only ends something."""
ATTRIBUTE_BYTES_MAX: Final = 512
"""No attribute has more, whatever the MTU; a longer write is dropped without a word."""
CLASS: Final = Path("/sys/class/bluetooth")


class BleError(Exception):
    """The device is not there, or did not answer; the connection is over."""


class NoValueError(Exception):
    """The device is there and has not, or does not give, this characteristic."""


class Backends(NamedTuple):
    """bleak's classes for a platform; None is the platform's own."""

    scanner: type[BaseBleakScanner] | None = None
    client: type[BaseBleakClient] | None = None
    adapter: type[BaseBleakAdapter] | None = None


PLATFORM: Final = Backends()


class Heard(NamedTuple):
    """Who advertised. ``name``: empty where it tells none."""

    address: str
    name: str
    rssi_dbm: int


async def heard(adapter: str, seconds: float, backends: Backends = PLATFORM) -> list[Heard]:
    """Everybody who advertises within *seconds*, the loudest first. For a bench: an agent has its radio to itself.

    Raises:
        BleError: it cannot be scanned.
    """
    found: dict[str, Heard] = {}

    def hear(device: BLEDevice, data: AdvertisementData) -> None:
        address = device.address.upper()
        found[address] = Heard(address, shown(data.local_name or device.name or ""), data.rssi)

    scanner = BleakScanner(hear, bluez=BlueZScannerArgs(adapter=adapter), backend=backends.scanner)
    async with _within(seconds + 2 * END_S, "the scan did not end"):
        await scanner.start()
        await asyncio.sleep(seconds)
        await scanner.stop()
    return sorted(found.values(), key=lambda each: -each.rssi_dbm)


def there_is(adapter: str) -> bool:
    """Whether the kernel has an adapter of that name."""
    return (CLASS / adapter).exists()


class BleLink:
    """A connection. Calls are not made at once; after a BleError it is over."""

    def __init__(self, client: BleakClient, lost: asyncio.Event, io_s: float) -> None:
        self._client = client
        self._io_s = io_s
        self.lost = lost
        """Set once, whoever ended it."""

    async def read(self, service: str, number: str) -> bytes:
        """The characteristic's value. Raises BleError, NoValueError."""
        found = self._find(service, number)
        async with _within(self._io_s, f"0x{number} was not answered"):
            return bytes(await self._client.read_gatt_char(found))

    async def subscribe(self, service: str, number: str, heard: Callable[[bytes], None]) -> None:
        """Have *heard* called with each value that is notified or indicated. Raises BleError, NoValueError."""
        found = self._find(service, number)
        if not {"notify", "indicate"} & set(found.properties):
            raise NoValueError(f"the device does not notify 0x{number}")
        async with _within(self._io_s, f"notifications of 0x{number} were not answered"):
            await self._client.start_notify(found, lambda _which, data: heard(bytes(data)))

    async def write(self, service: str, number: str, data: bytes) -> None:
        """Write *data* without a response, in as many pieces as it takes. Raises BleError, NoValueError."""
        found = self._find(service, number)
        most = min(found.max_write_without_response_size, ATTRIBUTE_BYTES_MAX)
        async with _within(self._io_s, f"0x{number} was not taken"):
            for at in range(0, len(data), most):
                await self._client.write_gatt_char(found, data[at : at + most], response=False)

    def _find(self, service: str, number: str) -> BleakGATTCharacteristic:
        """The first of its kind in the first service of its kind: a device may have several."""
        if self.lost.is_set():
            raise BleError("the connection was lost")
        for each in self._client.services:
            if each.uuid == _uuid(service):
                for found in each.characteristics:
                    if found.uuid == _uuid(number):
                        return found
        raise NoValueError(f"the device has no 0x{number} in a service 0x{service}")

    async def close(self) -> None:
        """End it, also where it looks ended already: BlueZ may think otherwise. Idempotent, never raises."""
        self.lost.set()
        with contextlib.suppress(BleError, NoValueError):
            async with _within(END_S, "it was not let go"):
                await self._client.disconnect()


class BleAdapter:
    """One radio."""

    def __init__(self, name: str, backends: Backends) -> None:
        self._name = name
        self._backends = backends
        self._turn = asyncio.Lock()
        self._heard: dict[str, tuple[BLEDevice, float]] = {}
        """Address -> the device and when it was last heard of, by the loop's clock."""
        self.users = 0

    async def connect(self, address: str, *, scan_s: float, connect_s: float, io_s: float) -> BleLink:
        """Find the device of *address* and connect to it, within the two times once it is this one's turn.

        Raises:
            BleError: it was not heard, or did not let itself be connected to.
        """
        async with self._turn:
            device = await self._find(address, scan_s)
            lost = asyncio.Event()
            client = BleakClient(
                device,
                disconnected_callback=lambda _client: lost.set(),
                timeout=connect_s,
                bluez=BlueZClientArgs(adapter=self._name),
                backend=self._backends.client,
            )
            link = BleLink(client, lost, io_s)
            try:
                async with _within(connect_s, "it did not let itself be connected to"):
                    await client.connect()
            except BaseException:
                self._heard.pop(address, None)
                await link.close()
                raise
            return link

    async def _find(self, address: str, scan_s: float) -> BLEDevice:
        """Who is connected does not say that it is there: an agent that was killed may have left it so."""
        left = await self._left_connected()
        if address in left:
            return left[address]
        loop = asyncio.get_running_loop()
        device, at_s = self._heard.get(address, (None, 0.0))
        if device is not None and loop.time() - at_s <= FRESH_S:
            return device
        found = asyncio.Event()

        def heard(device: BLEDevice, _data: AdvertisementData) -> None:
            self._heard[device.address.upper()] = (device, loop.time())
            if device.address.upper() == address:
                found.set()

        scanner = BleakScanner(heard, bluez=BlueZScannerArgs(adapter=self._name), backend=self._backends.scanner)
        self._heard.clear()
        async with _within(scan_s, f"not heard within {scan_s:g} s"):
            try:
                await scanner.start()
                await found.wait()
            finally:
                with contextlib.suppress(BleError, NoValueError):
                    async with _within(END_S, "the scan did not end"):
                        await scanner.stop()
        return self._heard[address][0]

    async def _left_connected(self) -> dict[str, BLEDevice]:
        if self._backends.client is not None and self._backends.adapter is None:
            return {}
        async with _within(END_S, "the adapter does not say who is connected"):
            adapter = await BleakAdapter.get(
                bluez=BlueZAdapterArgs(adapter=self._name), backend=self._backends.adapter
            )
            return {
                each.address.upper(): each for each in await adapter.get_connected_devices([*SERVICES, SMP_SERVICE])
            }


def _uuid(number: str) -> str:
    """Of a number of 16 bits, or of one that is long already."""
    return long_uuid(number) if len(number) == 4 else number


@contextlib.asynccontextmanager
async def _within(seconds: float, otherwise: str) -> AsyncIterator[None]:
    """What the block waits for ends in time or as a BleError, whatever the library raises of its own."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise BleError(otherwise) from None
    except BleakGATTProtocolError as error:
        raise NoValueError(f"the device answers: {shown(error)}") from error
    except BleakDBusError as error:
        raise BleError(shown(error.dbus_error_details or error.dbus_error)) from error
    except (BleError, NoValueError):
        raise
    except Exception as error:  # a peripheral, or a stack of three libraries below, never ends whoever asks
        raise BleError(shown(error) or type(error).__name__) from error


_adapters: dict[tuple[str, Backends], BleAdapter] = {}
"""A radio has one owner in a process, so this is the process's."""


def join(name: str, backends: Backends) -> BleAdapter:
    """The adapter of that name. Whoever joins leaves once."""
    found = _adapters.setdefault((name, backends), BleAdapter(name, backends))
    found.users += 1
    return found


def leave(name: str, backends: Backends, adapter: BleAdapter) -> None:
    """The last one forgets it."""
    adapter.users -= 1
    if adapter.users == 0 and _adapters.get((name, backends)) is adapter:
        del _adapters[name, backends]
