"""The driver of BLE sensors, against Bumble's GATT server over Bumble's virtual radio."""

import asyncio
import struct
import subprocess
import sys

import pytest

from firmware_bridge import gatt
from firmware_bridge.adapters import ble
from firmware_bridge.adapters.ble_device import BleOptions
from firmware_bridge.drivers.ble import Ble
from firmware_bridge.readings import Failed, Identity, Quality, Reading, Results
from tests.firmware_bridge.bumble_radio import Air, air
from tests.firmware_bridge.far_end import mono_ms, until, until_results

ADDRESS, OTHER = "C0:98:E5:00:00:01", "C0:98:E5:00:00:02"
DEADLINE_S = 15.0
ROOM = ("temp_c", "humidity_pct", "pressure_pa", "battery_pct")
VALUES = {"temp_c": 21.5, "humidity_pct": 48.2, "pressure_pa": 101_325, "battery_pct": 87}


def driver(found: Air, address: str = ADDRESS, **options: object) -> Ble:
    return Ble(BleOptions(address=address, **options), mono_ms, found.backends)  # type: ignore[arg-type]


def values(results: Results) -> dict[str, float]:
    return {name: result.value for name, result in results.items() if isinstance(result, Reading)}


def qualities(results: Results) -> set[Quality]:
    return {result.quality for result in results.values() if isinstance(result, Reading)}


def whys(results: Results) -> dict[str, str]:
    return {name: result.why for name, result in results.items() if isinstance(result, Failed)}


async def test_a_sensor_is_read_and_what_it_lacks_or_refuses_costs_only_that_point() -> None:
    async with air() as found:
        await found.sensor(ADDRESS, x2A6D=None)
        d = driver(found, serial="ESS-0042")
        for _ in range(2):
            results = await d.read((*ROOM, "co2_ppm"), DEADLINE_S)
            assert values(results) == {name: each for name, each in VALUES.items() if name != "pressure_pa"}
            told = whys(results)
            assert told["co2_ppm"] == "the device has no 0x2b8c in a service 0x181a"
            assert told["pressure_pa"].startswith("the device answers: ")
        await d.close()


async def test_a_bench_hears_who_advertises_and_a_device_tells_who_it_is() -> None:
    async with air() as found:
        await found.sensor(ADDRESS)
        heard = await ble.heard("hci0", 0.5, found.backends)
        assert [each.address for each in heard] == [ADDRESS]
        d = driver(found)
        assert await d.identify(DEADLINE_S) == Identity("ESS-0042", "Roomy", "")
        await d.close()
        another = driver(found, serial="ESS-0043")
        told = await another.identify(DEADLINE_S)
        assert isinstance(told, Failed)
        assert told.why == "quarantined: expected serial number ESS-0043, got ESS-0042"
        await another.close()


async def test_a_device_that_notifies_is_not_asked() -> None:
    async with air() as found:
        sensor = await found.sensor(ADDRESS)
        d = driver(found, mode="notify", stale_s=30)
        assert values(await d.read(ROOM, DEADLINE_S)) == VALUES  # each is read once: it may never change
        await sensor.notify("2A6E", struct.pack("<h", -525))
        results = await until_results(
            lambda: d.read(ROOM, DEADLINE_S), lambda r: values(r)["temp_c"] == -5.25, "the new value"
        )
        assert qualities(results) == {Quality.GOOD}
        assert whys(await d.read(("co2_ppm",), DEADLINE_S)) == {
            "co2_ppm": "the device has no 0x2b8c in a service 0x181a"
        }
        await d.close()


async def test_what_was_notified_long_ago_is_stale_and_then_absent() -> None:
    now_ms = 0
    async with air() as found:
        await found.sensor(ADDRESS)
        options = BleOptions(address=ADDRESS, mode="notify", stale_s=30, absent_s=60)
        d = Ble(options, lambda: now_ms, found.backends)
        assert qualities(await d.read(ROOM, DEADLINE_S)) == {Quality.GOOD}
        now_ms = 31_000
        assert qualities(await d.read(ROOM, DEADLINE_S)) == {Quality.STALE}
        now_ms = 61_000
        assert set(whys(await d.read(ROOM, DEADLINE_S)).values()) == {"not notified for 60 s"}
        await d.close()


@pytest.mark.parametrize("mode", ["read", "notify"])
async def test_after_the_link_is_lost_it_is_found_again(mode: str) -> None:
    async with air() as found:
        sensor = await found.sensor(ADDRESS)
        d = driver(found, mode=mode, serial="ESS-0042")
        for count in range(1, 4):
            results = await until_results(
                lambda: d.read(ROOM, DEADLINE_S), lambda r: qualities(r) == {Quality.GOOD}, "readings"
            )
            assert values(results) == VALUES
            assert sensor.connections == count
            await sensor.drop()
            gone = await until_results(
                lambda: d.read(ROOM, DEADLINE_S), lambda r: qualities(r) != {Quality.GOOD}, "that it is gone"
            )
            if mode == "notify":  # what it told last is known still
                assert qualities(gone) == {Quality.STALE}
            else:
                assert set(whys(gone).values()) == {"the connection was lost"}
        await d.close()


async def test_another_device_at_the_address_is_quarantined_and_never_connected_to_again() -> None:
    async with air() as found:
        sensor = await found.sensor(ADDRESS, x2A25=b"ESS-0043\0")
        d = driver(found, serial="ESS-0042")
        for _ in range(3):
            results = await d.read(ROOM, DEADLINE_S)
            assert set(whys(results).values()) == {"quarantined: expected serial number ESS-0042, got ESS-0043"}
        await until(lambda: not sensor.device.connections, "that it was let go")
        assert sensor.connections == 1
        await d.close()


async def test_a_device_that_does_not_say_who_it_is_is_not_read() -> None:
    async with air() as found:
        await found.sensor(ADDRESS, x2A25=None)
        d = driver(found, serial="ESS-0042")
        results = await d.read(ROOM, DEADLINE_S)
        assert all(why.startswith("the device answers: ") for why in whys(results).values())
        assert set(whys(results)) == set(ROOM)
        await d.close()


async def test_who_is_not_there_is_a_failure_and_keeps_nobody_else_from_being_read() -> None:
    async with air() as found:
        await found.sensor(ADDRESS)
        here, nobody = driver(found), driver(found, OTHER, scan_s=0.3)
        results = await asyncio.gather(nobody.read(ROOM, DEADLINE_S), here.read(ROOM, DEADLINE_S))
        assert set(whys(results[0]).values()) == {"not heard within 0.3 s"}
        assert values(results[1]) == VALUES
        await nobody.close()
        await here.close()


async def test_wires_of_one_device_share_its_connection_and_two_devices_the_radio() -> None:
    async with air() as found:
        one, two = await found.sensor(ADDRESS), await found.sensor(OTHER, x2A19=b"\x0b")
        room, battery, other = driver(found), driver(found), driver(found, OTHER)
        results = await asyncio.gather(
            room.read(("temp_c",), DEADLINE_S),
            battery.read(("battery_pct",), DEADLINE_S),
            other.read(("battery_pct",), DEADLINE_S),
        )
        assert [values(each) for each in results] == [{"temp_c": 21.5}, {"battery_pct": 87}, {"battery_pct": 11}]
        assert (one.connections, two.connections) == (1, 1)
        await room.close()
        assert values(await battery.read(("battery_pct",), DEADLINE_S)) == {"battery_pct": 87}
        await battery.close()
        await other.close()
        await until(lambda: not one.device.connections and not two.device.connections, "that both were let go")


async def test_a_device_that_never_answers_costs_our_own_time_and_its_connection() -> None:
    async with air() as found:
        sensor = await found.sensor(ADDRESS)
        d = driver(found, io_s=0.2)
        assert values(await d.read(ROOM, DEADLINE_S)) == VALUES
        sensor.mute = asyncio.Event()
        results = await d.read(ROOM, DEADLINE_S)
        assert set(whys(results).values()) == {"0x2a6e was not answered"}
        sensor.mute.set()
        sensor.mute = None
        await until_results(lambda: d.read(ROOM, DEADLINE_S), lambda r: values(r) == VALUES, "readings again")
        assert sensor.connections >= 2
        await d.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"stale_s": 10.0, "absent_s": 5.0}, "stale_s: expected at most absent_s 5, got 10"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        BleOptions(address=ADDRESS, **options)  # type: ignore[arg-type]


def test_the_bus_of_bluez_loads_only_when_it_is_used() -> None:
    code = "import sys, firmware_bridge.drivers.ble; print({'dbus_fast', 'bumble'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


async def test_without_a_radio_there_is_nothing_to_read() -> None:
    d = Ble(BleOptions(address=ADDRESS, adapter="hci999"), mono_ms)
    assert not await d.present()
    assert set(gatt.POINTS) == set(Ble.points)
    await d.close()
