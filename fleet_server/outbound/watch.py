"""Sees what became of devices since it was last told. Pure: facts and the time in, news and what to remember out.

``Watch`` remembers what was *told*, not what was seen: it changes by :meth:`Watch.accept` alone, after its look was
recorded. A look that could not be recorded is seen again, and what was told before a restart is not told twice.

What the server cannot hear it does not judge: while the broker is away or the store takes nothing, and for
``settle_ms`` behind that, nobody is told that a device went or came.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from broker_config.text import shown
from fleet_server.outbound.happenings import Data, Kind, News, names
from fleet_server.outbound.outages import Batch, Gathering, OutagePolicy

NEWS_LOOK_MAX: Final = 1_000
"""News of one look; what is beyond them is seen by the next."""
FAULTS_KEPT_MAX: Final = 8
"""Faults of one device that are told apart."""


class DeviceFacts(NamedTuple):
    """A device as it is now.

    ``overdue``: streams of which nothing comes; ``faults``: what its journal says is wrong.
    """

    device: str
    device_class: str
    org: str
    connected: bool
    overdue: tuple[str, ...]
    faults: tuple[str, ...]


class Told(NamedTuple):
    """A device as it was last told of; ``faults``: the names of those that were told, without their details."""

    connected: bool
    reporting: bool
    healthy: bool
    faults: tuple[str, ...] = ()


UNTOLD: Final = Told(connected=False, reporting=True, healthy=True)
"""A device that is new."""


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """``settle_ms``: after the server hears again, how long until it judges who is there. ``resume_ms``: how long a
    device that has just connected may take until it reports.
    """

    settle_ms: int = 90_000
    resume_ms: int = 60_000
    outages: OutagePolicy = field(default_factory=OutagePolicy)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found: to record together, then to :meth:`Watch.accept`."""

    news: tuple[News, ...] = ()
    told: Mapping[str, Told] = field(default_factory=dict)
    batches: tuple[tuple[bool, Batch], ...] = ()
    """Direction (True: they come) and who."""


class Watch:
    """See the module's docstring.

    *told*: of every device, as recorded. *baseline*: whether the fleet was ever seen whole; before, what is found is
    remembered and nobody is told.
    """

    def __init__(self, policy: WatchPolicy, told: Mapping[str, Told], *, baseline: bool) -> None:
        self.policy = policy
        self.baseline = baseline
        self._told = dict(told)
        self._sizes: Counter[str] = Counter()
        self._counting: Counter[str] = Counter()
        self._passed = False
        self._up_ms: dict[str, int] = {}
        self._moving: dict[str, DeviceFacts] = {}
        self._ways = {way: Gathering(policy.outages) for way in (True, False)}

    def look(self, facts: Iterable[DeviceFacts], now_ms: int, *, judging: bool) -> Look:
        """A slice of the fleet.

        Args:
            facts: of some devices.
            now_ms: the server's clock.
            judging: the server hears the fleet, and has for long enough.
        """
        news: list[News] = []
        told: dict[str, Told] = {}
        for fact in facts:
            self._counting[fact.org] += 1
            before = self._told.get(fact.device)
            if before is None and not self.baseline:
                if judging:
                    told[fact.device] = Told(fact.connected, not fact.overdue, not fact.faults, _kept(fact.faults))
                continue
            if len(news) >= NEWS_LOOK_MAX:
                continue
            after = self._device(fact, before or UNTOLD, now_ms, news, judging=judging)
            if after != before and (before is not None or after != UNTOLD):
                told[fact.device] = after
        return Look(tuple(news), told)

    def gathered(self, now_ms: int, *, judging: bool) -> Look:
        """Those who go and come, as far as they have waited long enough; nobody waits through a deaf time."""
        if not judging:
            self._moving.clear()
            for gathering in self._ways.values():
                gathering.waiting.clear()
        if not self._passed:
            return Look()
        news: list[News] = []
        told: dict[str, Told] = {}
        batches: list[tuple[bool, Batch]] = []
        for way, gathering in self._ways.items():
            for batch in gathering.ripe(self._sizes, now_ms):
                if len(news) >= NEWS_LOOK_MAX:
                    break
                news += self._batch(way, batch, now_ms)
                batches.append((way, batch))
                for device in batch.devices:
                    told[device] = self._told.get(device, UNTOLD)._replace(connected=way)
        return Look(tuple(news), told, tuple(batches))

    def accept(self, look: Look, now_ms: int) -> None:
        """*look* is recorded."""
        self._told.update(look.told)
        for way, batch in look.batches:
            self._ways[way].told(batch, now_ms)
            for device in batch.devices:
                self._moving.pop(device, None)

    def told(self) -> dict[str, Told]:
        """What was told of every device, as it is now."""
        return dict(self._told)

    def begin(self) -> None:
        """The fleet is looked at from its first device on."""
        self._counting = Counter()

    def passed(self, *, judging: bool) -> None:
        """Every device was looked at once, *judging* all the time: how large nodes are is known again."""
        self._sizes = self._counting
        self._passed = True
        self.baseline = self.baseline or judging

    def _device(self, fact: DeviceFacts, before: Told, now_ms: int, news: list[News], *, judging: bool) -> Told:
        reporting = before.reporting
        up_ms = self._up_ms.setdefault(fact.device, now_ms) if fact.connected else self._up_ms.pop(fact.device, 0)
        if judging:
            self._move(fact, before, now_ms)
            silent = fact.connected and bool(fact.overdue)
            if reporting and silent and now_ms - up_ms >= self.policy.resume_ms:
                reporting = False
                news.append(_of(fact, Kind.DEVICE_SILENT, now_ms, streams=names(list(fact.overdue))))
            elif not reporting and fact.connected and not fact.overdue:
                reporting = True
                news.append(_of(fact, Kind.DEVICE_REPORTING, now_ms))
        faults = _kept(fact.faults)
        if set(faults) - set(before.faults):
            news.append(
                _of(fact, Kind.DEVICE_UNHEALTHY, now_ms, why=tuple(map(shown, fact.faults[:FAULTS_KEPT_MAX])))
            )
        elif not faults and not before.healthy:
            news.append(_of(fact, Kind.DEVICE_HEALTHY, now_ms))
        return Told(before.connected, reporting, not faults, faults)

    def _move(self, fact: DeviceFacts, before: Told, now_ms: int) -> None:
        """Let it wait to be told that it went or came, or wait no more."""
        seen = self._moving.pop(fact.device, None)
        if seen is not None and (seen.org, seen.connected) != (fact.org, fact.connected):
            self._ways[seen.connected].drop(seen.org, fact.device)
        if fact.connected != before.connected:
            self._moving[fact.device] = fact
            self._ways[fact.connected].add(fact.org, fact.device, now_ms)

    def _batch(self, way: bool, batch: Batch, now_ms: int) -> list[News]:  # noqa: FBT001 - one of two ways
        if batch.together:
            kind = Kind.SITE_CONNECTED if way else Kind.SITE_DISCONNECTED
            count = len(batch.devices)
            size = max(count, self._sizes.get(batch.node, 0))
            data: Data = {"count": count, "devices": size, "names": names(list(batch.devices))}
            return [News(now_ms, kind, org=batch.node, data=data)]
        kind = Kind.DEVICE_CONNECTED if way else Kind.DEVICE_DISCONNECTED
        return [
            News(
                now_ms,
                kind,
                device,
                self._moving[device].device_class,
                batch.node,
                {"first": True} if way and device not in self._told else {},
            )
            for device in batch.devices
        ]


def _of(fact: DeviceFacts, kind: Kind, now_ms: int, **data: tuple[str, ...]) -> News:
    return News(now_ms, kind, fact.device, fact.device_class, fact.org, data)


def _kept(faults: Iterable[str]) -> tuple[str, ...]:
    """The faults' names: a detail that changes is no other fault."""
    return tuple(sorted({shown(fault.partition(":")[0]) for fault in faults})[:FAULTS_KEPT_MAX])
