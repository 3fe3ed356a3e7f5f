from datetime import UTC, datetime
from pathlib import Path

import pytest

from firmware_bridge.drivers.nmea0183 import Nmea0183, NmeaOptions
from firmware_bridge.peripherals.drive import Moment
from firmware_bridge.peripherals.gnss import burst
from firmware_bridge.peripherals.play import Instrument, playing
from firmware_bridge.position import POINTS
from firmware_bridge.readings import Failed, Quality, Reading, Results
from tests.firmware_bridge.far_end import far_end, mono_ms, until_results

MOMENT = Moment(51.5, -0.1, 30.0, 10.0, 90.0, 0.0)
DEADLINE_S = 3.0


def driver(link: Path, **options: float) -> Nmea0183:
    return Nmea0183(NmeaOptions(port=str(link), **options), mono_ms)  # type: ignore[arg-type]


def qualities(results: Results) -> dict[str, Quality | None]:
    return {name: result.quality if isinstance(result, Reading) else None for name, result in results.items()}


def failed(results: Results) -> bool:
    return all(isinstance(result, Failed) for result in results.values())


async def test_the_first_reading_waits_for_the_whole_burst_of_a_real_drive(tmp_path: Path) -> None:
    async with playing(Instrument.GNSS, tmp_path / "gnss", 3):
        d = driver(tmp_path / "gnss")
        results = await d.read(POINTS, DEADLINE_S)
        await d.close()
    assert set(qualities(results).values()) == {Quality.GOOD}
    lat, device_ms = results["lat"], datetime.now(UTC).timestamp() * 1000
    assert isinstance(lat, Reading)
    assert 51 < lat.value < 52
    assert lat.device_ms is not None
    assert abs(lat.device_ms - device_ms) < 30_000


async def test_a_receiver_that_loses_the_sky_is_no_fault_and_its_last_place_ages_away(tmp_path: Path) -> None:
    async with far_end(tmp_path / "gnss") as far:
        d = driver(tmp_path / "gnss", stale_s=0.2, absent_s=0.6)
        await d.read((), 0.01)
        await until_results(
            lambda: _say_and_read(far.terminal.say, d, fix=True),
            lambda r: set(qualities(r).values()) == {Quality.GOOD},
            "a fix",
        )
        stale = await until_results(
            lambda: _say_and_read(far.terminal.say, d, fix=False),
            lambda r: qualities(r)["lat"] is Quality.STALE,
            "a stale place",
        )
        assert isinstance(stale["fix"], Reading)
        assert stale["fix"].value == 0
        absent = await until_results(
            lambda: _say_and_read(far.terminal.say, d, fix=False),
            lambda r: qualities(r)["lat"] is Quality.BAD,
            "an absent place",
        )
        assert not any(isinstance(result, Failed) for result in absent.values())
        await d.close()


async def _say_and_read(say: object, d: Nmea0183, *, fix: bool) -> Results:
    assert callable(say)
    say(burst(MOMENT, datetime.now(UTC), fix=fix))
    return await d.read(POINTS, 0.1)


async def test_unplugged_it_is_a_fault_and_replugged_under_the_same_name_it_reads_again(tmp_path: Path) -> None:
    async with playing(Instrument.GNSS, tmp_path / "gnss", 3) as cable:
        d = driver(tmp_path / "gnss", stale_s=0.2, absent_s=1.5)
        assert not failed(await d.read(POINTS, DEADLINE_S))
        for _ in range(2):
            cable.unplug()
            gone = await until_results(lambda: d.read(POINTS, 0.1), failed, "a fault")
            whys = {result.why for result in gone.values() if isinstance(result, Failed)}
            assert whys <= {"No such file or directory", "the device hung up"}
            cable.plug()
            await until_results(
                lambda: d.read(POINTS, 0.1), lambda r: set(qualities(r).values()) == {Quality.GOOD}, "a fix again"
            )
        await d.close()


async def test_a_receiver_that_talks_at_the_wrong_rate_is_a_fault_that_says_so(tmp_path: Path) -> None:
    async with far_end(tmp_path / "gnss") as far:
        d = driver(tmp_path / "gnss", stale_s=0.1, absent_s=0.2)
        assert failed(await d.read(POINTS, 0.2))
        damaged = burst(MOMENT, datetime.now(UTC)).replace(b"*", b"+")

        async def read() -> Results:
            far.terminal.say(damaged)
            return await d.read(POINTS, 0.05)

        await until_results(read, lambda r: "damaged" in str(r["lat"]), "what is wrong")
        await d.close()


async def test_no_such_port_is_a_fault_at_once_and_no_wait(tmp_path: Path) -> None:
    d = driver(tmp_path / "nothing")
    assert await d.read(("lat",), 30.0) == {"lat": Failed("No such file or directory")}
    await d.close()


@pytest.mark.parametrize(
    ("port", "why"),
    [
        ("gnss", "port: expected an absolute path or usb:..., got 'gnss'"),
        ("/dev/ttyUSB0", "port: expected a path that stays with the device"),
        ("/dev/ttyACM12", "port: expected a path that stays with the device"),
    ],
)
def test_a_name_that_the_next_device_may_get_is_refused(port: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        NmeaOptions(port=port)
