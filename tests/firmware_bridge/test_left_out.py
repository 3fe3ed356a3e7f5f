"""What is left out of a library is not loaded, and is nobody else's loss."""

import subprocess
import sys

import pytest

from firmware_bridge.left_out import left_out


def test_within_the_block_a_module_is_empty_and_after_it_the_real_one() -> None:
    sys.modules.pop("colorsys", None)
    with left_out("colorsys"):
        import colorsys

        assert isinstance(colorsys.anything, type)  # type: ignore[attr-defined]
        assert colorsys.anything is not colorsys.another  # type: ignore[attr-defined]
        assert not hasattr(colorsys, "__path__")
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 1)[2] == 1


def test_what_is_loaded_already_stays() -> None:
    with left_out("json"):
        import json

        assert json.loads("1") == 1


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("edge_agent.agent", "ast ipaddress asyncio.sslproto platform urllib.request typing_extensions"),
        ("firmware_bridge.nmea", "pynmea2.types.proprietary pynmea2.types.proprietary.ubx"),
        ("firmware_bridge.adapters.modbus", "pymodbus.pdu.diag_message pymodbus.datastore pymodbus.simulator"),
    ],
)
def test_a_process_of_its_own_loads_them_only_when_somebody_asks(module: str, absent: str) -> None:
    code = (
        "import sys, importlib as i\n"
        f"i.import_module({module!r})\n"
        f"print(sorted(set({absent!r}.split()) & set(sys.modules)))\n"
        f"print(*(i.import_module(name).__file__ is not None for name in {absent!r}.split()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, later = done.stdout.splitlines()
    assert loaded == "[]"
    assert set(later.split()) == {"True"}


def test_a_unit_can_be_played_in_the_process_that_asks_it() -> None:
    code = "import firmware_bridge.drivers.modbus, firmware_bridge.peripherals.modbus"
    subprocess.run([sys.executable, "-c", code], check=True)
