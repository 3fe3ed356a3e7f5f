"""Which orders of twins are due, and which that were signed may be said again. Values and time in, values out."""

from collections import OrderedDict
from typing import Final, NamedTuple

from broker_config.ids import DeviceId

DUE_MAX: Final = 100_000
"""Devices that wait for an order; one more is told nothing, and asks again."""
KEPT_MAX: Final = 10_000
SAY_AGAIN_MS: Final = 60_000
"""So long after it was signed an order is said again as it is. One that asks later still, though it was told, has
lost what it took up: it obeys a newer counter only.
"""


class Due:
    """Devices that are to be told what is desired of them, each once, in the order in which that became so."""

    def __init__(self, devices_max: int = DUE_MAX) -> None:
        self._devices: OrderedDict[DeviceId, None] = OrderedDict()
        self._max = devices_max

    def __len__(self) -> int:
        return len(self._devices)

    def add(self, device: DeviceId) -> bool:
        """Whether there was room."""
        if device not in self._devices and len(self._devices) >= self._max:
            return False
        self._devices[device] = None
        return True

    def take(self, devices_max: int) -> list[DeviceId]:
        """The next ones, at most so many."""
        return [self._devices.popitem(last=False)[0] for _ in range(min(devices_max, len(self._devices)))]

    def back(self, devices: list[DeviceId]) -> None:
        """They could not be told: they are the next ones again."""
        for device in reversed(devices):
            self._devices[device] = None
            self._devices.move_to_end(device, last=False)


class _Kept(NamedTuple):
    version: int
    envelope: bytes
    until_ms: int


class Signed:
    """Orders as they were signed, the newest of each device."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept: OrderedDict[DeviceId, _Kept] = OrderedDict()
        self._max = kept_max

    def find(self, device: DeviceId, version: int, *, now_ms: int) -> bytes | None:
        """One that may be said as it is."""
        kept = self._kept.get(device)
        if kept is None or kept.version != version or now_ms >= kept.until_ms:
            return None
        return kept.envelope

    def keep(self, device: DeviceId, version: int, envelope: bytes, *, signed_ms: int, lifetime_ms: int) -> None:
        """It was signed just now."""
        self._kept[device] = _Kept(version, envelope, signed_ms + min(SAY_AGAIN_MS, lifetime_ms))
        self._kept.move_to_end(device)
        while len(self._kept) > self._max:
            self._kept.popitem(last=False)
