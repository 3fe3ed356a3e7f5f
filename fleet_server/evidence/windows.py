"""How much each device may have under way. Values and times in, bytes out.

A window is a quarter second of what the device has lately got through, and never less than a chunk; it becomes four
times as large at most from one word to the next, from one chunk on. A device that begins is measured from the first
chunk on. All windows together stay below what the broker holds for the server, so that it never drops anything, and
below the site's rate where one is stated. When there is not enough for all, each has its turn.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from broker_config import limits

BUDGET_BYTES: Final = limits.QUEUED_BYTES_MAX * 8 // 10
"""Of all windows: what the broker's queue for one client holds, but for a margin."""
MEASURE_S: Final = 0.1
"""A rate is measured over so long at least."""
BEGIN_S: Final = 0.005
"""What begins is taken to have lasted so long at least: its first chunks may have come at once."""
FORGET: Final = 0.3
"""A slower measure of MEASURE_S counts for this share, a faster one wholly."""
SILENT_S: Final = 15.0
"""Who says nothing for so long has nothing under way any more."""
TURN_S: Final = 10.0
"""While others wait, nobody sends for longer at a time."""
AGAIN_S: Final = 2
GROWTH: Final = 4.0


class Grant(NamedTuple):
    """``window_bytes`` 0: a pause; ``again_s`` says when to ask."""

    window_bytes: int
    again_s: int = 0


@dataclass(slots=True)
class _Flow:
    """What one device gets through. ``since_s``: when the measure that runs began; ``turn_s``: its turn; ``begins``:
    the first measure with a window still runs.
    """

    window_bytes: int = 0
    rate_bytes_s: float = 0.0
    since_s: float = 0.0
    got_bytes: int = 0
    heard_s: float = 0.0
    turn_s: float = 0.0
    begins: bool = True


class Windows:
    """Of all devices of one server; one thread. ``rate_bytes_s``: of the site, 0 is no bound."""

    def __init__(self, *, budget_bytes: int = BUDGET_BYTES, rate_bytes_s: int = 0) -> None:
        self._budget_bytes = budget_bytes
        self._site_rate = rate_bytes_s
        self._site_bytes = float(rate_bytes_s)
        self._site_at_s = 0.0
        self._flows: dict[str, _Flow] = {}
        self._waiting: OrderedDict[str, float] = OrderedDict()
        self._granted_bytes = 0

    @property
    def granted_bytes(self) -> int:
        """All windows together."""
        return self._granted_bytes

    @property
    def waiting(self) -> int:
        """Devices that have no window and want one."""
        return len(self._waiting)

    def durable(self, device: str, size: int, now_s: float) -> None:
        """So many bytes more of *device* are on the disk."""
        flow = self._flow(device, now_s)
        if self._site_rate:
            self._site_bytes -= size
        flow.got_bytes += size
        took_s = now_s - flow.since_s
        if took_s < MEASURE_S:
            if flow.begins and flow.window_bytes:  # all of it came since the window was given: it is no overestimate
                flow.rate_bytes_s = max(flow.rate_bytes_s, flow.got_bytes / max(took_s, BEGIN_S))
            return
        flow.begins = flow.begins and not flow.window_bytes
        rate = flow.got_bytes / took_s
        # the longer a measure took the more it counts: what comes once in ten seconds is all that there is to come
        weight = 1.0 if rate > flow.rate_bytes_s else 1 - (1 - FORGET) ** (took_s / MEASURE_S)
        flow.rate_bytes_s += weight * (rate - flow.rate_bytes_s)
        flow.since_s, flow.got_bytes = now_s, 0

    def grant(self, device: str, chunk_bytes: int, now_s: float) -> Grant:
        """What *device*, which has something to send in chunks of so many bytes, may have under way from now on."""
        flow = self._flow(device, now_s)
        if self._is_over_rate(now_s):
            self._set(flow, 0)
            return Grant(0, 1)
        waits_long = self._waiting and flow.window_bytes and now_s - flow.turn_s > TURN_S
        if waits_long or not self._may_begin(device, flow, chunk_bytes):
            self._set(flow, 0)
            if device not in self._waiting:
                self._waiting[device] = now_s
            return Grant(0, AGAIN_S)
        self._waiting.pop(device, None)
        if not flow.window_bytes:
            flow.turn_s = flow.since_s = now_s
            flow.got_bytes = 0
        want = max(chunk_bytes, min(int(limits.UPLOAD_WINDOW_S * flow.rate_bytes_s), self._grown(flow, chunk_bytes)))
        left = self._budget_bytes - self._granted_bytes + flow.window_bytes
        share = self._budget_bytes // (len(self._flows) or 1)
        fair = left if not self._waiting else min(left, share)
        self._set(flow, max(chunk_bytes, min(want, fair, limits.UPLOAD_WINDOW_BYTES_MAX)))
        return Grant(flow.window_bytes)

    def rest(self, device: str) -> None:
        """*device* has nothing to send now; what was measured of it stays."""
        self._waiting.pop(device, None)
        flow = self._flows.get(device)
        if flow is not None:
            self._set(flow, 0)

    def look(self, now_s: float) -> list[str]:
        """Forget who fell silent; return who waited and may begin now, the longest first."""
        for device in [name for name, flow in self._flows.items() if now_s - flow.heard_s > SILENT_S]:
            self.rest(device)
            del self._flows[device]
        left = self._budget_bytes - self._granted_bytes
        return list(self._waiting)[: max(0, left // limits.CHUNK_BYTES_MAX)]

    def _flow(self, device: str, now_s: float) -> _Flow:
        flow = self._flows.get(device)
        if flow is None:
            flow = self._flows[device] = _Flow(since_s=now_s, turn_s=now_s)
        flow.heard_s = now_s
        return flow

    def _may_begin(self, device: str, flow: _Flow, chunk_bytes: int) -> bool:
        """Whether there is a chunk's room for it, behind those who waited longer."""
        if flow.window_bytes:
            return True
        before = 0
        for other in self._waiting:
            if other == device:
                break
            before += 1
        return self._granted_bytes + before * limits.CHUNK_BYTES_MAX + chunk_bytes <= self._budget_bytes

    def _grown(self, flow: _Flow, chunk_bytes: int) -> int:
        return int(GROWTH * max(flow.window_bytes, chunk_bytes))

    def _is_over_rate(self, now_s: float) -> bool:
        if not self._site_rate:
            return False
        gained = (now_s - self._site_at_s) * self._site_rate
        self._site_bytes = min(float(self._site_rate), self._site_bytes + gained)
        self._site_at_s = now_s
        return self._site_bytes <= 0

    def _set(self, flow: _Flow, window_bytes: int) -> None:
        self._granted_bytes += window_bytes - flow.window_bytes
        flow.window_bytes = window_bytes
