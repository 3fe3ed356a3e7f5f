"""The board's own facts: its clocks, who disciplines them, which boot this is, and randomness."""

import contextlib
import ctypes
import secrets
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from broker_config.ids import Hex16, hex16
from broker_config.text import shown
from edge_agent.clock import Facts

TIME_ERROR: Final = 5
"""What adjtimex returns for a clock that nobody disciplines. Source: adjtimex(2)."""
STA_UNSYNC: Final = 0x0040
_STATUS_AT: Final = 5  # of the longs of struct timex: modes, offset, freq, maxerror, esterror, status
_MAXERROR_AT: Final = 3
_TIMEX_LONGS: Final = 64  # more than struct timex has on any platform
US_PER_MS: Final = 1000
HARDWARE_FILES: Final = (Path("/proc/device-tree/model"), Path("/sys/class/dmi/id/product_name"))
HARDWARE_CHARS_MAX: Final = 64
_M_ARENA_MAX: Final = -8  # of mallopt(3)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def use_one_heap() -> None:
    """Have all threads share one heap, instead of one each that is touched once. For glibc; else it does nothing."""
    with contextlib.suppress(AttributeError):
        _libc().mallopt(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return to the kernel what is free at the heap's inside. For glibc; elsewhere it does nothing."""
    with contextlib.suppress(AttributeError):
        _libc().malloc_trim(0)


def kernel_sync() -> tuple[bool, int]:
    """Whether the kernel says that the wall clock is disciplined, and its maximal error in ms."""
    timex = (ctypes.c_long * _TIMEX_LONGS)()  # modes 0: only read
    state = _libc().adjtimex(ctypes.byref(timex))
    synced = state not in {-1, TIME_ERROR} and not timex[_STATUS_AT] & STA_UNSYNC
    return synced, max(0, int(timex[_MAXERROR_AT])) // US_PER_MS


@dataclass(frozen=True, slots=True)
class System:
    """See :class:`edge_agent.config.SystemTable`."""

    boot: Hex16
    ntp: Literal["kernel", "yes", "no"]
    mono_add_ms: int

    def mono_ms(self) -> int:
        """Milliseconds since the board booted, time asleep included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 + self.mono_add_ms

    def mono_s(self) -> float:
        """The same in seconds."""
        return self.mono_ms() / 1000

    def facts(self) -> Facts:
        """A look at the clocks, both read at once."""
        synced, unc_ms = kernel_sync() if self.ntp == "kernel" else (self.ntp == "yes", 0)
        return Facts(time.time_ns() // 1_000_000, self.mono_ms(), synced, unc_ms)


def system(boot_id_file: Path, *, ntp: Literal["kernel", "yes", "no"], mono_add_ms: int) -> System:
    """Read which boot this is. Raises OSError or BadIdError if the boot id cannot be read."""
    text = boot_id_file.read_text(encoding="ascii").replace("-", "").strip()
    return System(hex16(text[:16].lower()), ntp, mono_add_ms)


def hardware() -> str:
    """What the board calls itself, in its device tree or its firmware; may be empty."""
    for path in HARDWARE_FILES:
        with contextlib.suppress(OSError):
            name = shown(path.read_text(encoding="utf-8", errors="replace").strip("\0 \n"), HARDWARE_CHARS_MAX)
            if name:
                return name
    return ""


def random_hex16() -> Hex16:
    """64 random bits."""
    return hex16(secrets.token_hex(8))
