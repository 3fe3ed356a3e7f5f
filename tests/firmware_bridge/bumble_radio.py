"""Bluetooth LE without a radio: a backend of bleak's on a Bumble host, and a Bumble GATT server at the other end.

What is between them is Bumble's: HCI, link layer, L2CAP, ATT and GATT of both sides.
"""

import asyncio
import contextlib
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakError, BleakGATTProtocolError
from bumble import att, data_types
from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData
from bumble.device import Device, DeviceConfiguration, Peer
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.hci import Address
from bumble.link import LocalLink

from firmware_bridge.adapters.ble import Backends

HOST_ADDRESS: Final = "F0:F1:F2:F3:F4:F5"
PROPERTIES: Final = ("broadcast", "read", "write-without-response", "write", "notify", "indicate")


def _long(number: UUID) -> str:
    return str(uuid.UUID(bytes=bytes(reversed(number.to_bytes(force_128=True)))))


class _Scanner(BaseBleakScanner):
    host: Device

    def __init__(self, detection_callback: Any = None, service_uuids: Any = None, *_: Any, **__: Any) -> None:
        super().__init__(detection_callback, service_uuids)

    def _heard(self, advertisement: Any) -> None:
        name = advertisement.data.get(AdvertisingData.COMPLETE_LOCAL_NAME)
        data = AdvertisementData(name, {}, {}, [], None, advertisement.rssi, (advertisement,))
        address = advertisement.address.to_string(False)
        device = self.create_or_update_device(address, address, name, advertisement.address, data)
        self.call_detection_callbacks(device, data)

    async def start(self) -> None:
        self.seen_devices.clear()
        self.host.on("advertisement", self._heard)
        await self.host.start_scanning(active=True, filter_duplicates=False)

    async def stop(self) -> None:
        self.host.remove_listener("advertisement", self._heard)
        await self.host.stop_scanning()


class _Client(BaseBleakClient):
    host: Device

    def __init__(self, address_or_ble_device: Any, *, disconnected_callback: Any = None, **kwargs: Any) -> None:
        super().__init__(
            address_or_ble_device, disconnected_callback=disconnected_callback, timeout=kwargs["timeout"]
        )
        self._to = address_or_ble_device.details
        self._connection: Any = None
        self._peer: Any = None
        self._subscribed: dict[int, Callable[[bytes], None]] = {}

    @property
    def name(self) -> str:
        return self.address

    @property
    def mtu_size(self) -> int:
        return int(self._connection.att_mtu)

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def _write_bytes(self) -> int:
        return self.mtu_size - 3

    def _ended(self, _reason: int) -> None:
        self._connection = None
        if self._disconnected_callback:
            self._disconnected_callback()

    async def connect(self, pair: bool = False, **_: Any) -> None:
        self._connection = await self.host.connect(self._to, timeout=self._timeout)
        self._connection.on("disconnection", self._ended)
        self._peer = Peer(self._connection)
        await self._peer.request_mtu(517)
        await self._peer.discover_services()
        self.services = BleakGATTServiceCollection()
        for service in self._peer.services:
            told = BleakGATTService(service, service.handle, _long(service.uuid))
            self.services.add_service(told)
            for found in await service.discover_characteristics():
                names: Any = [name for at, name in enumerate(PROPERTIES) if int(found.properties) >> at & 1]
                each = BleakGATTCharacteristic(found, found.handle, _long(found.uuid), names, self._write_bytes, told)
                self.services.add_characteristic(each)
                for descriptor in await found.discover_descriptors():
                    self.services.add_descriptor(
                        BleakGATTDescriptor(descriptor, descriptor.handle, _long(descriptor.type), each)
                    )

    async def disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.disconnect()

    async def pair(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    async def unpair(self) -> None:
        raise NotImplementedError

    async def _answered(self, call: Any) -> Any:
        if self._connection is None:
            call.close()
            raise BleakError("not connected")
        try:
            return await call
        except att.ATT_Error as error:
            raise BleakGATTProtocolError(error.error_code) from error

    async def read_gatt_char(self, characteristic: BleakGATTCharacteristic, **_: Any) -> bytearray:
        return bytearray(await self._answered(self._peer.gatt_client.read_value(characteristic.obj)))

    async def read_gatt_descriptor(self, descriptor: BleakGATTDescriptor, **_: Any) -> bytearray:
        return bytearray(await self._answered(self._peer.gatt_client.read_value(descriptor.obj)))

    async def write_gatt_char(self, characteristic: BleakGATTCharacteristic, data: Any, response: bool) -> None:
        write = self._peer.gatt_client.write_value
        await self._answered(write(characteristic.obj, bytes(data), with_response=response))

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: Any) -> None:
        await self._answered(self._peer.gatt_client.write_value(descriptor.obj, bytes(data), with_response=True))

    async def start_notify(self, characteristic: BleakGATTCharacteristic, callback: Any, **_: Any) -> None:
        def heard(value: bytes) -> None:
            callback(bytearray(value))

        self._subscribed[characteristic.handle] = heard
        notify = "notify" in characteristic.properties
        await self._answered(characteristic.obj.subscribe(heard, prefer_notify=notify))

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        await self._answered(characteristic.obj.unsubscribe(self._subscribed.pop(characteristic.handle)))


@dataclass(slots=True)
class Sensor:
    """A room's sensor. ``values``: number of a characteristic -> its bytes; None: it answers with an error, or, with
    ``mute``, not at all. ``connections``: how often somebody has connected.
    """

    device: Device
    values: dict[str, bytes | None]
    characteristics: dict[str, Any] = field(default_factory=dict)
    connections: int = 0
    mute: asyncio.Event | None = None

    async def notify(self, number: str, value: bytes) -> None:
        """Hold *value* and tell whoever has subscribed."""
        self.values[number] = value
        await self.device.notify_subscribers(self.characteristics[number])

    async def drop(self) -> None:
        """End every connection from this side."""
        for connection in list(self.device.connections.values()):
            await connection.disconnect()


@dataclass(frozen=True, slots=True)
class Air:
    """What every radio hears. ``backends``: of the host, for bleak."""

    link: Any
    backends: Backends

    async def sensor(self, address: str, **values: bytes | None) -> Sensor:
        """A device that says that it is there; *values* (``x2a6e`` and so on) are beside or instead of a room's."""
        controller = Controller(f"sensor {address}", link=self.link, public_address=address)
        config = DeviceConfiguration(
            name="room", address=Address(address), advertising_interval_min=50, advertising_interval_max=50
        )
        device = Device.from_config_with_hci(config, controller, controller)
        told: dict[str, bytes | None] = {**ROOM, **{number[1:]: value for number, value in values.items()}}
        found = Sensor(device, told)
        for number, service in SERVICES.items():
            device.add_service(Service(number, [_served(found, each) for each in service if each in told]))
        device.on("connection", lambda _connection: setattr(found, "connections", found.connections + 1))
        device.advertising_data = bytes(
            AdvertisingData([data_types.Flags(AdvertisingData.Flags(6)), data_types.CompleteLocalName("room")])
        )
        await device.power_on()
        await device.start_advertising(auto_restart=True)
        return found


ROOM: Final[dict[str, bytes]] = {
    "2A6E": struct.pack("<h", 2150),
    "2A6F": struct.pack("<H", 4820),
    "2A6D": struct.pack("<I", 1_013_250),
    "2A19": b"\x57",
    "2A25": b"ESS-0042",
    "2A24": b"Roomy",
}
SERVICES: Final = {"181A": ("2A6E", "2A6F", "2A6D", "2B8C"), "180F": ("2A19",), "180A": ("2A25", "2A24")}


def _served(sensor: Sensor, number: str) -> Characteristic[bytes]:
    async def read(_connection: object) -> bytes:
        value = sensor.values[number]
        if sensor.mute is not None:
            await sensor.mute.wait()
        if value is None:
            raise att.ATT_Error(att.ErrorCode.UNLIKELY_ERROR)
        return value

    properties = Characteristic.Properties.READ | Characteristic.Properties.NOTIFY
    served: Any = Characteristic(number, properties, Characteristic.READABLE, CharacteristicValue(read=read))
    sensor.characteristics[number] = served
    found: Characteristic[bytes] = served
    return found


@contextlib.asynccontextmanager
async def air() -> AsyncIterator[Air]:
    """With a host in it; it is still until a sensor is there."""
    link: Any = LocalLink()  # type: ignore[no-untyped-call]
    controller = Controller("host", link=link, public_address=HOST_ADDRESS)
    host = Device.with_hci("edge", Address(HOST_ADDRESS), controller, controller)
    await host.power_on()
    scanner = type("Scanner", (_Scanner,), {"host": host})
    client = type("Client", (_Client,), {"host": host})
    yield Air(link, Backends(scanner, client))
