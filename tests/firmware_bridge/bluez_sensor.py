"""A room's sensor on bluez-peripheral, registered with whatever answers as BlueZ on the bus; told the adapter's
address. It prints ``ready``, then each temperature that it notifies.
"""

# mypy: disable-error-code="import-untyped,misc,untyped-decorator"
import asyncio
import struct
import sys
from typing import Any

from bluez_peripheral.advert import Advertisement
from bluez_peripheral.gatt.characteristic import CharacteristicFlags, characteristic
from bluez_peripheral.gatt.service import Service, ServiceCollection
from bluez_peripheral.util import Adapter, get_message_bus

EVERY_S = 0.2


class Environment(Service):
    def __init__(self) -> None:
        self.temp = 2150
        super().__init__("181A", True)

    @characteristic("2A6E", CharacteristicFlags.READ | CharacteristicFlags.NOTIFY)
    def temperature(self, _options: Any) -> bytes:
        return struct.pack("<h", self.temp)

    @characteristic("2A6F", CharacteristicFlags.READ)
    def humidity(self, _options: Any) -> bytes:
        return struct.pack("<H", 4820)


class Information(Service):
    def __init__(self) -> None:
        super().__init__("180A", True)

    @characteristic("2A25", CharacteristicFlags.READ)
    def serial(self, _options: Any) -> bytes:
        return b"ESS-0042"


async def main() -> None:
    bus = await get_message_bus()
    (adapter,) = [each for each in await Adapter.get_all(bus) if await each.get_address() == sys.argv[1]]
    environment = Environment()
    services = ServiceCollection([environment, Information()])
    await services.register(bus, adapter=adapter)
    await Advertisement("room", ["181A"], 0x0300, 0).register(bus, adapter)
    print("ready", flush=True)
    while True:
        await asyncio.sleep(EVERY_S)
        environment.temp += 25
        environment.temperature.changed(struct.pack("<h", environment.temp))


asyncio.run(main())
