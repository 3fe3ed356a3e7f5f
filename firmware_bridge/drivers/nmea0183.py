"""``nmea0183``: a GNSS receiver that talks NMEA 0183 on a serial port."""

from typing import Annotated

from msgspec import Meta, Struct

from firmware_bridge import nmea
from firmware_bridge.adapters.serial_port import SerialOptions, SerialPort
from firmware_bridge.driver import MonoMs, Resource
from firmware_bridge.drivers.receiver import Receiver, check_ages
from firmware_bridge.nmea import Lines
from firmware_bridge.position import Ages

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class NmeaOptions(SerialOptions, frozen=True, kw_only=True):
    """A part older than ``stale_s`` is stale, and it is absent when older than ``absent_s``."""

    stale_s: Seconds = 3.0
    absent_s: Seconds = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ages(self.stale_s, self.absent_s)


class Nmea0183(Receiver):
    kind = "nmea0183"
    summary = "GNSS receiver on a serial port: one position out of RMC, GGA and GSA"
    options_type = NmeaOptions
    example = 'port = "/dev/serial/by-id/usb-u-blox_GNSS-if00"\nbaud = 9600'

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        assert isinstance(options, NmeaOptions)
        super().__init__(options, mono_ms, Ages(int(options.stale_s * 1000), int(options.absent_s * 1000)))
        self._lines = Lines()
        self._source = SerialPort(options, heard=self._heard, changed=self._changed)

    @classmethod
    def resource(cls, options: Struct) -> Resource:
        assert isinstance(options, NmeaOptions)
        return (options.port, (cls.kind, options))

    def _heard(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._take(nmea.parse(line))

    def _changed(self, _why: str) -> None:
        self._lines.clear()
        self._news.set()
