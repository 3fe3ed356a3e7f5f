"""Many devices of one place that go or come together are one thing that happened. Pure.

A device that goes waits a moment for others of its node. Once nobody has joined those that wait for ``gather_ms``, or
the first has waited ``gather_ms_max``, they are judged together: one happening of the node if they are many, one each
if not. A device that is back meanwhile was never told to be away. An outage seldom comes at once (keep-alives of one
room expire one after the other), so behind a node's happening its next ones gather for as long as they may.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

WAITING_MAX: Final = 200_000
"""Devices that wait in one direction; more are told at once."""


@dataclass(frozen=True, slots=True)
class OutagePolicy:
    """When devices are told of as one.

    ``together_devices``: so many at once, whatever their share; ``together_share``: of the node's devices, if they
    are at least ``share_devices_min``. ``gather_ms``: how long nobody joins until they are judged; ``gather_ms_max``:
    how long the first may wait. Within ``outage_ms`` of a node's last happening they wait for as long as they may,
    and ``share_devices_min`` are enough.
    """

    together_devices: int = 10
    together_share: float = 0.5
    share_devices_min: int = 3
    gather_ms: int = 5_000
    gather_ms_max: int = 30_000
    outage_ms: int = 180_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Devices of *node* that go (or come) together; ``together``: tell of them as one."""

    node: str
    devices: Sequence[str]
    together: bool


@dataclass(slots=True)
class Gathering:
    """Who waits to be told in one direction. Kept in memory alone: what is not told yet is seen again."""

    policy: OutagePolicy
    waiting: dict[str, dict[str, int]] = field(default_factory=dict)
    told_ms: dict[str, int] = field(default_factory=dict)

    def add(self, node: str, device: str, now_ms: int) -> None:
        """It goes this way; again is the same."""
        self.waiting.setdefault(node, {}).setdefault(device, now_ms)

    def drop(self, node: str, device: str) -> None:
        """It does not any more."""
        found = self.waiting.get(node)
        if found is not None and found.pop(device, None) is not None and not found:
            del self.waiting[node]

    def ripe(self, sizes: Mapping[str, int], now_ms: int) -> list[Batch]:
        """Who is to be told now; they wait on until :meth:`drop` or :meth:`told`.

        *sizes*: devices of each node.
        """
        crowded = sum(map(len, self.waiting.values())) > WAITING_MAX
        return [
            Batch(node, sorted(devices), self._together(node, len(devices), sizes.get(node, 0), now_ms))
            for node, devices in self.waiting.items()
            if crowded or self._is_ripe(node, devices.values(), now_ms)
        ]

    def told(self, batch: Batch, now_ms: int) -> None:
        """*batch* is recorded."""
        for device in batch.devices:
            self.drop(batch.node, device)
        if batch.together:
            self.told_ms[batch.node] = now_ms
        for node in [node for node, at_ms in self.told_ms.items() if now_ms - at_ms > self.policy.outage_ms]:
            del self.told_ms[node]

    def _is_ripe(self, node: str, since_ms: Collection[int], now_ms: int) -> bool:
        if now_ms - min(since_ms) >= self.policy.gather_ms_max:
            return True
        return not self._recent(node, now_ms) and now_ms - max(since_ms) >= self.policy.gather_ms

    def _together(self, node: str, count: int, size: int, now_ms: int) -> bool:
        policy = self.policy
        if count >= policy.together_devices:
            return True
        many = self._recent(node, now_ms) or count >= policy.together_share * size
        return many and count >= policy.share_devices_min

    def _recent(self, node: str, now_ms: int) -> bool:
        told_ms = self.told_ms.get(node)
        return told_ms is not None and now_ms - told_ms <= self.policy.outage_ms
