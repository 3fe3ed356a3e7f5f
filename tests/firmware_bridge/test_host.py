import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from broker_config import device_classes
from firmware_bridge import registry
from firmware_bridge.adapters.threads import OneCall, StuckError
from firmware_bridge.driver import Nothing
from firmware_bridge.drivers.host import StorageOptions
from firmware_bridge.readings import Failed, Reading
from firmware_bridge.tables import read_table


@pytest.mark.parametrize("stream", ["cpu", "memory", "storage", "network", "temperature"])
async def test_a_real_board_is_read_within_the_plausible_ranges(stream: str) -> None:
    cls = registry.driver_class(f"host.{stream}")
    driver = cls(StorageOptions() if stream == "storage" else Nothing(), lambda: 1)
    if not await driver.present():
        pytest.skip("this board has no such sensor")
    fields = device_classes.load("host").streams[stream].fields
    for _ in range(3):
        results = await driver.read(tuple(fields), 5.0)
        for point, spec in fields.items():
            result = results[point]
            assert isinstance(result, Reading)
            assert spec.min <= result.value <= spec.max


async def test_storage_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    storage = registry.driver_class("host.storage")
    here = storage(StorageOptions(str(tmp_path)), lambda: 1)
    below = storage(StorageOptions(str(tmp_path / "not" / "yet")), lambda: 1)
    there = await here.read(("used_pct",), 5.0)
    assert (await below.read(("used_pct",), 5.0)).keys() == there.keys()
    assert not isinstance(there["used_pct"], Failed)


async def test_a_call_that_hangs_holds_up_nobody_and_is_not_started_twice() -> None:
    release = threading.Event()
    call: OneCall[bool] = OneCall()
    with pytest.raises(StuckError, match="no answer within"):
        await call.run(release.wait, 0.05)
    with pytest.raises(StuckError, match="has not returned yet"):
        await call.run(release.wait, 0.05)
    release.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await call.run(release.wait, 1.0)
                break
            except StuckError:
                await asyncio.sleep(0)


async def test_what_a_call_raises_is_raised_where_it_was_made() -> None:
    def fails() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await OneCall[None]().run(fails, 1.0)


def test_a_driver_is_imported_only_when_it_is_named() -> None:
    code = "import sys, firmware_bridge.registry; print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"False\n"


def test_an_unknown_driver_is_told_which_there_are() -> None:
    with pytest.raises(registry.UnknownDriverError, match=r"expected one of ascii_query, .*, got 'modbus'"):
        registry.driver_class("modbus")


def test_every_driver_is_listed_with_its_options() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "firmware_bridge", "drivers", "--json"], capture_output=True, check=True
    )
    rows = {row["driver"]: row for row in json.loads(done.stdout)}
    assert set(rows) == set(registry.DRIVERS)
    assert rows["ascii_query"]["options"]["at"] == "required"
    assert rows["host.storage"]["options"] == {"path": '"/"'}


def test_every_fault_of_a_table_is_told() -> None:
    faults: list[str] = []
    assert read_table({"path": "", "pth": 1}, StorageOptions, "options", faults) is None
    assert faults == [
        "options.pth: unknown",
        "options.path: Expected `str` of length >= 1, the value is ''",
    ]
