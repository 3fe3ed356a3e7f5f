"""``gpsd``: a GNSS receiver that gpsd has, which other programs of the board may ask as well."""

from typing import Annotated

from msgspec import Meta, Struct

from firmware_bridge import gpsd
from firmware_bridge.adapters.line_stream import LineStream
from firmware_bridge.driver import MonoMs
from firmware_bridge.drivers.receiver import Receiver, check_ages
from firmware_bridge.gpsd import Device, Strange
from firmware_bridge.position import NOTHING, Ages

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class GpsdOptions(Struct, frozen=True, kw_only=True):
    """``device``: gpsd's path of the receiver; empty: whichever it has. Ages are as of ``nmea0183``."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 2947
    device: Annotated[str, Meta(max_length=255)] = ""
    stale_s: Seconds = 3.0
    absent_s: Seconds = 10.0

    def __post_init__(self) -> None:
        check_ages(self.stale_s, self.absent_s)


class Gpsd(Receiver):
    kind = "gpsd"
    summary = "GNSS receiver behind gpsd: its reports of position and precision"
    options_type = GpsdOptions
    shares = True  # gpsd takes any number of clients
    example = 'host = "127.0.0.1"\ndevice = "/dev/serial/by-id/usb-u-blox_GNSS-if00"'

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        assert isinstance(options, GpsdOptions)
        super().__init__(options, mono_ms, Ages(int(options.stale_s * 1000), int(options.absent_s * 1000)))
        self._told = options
        self._says = ""
        self._source = LineStream(
            options.host,
            options.port,
            gpsd.watch(options.device),
            line_bytes_max=gpsd.LINE_BYTES_MAX,
            heard=self._heard,
            changed=self._changed,
        )

    def _heard(self, line: bytes) -> None:
        told = gpsd.parse(line, self._told.device)
        if isinstance(told, Strange):
            self._says = told.why
            self._damaged += 1
        elif isinstance(told, Device):
            self._says = "" if told.there else f"gpsd has let go of {told.path}"
        elif told is not NOTHING:
            self._says = ""
            self._take(told)

    def _changed(self, _why: str) -> None:
        self._says = ""
        self._news.set()

    def _why_silent(self) -> str:
        return self._source.closed_because or self._says or super()._why_silent()
