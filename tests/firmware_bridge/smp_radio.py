"""A microcontroller that speaks SMP over Bluetooth LE: Bumble's GATT in front of one that speaks it over a cable."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from bumble import data_types
from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData
from bumble.device import Device, DeviceConfiguration
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.hci import Address

from firmware_bridge.adapters.smp_links import HEADER_BYTES, Link
from firmware_bridge.gatt import SMP_CHARACTERISTIC, SMP_SERVICE
from tests.firmware_bridge.bumble_radio import Air

ANSWER_S: Final = 10.0
ATTRIBUTE_BYTES_MAX: Final = 512


@dataclass(slots=True)
class Front:
    """``written``: bytes that were written to it. ``drop_at``: after so many the
    connection is ended, once.
    """

    device: Device
    link: Link
    written: int = 0
    dropped: int = 0
    drop_at: int | None = None
    _unread: bytearray = field(default_factory=bytearray)
    _asked: "asyncio.Queue[bytes]" = field(default_factory=asyncio.Queue)
    characteristic: Any = None

    def heard(self, connection: Any, value: bytes) -> None:
        """A piece of a question; at ``drop_at`` bytes the connection is ended."""
        self.written += len(value)
        if self.drop_at is not None and self.written >= self.drop_at:
            self.drop_at = None
            self.dropped += 1
            self._unread.clear()
            asyncio.get_running_loop().create_task(connection.disconnect())
            return
        self._unread += value
        while len(self._unread) >= HEADER_BYTES:
            length = HEADER_BYTES + int.from_bytes(self._unread[2:4], "big")
            if len(self._unread) < length:
                return
            self._asked.put_nowait(bytes(self._unread[:length]))
            del self._unread[:length]

    async def pass_on(self) -> None:
        """One question after the other to the device, and its answer back."""
        while True:
            question = await self._asked.get()
            with contextlib.suppress(Exception):  # a device that does not answer is silent here as well
                async with asyncio.timeout(ANSWER_S):
                    answer = await self.link.send_and_receive(question)
                for connection in list(self.device.connections.values()):
                    most = min(connection.att_mtu - 3, ATTRIBUTE_BYTES_MAX)
                    for at in range(0, len(answer), most):
                        await self.device.notify_subscriber(connection, self.characteristic, answer[at : at + most])


@contextlib.asynccontextmanager
async def front(air: Air, address: str, link: Link) -> AsyncIterator[Front]:
    """A device at *address* whose answers come over *link*."""
    await link.connect("", ANSWER_S)
    controller = Controller(f"mcu {address}", link=air.link, public_address=address)
    config = DeviceConfiguration(
        name="dock", address=Address(address), advertising_interval_min=50, advertising_interval_max=50
    )
    device = Device.from_config_with_hci(config, controller, controller)
    found = Front(device, link)
    kinds = Characteristic.Properties.WRITE_WITHOUT_RESPONSE | Characteristic.Properties.NOTIFY
    written: Any = CharacteristicValue(write=found.heard)
    found.characteristic = Characteristic(UUID(SMP_CHARACTERISTIC), kinds, Characteristic.WRITEABLE, written)
    device.add_service(Service(UUID(SMP_SERVICE), [found.characteristic]))
    flags = data_types.Flags(AdvertisingData.Flags(6))
    device.advertising_data = bytes(AdvertisingData([flags, data_types.CompleteLocalName("dock")]))
    await device.power_on()
    await device.start_advertising(auto_restart=True)
    passing = asyncio.create_task(found.pass_on())
    try:
        yield found
    finally:
        passing.cancel()
        await link.disconnect()
