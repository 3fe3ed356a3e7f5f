"""An order of a kind that may be repeated and was not carried out may come again under its counter."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from broker_config.signing import Claims, Kind
from edge_agent.adapters.counters import Counters
from edge_agent.obeying import Order
from tests.edge_agent.test_orders import NEW, Device
from tests.orders import NOW_MS, claims, order

ORDER = order(claims({}, kind=Kind.TWIN, counter=NEW))


@dataclass
class Carrier:
    """``able`` off: its disk takes nothing."""

    able: bool = True
    done: list[int] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def fits(self, _claims: Claims) -> bool:
        return True

    def carry_out(self, order: Order) -> bool:
        self.came.set()
        if self.able:
            self.done.append(order.claims.counter)
        return self.able


async def hear(device: Device, carrier: Carrier, data: bytes = ORDER) -> None:
    """Until the carrier has it."""
    device.orders._carriers = {Kind.TWIN: carrier}
    carrier.came.clear()
    device.orders.told(Kind.TWIN, data)
    running = asyncio.create_task(device.orders.run())
    async with asyncio.timeout(10):
        await carrier.came.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def refused(device: Device) -> list[object]:
    device.orders.turn(ending=True)
    return [data["reason"] for _, data in device.noted]


async def test_what_was_carried_out_is_carried_out_once(tmp_path: Path) -> None:
    device, carrier = Device(tmp_path / "orders.db"), Carrier()
    await hear(device, carrier)
    device.orders.told(Kind.TWIN, ORDER)
    assert carrier.done == [NEW]
    assert refused(device) == ["replayed"]


async def test_what_could_not_be_kept_may_come_again(tmp_path: Path) -> None:
    device, carrier = Device(tmp_path / "orders.db"), Carrier(able=False)
    await hear(device, carrier)
    carrier.able = True
    await hear(device, carrier)
    assert carrier.done == [NEW]
    assert refused(device) == []


async def test_what_a_power_cut_interrupted_may_come_again_and_nothing_older(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "orders.db")
    counters.raise_floor(NOW_MS)
    counters.begin(Kind.TWIN, NEW, "")
    device, carrier = Device(tmp_path / "orders.db"), Carrier()
    await hear(device, carrier)
    assert carrier.done == [NEW]
    device.orders.told(Kind.TWIN, order(claims({}, kind=Kind.TWIN, counter=NEW - 1)))
    assert refused(device) == ["replayed"]
    assert counters.load().interrupted == {}
