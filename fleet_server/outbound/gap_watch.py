"""Tells each gap once: one that nobody explains after a while, and one of what was receipted at once. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fleet_server.outbound.happenings import Data, Kind, News, names
from fleet_server.projection.labels import Labels
from fleet_server.telemetry.view import Gap, GapReason

EXPLAIN_MS: Final = 180_000
"""The journal that explains a gap may come after what shows it, with the backlog."""
TOLD_MAX: Final = 50_000
"""Gaps remembered as told; beyond them the ones that were longest not seen are forgotten, and told again if they
come back."""
WAITING_MAX: Final = 50_000
FORGET_MS: Final = 2 * 86_400_000
"""A gap that was not seen for so long is over."""
NEWS_MAX: Final = 500

KINDS: Final[Mapping[GapReason, Kind]] = {
    GapReason.UNEXPLAINED: Kind.GAP_UNEXPLAINED,
    GapReason.LOST: Kind.GAP_LOST,
}


@dataclass(frozen=True, slots=True)
class GapLook:
    """What a look at the gaps found: keys to remember and to forget."""

    news: tuple[News, ...]
    told: tuple[str, ...]
    forgotten: tuple[str, ...]


class GapWatch:
    """*told*: keys of the gaps that were told. *baseline*: whether gaps were ever looked at."""

    def __init__(self, told: Iterable[str], now_ms: int, *, baseline: bool) -> None:
        self.baseline = baseline
        self._seen_ms = dict.fromkeys(told, now_ms)
        self._waiting_ms: dict[str, int] = {}

    def look(self, gaps: Iterable[Gap], labels: Mapping[str, Labels], now_ms: int) -> GapLook:
        """All gaps of the time that is looked at; open ones are presence's to tell.

        News are one a device and reason, however many gaps there are. The first look of all tells of none.
        """
        ripe: dict[tuple[str, GapReason], list[Gap]] = {}
        waiting: dict[str, int] = {}
        for gap in gaps:
            if gap.open or gap.reason not in KINDS:
                continue
            key = key_of(gap)
            if key in self._seen_ms:
                self._seen_ms[key] = now_ms
                continue
            since_ms = self._waiting_ms.get(key, now_ms)
            if not self.baseline or gap.reason is GapReason.LOST or now_ms - since_ms >= EXPLAIN_MS:
                ripe.setdefault((gap.device, gap.reason), []).append(gap)
            elif len(waiting) < WAITING_MAX:
                waiting[key] = since_ms
        chosen = list(ripe.items())[:NEWS_MAX] if self.baseline else list(ripe.items())
        self._waiting_ms = waiting | {key_of(gap): 0 for _, found in ripe.items() for gap in found}
        told = tuple(key_of(gap) for _, found in chosen for gap in found)
        news = tuple(_news(device, found, labels, now_ms) for (device, _), found in chosen) if self.baseline else ()
        return GapLook(news, told, self._old(len(told), now_ms))

    def accept(self, look: GapLook, now_ms: int) -> None:
        """*look* is recorded."""
        self.baseline = True
        for key in look.forgotten:
            self._seen_ms.pop(key, None)
        for key in look.told:
            self._seen_ms[key] = now_ms
            self._waiting_ms.pop(key, None)

    def _old(self, coming: int, now_ms: int) -> tuple[str, ...]:
        over = len(self._seen_ms) + coming - TOLD_MAX
        oldest = sorted(self._seen_ms, key=self._seen_ms.__getitem__) if over > 0 else []
        old = {key for key, at_ms in self._seen_ms.items() if now_ms - at_ms > FORGET_MS}
        return tuple(old | set(oldest[: max(0, over)]))


def key_of(gap: Gap) -> str:
    """A gap's name: its beginning, because its end may still move."""
    return f"{gap.device}/{gap.stream}/{gap.life}/{gap.reason}/{gap.first_seq}/{gap.from_ms or 0}"


def _news(device: str, found: list[Gap], labels: Mapping[str, Labels], now_ms: int) -> News:
    label, first = labels[device], found[0]
    data: Data = {
        "count": len(found),
        "streams": names(list({gap.stream for gap in found})),
        "first_seq": first.first_seq,
        "last_seq": first.last_seq,
        "from_ms": first.from_ms or 0,
        "to_ms": first.to_ms or 0,
        "detail": first.detail,
    }
    return News(now_ms, KINDS[first.reason], device, label.device_class, label.org, data)
