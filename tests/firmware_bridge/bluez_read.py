"""Reads a sensor with the driver as it is, through BlueZ's bus: told address, mode and how often the temperature has
to have changed. Prints the results as JSON, one line a reading that differs from the one before.
"""

import asyncio
import json
import sys
from typing import Literal, cast

from firmware_bridge.adapters.ble_device import BleOptions
from firmware_bridge.drivers.ble import Ble
from firmware_bridge.readings import Reading
from tests.firmware_bridge.far_end import mono_ms

DEADLINE_S = 20.0
POINTS = ("temp_c", "humidity_pct", "battery_pct")


async def main(address: str, mode: str, changes: int) -> None:
    options = BleOptions(address=address, serial="ESS-0042", mode=cast("Literal['read', 'notify']", mode))
    driver = Ble(options, mono_ms)
    last: dict[str, float | str] = {}
    async with asyncio.timeout(DEADLINE_S):
        while changes:
            results = await driver.read(POINTS, DEADLINE_S)
            told = {name: each.value if isinstance(each, Reading) else each.why for name, each in results.items()}
            if told.get("temp_c") != last.get("temp_c"):
                print(json.dumps(told), flush=True)
                last, changes = told, changes - 1
            await asyncio.sleep(0.02)
    await driver.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
