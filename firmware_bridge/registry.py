"""From a driver's name to its class. A driver and its libraries are imported only when a profile names it."""

from importlib import import_module
from typing import Final

from firmware_bridge.driver import Driver

DRIVERS: Final[dict[str, tuple[str, str]]] = {
    "ascii_query": ("firmware_bridge.drivers.ascii_query", "AsciiQuery"),
    "ble": ("firmware_bridge.drivers.ble", "Ble"),
    "gpsd": ("firmware_bridge.drivers.gpsd", "Gpsd"),
    "host.clock": ("firmware_bridge.drivers.host_clock", "Clock"),
    "host.cpu": ("firmware_bridge.drivers.host", "Cpu"),
    "host.memory": ("firmware_bridge.drivers.host", "Memory"),
    "host.network": ("firmware_bridge.drivers.host", "Network"),
    "host.storage": ("firmware_bridge.drivers.host", "Storage"),
    "host.temperature": ("firmware_bridge.drivers.host", "Temperature"),
    "modbus_rtu": ("firmware_bridge.drivers.modbus", "ModbusRtu"),
    "modbus_tcp": ("firmware_bridge.drivers.modbus", "ModbusTcp"),
    "nmea0183": ("firmware_bridge.drivers.nmea0183", "Nmea0183"),
    "ntcip1202": ("firmware_bridge.drivers.ntcip1202", "Ntcip1202"),
    "smp": ("firmware_bridge.drivers.smp", "Smp"),
}


class UnknownDriverError(LookupError):
    """No driver of that name; the message names those there are."""


def driver_class(name: str) -> type[Driver]:
    """The class of driver *name*.

    Raises:
        UnknownDriverError: there is none.
        ImportError: a library that it needs is not installed.
    """
    if name not in DRIVERS:
        raise UnknownDriverError(f"expected one of {', '.join(DRIVERS)}, got {name[:40]!r}")
    module, cls = DRIVERS[name]
    found = getattr(import_module(module), cls)
    assert isinstance(found, type)
    assert issubclass(found, Driver)
    return found
