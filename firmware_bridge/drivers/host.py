"""The board itself, read through psutil: ``host.cpu``, ``host.memory``, ``host.storage``, ``host.network``,
``host.temperature``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import psutil
from msgspec import Meta, Struct

from broker_config.text import shown
from firmware_bridge.adapters.threads import OneCall, StuckError
from firmware_bridge.driver import Driver, MonoMs, all_failed
from firmware_bridge.readings import Failed, Quality, Reading, Result, Results

LOOPBACK = "lo"


class _Host(Driver):
    """A call that answers all the driver's points at once."""

    def _values(self) -> Mapping[str, float]:
        raise NotImplementedError

    async def _ask(self, deadline_s: float) -> Mapping[str, float]:  # noqa: ARG002
        return self._values()

    async def read(self, points: Sequence[str], deadline_s: float) -> Results:
        try:
            values = await self._ask(deadline_s)
        except (OSError, StuckError, psutil.Error) as error:
            return all_failed(points, shown(error))
        now = self._mono_ms()
        out: dict[str, Result] = {}
        for point in points:
            if point in values:
                out[point] = Reading(values[point], Quality.GOOD, None, now)
            else:
                out[point] = Failed("this board does not tell it")
        return out


class _InThread(_Host):
    """For what may block: a file system that hangs, a sensor on a bus."""

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        self._call: OneCall[Mapping[str, float]] = OneCall()

    async def _ask(self, deadline_s: float) -> Mapping[str, float]:
        return await self._call.run(self._values, deadline_s)


class Cpu(_Host):
    kind = "host.cpu"
    summary = "processor: share not idle since the last reading (the first: since boot), load average"
    points = ("cpu_pct", "load_1m")

    def __init__(self, options: Struct, mono_ms: MonoMs) -> None:
        super().__init__(options, mono_ms)
        self._total = self._idle = self._share = 0.0

    def _values(self) -> Mapping[str, float]:
        times = psutil.cpu_times()
        # guest time is counted in user time already
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        if total > self._total:  # else no tick of the kernel's has passed: what was true a moment ago is
            share = 1 - (idle - self._idle) / (total - self._total)
            self._total, self._idle, self._share = total, idle, round(100 * min(1.0, max(0.0, share)), 2)
        return {"cpu_pct": self._share, "load_1m": round(os.getloadavg()[0], 3)}


class Memory(_Host):
    kind = "host.memory"
    summary = "memory: what can be had without swapping, share used"
    points = ("available_bytes", "used_pct")

    def _values(self) -> Mapping[str, float]:
        memory = psutil.virtual_memory()
        return {"available_bytes": float(memory.available), "used_pct": float(memory.percent)}


class StorageOptions(Struct, frozen=True):
    """``path``: any path on the file system that is meant; one that is not there yet stands for its parent."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)] = "/"


class Storage(_InThread):
    kind = "host.storage"
    summary = "file system: free bytes, share used"
    points = ("free_bytes", "used_pct")
    options_type = StorageOptions
    example = 'path = "{state_dir}"'

    def _values(self) -> Mapping[str, float]:
        assert isinstance(self._options, StorageOptions)
        path = Path(self._options.path).absolute()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        usage = psutil.disk_usage(str(there))
        return {"free_bytes": float(usage.free), "used_pct": float(usage.percent)}


class Network(_Host):
    kind = "host.network"
    summary = "network: bytes and errors since boot, all interfaces but loopback"
    points = ("rx_bytes", "tx_bytes", "rx_errors", "tx_errors")

    def _values(self) -> Mapping[str, float]:
        # nowrap would keep a cache and add up counters over an interface that came again: the raw ones are the fact
        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        nics = [nic for name, nic in counters.items() if name != LOOPBACK]
        return {
            "rx_bytes": float(sum(nic.bytes_recv for nic in nics)),
            "tx_bytes": float(sum(nic.bytes_sent for nic in nics)),
            "rx_errors": float(sum(nic.errin for nic in nics)),
            "tx_errors": float(sum(nic.errout for nic in nics)),
        }


class Temperature(_InThread):
    kind = "host.temperature"
    summary = "the hottest sensor of the board"
    points = ("temp_c",)
    _PRESENT_S: ClassVar[float] = 5.0

    def _values(self) -> Mapping[str, float]:
        found = [entry.current for entries in psutil.sensors_temperatures().values() for entry in entries]
        return {"temp_c": float(max(found))} if found else {}

    async def present(self) -> bool:
        try:
            return bool(await self._call.run(self._values, self._PRESENT_S))
        except (OSError, StuckError):
            return False
