"""``host.clock``: what the kernel says of the board's own clock."""

import ctypes
from collections.abc import Sequence
from typing import Final

from firmware_bridge.driver import Driver, all_failed
from firmware_bridge.readings import Quality, Reading, Results

# struct timex, of longs: modes, offset, freq, maxerror, esterror, status. Source: adjtimex(2)
_LONGS: Final = 64
_OFFSET_AT: Final = 1
_MAXERROR_AT: Final = 3
_STATUS_AT: Final = 5
_STA_UNSYNC: Final = 0x0040
_STA_NANO: Final = 0x2000


class Clock(Driver):
    kind = "host.clock"
    summary = "the board's clock: what the kernel still corrects (absent while nobody sets the clock), maximal error"
    points = ("offset_ms", "unc_ms")

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:  # noqa: ARG002
        timex = (ctypes.c_long * _LONGS)()  # modes 0: only read
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
            return all_failed(points, f"adjtimex: errno {ctypes.get_errno()}")
        now = self._mono_ms()
        status = timex[_STATUS_AT]
        offset_ms = timex[_OFFSET_AT] / (1_000_000 if status & _STA_NANO else 1000)
        known = Quality.BAD if status & _STA_UNSYNC else Quality.GOOD
        out = {
            "offset_ms": Reading(offset_ms, known, None, now),
            "unc_ms": Reading(timex[_MAXERROR_AT] / 1000, Quality.GOOD, None, now),
        }
        return {point: out[point] for point in points}
