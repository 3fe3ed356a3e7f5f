"""The arithmetic of a rollout: how many a minute, who is spared, what breaks a rule, when a wave is through. Pure."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from fleet_server.change.rollout_plan import AbortRule, Ill, Plan, Rate, Spread, Stop
from fleet_server.change.rollout_state import ENDED, OPEN, OUT, Known, Member, Rollout, State

MINUTE_S: Final = 60
_STRENGTH: Final = tuple(Stop)


def order_of(rollout: str, device: str) -> bytes:
    """By which devices come: by no age, name or place, and by another for each rollout."""
    return hashlib.sha256(f"{rollout}\0{device}".encode()).digest()


def in_waves(plan: Plan, rollout: str, devices: Mapping[str, Known]) -> dict[str, int]:
    """Device -> number of its wave, as it is at the start."""
    left = sorted(devices, key=lambda device: order_of(rollout, device))
    total, out = len(left), {}
    for number, wave in enumerate(plan.waves[:-1]):
        fitting = [each for each in left if not wave.where or number in devices[each].waves]
        share = wave.size.endswith("%")
        chosen = set(fitting[: math.ceil(total * float(wave.size[:-1]) / 100) if share else int(wave.size)])
        out.update(dict.fromkeys(chosen, number))
        left = [each for each in left if each not in chosen]
    return out | dict.fromkeys(left, len(plan.waves) - 1)


def per_minute(rate: Rate, succeeded: int) -> int:
    """How many a minute by now."""
    steps = succeeded // rate.every
    if rate.factor == 1.0:
        return min(rate.base_per_min, rate.max_per_min)
    enough = math.log(rate.max_per_min / rate.base_per_min, rate.factor)
    if steps >= enough:
        return rate.max_per_min
    return min(rate.max_per_min, int(rate.base_per_min * rate.factor**steps))


def allowance(limit: int, released: Mapping[int, int], clock_ms: int, step_ms: int) -> int:
    """How many turns may be given now, so that no minute sees more than *limit*, and none of it all at once."""
    second = clock_ms // 1000
    recent = sum(count for at, count in released.items() if at >= second - MINUTE_S)
    pace = math.ceil(limit * max(step_ms, 1000) / (MINUTE_S * 1000))
    return max(0, min(limit - recent, pace))


def with_released(released: Mapping[int, int], clock_ms: int, count: int) -> dict[int, int]:
    """*released* after so many more, without what no longer matters."""
    second = clock_ms // 1000
    out = {at: each for at, each in released.items() if at >= second - MINUTE_S}
    if count:
        out[second] = out.get(second, 0) + count
    return out


def is_touched(member: Member) -> bool:
    """Whether it has been offered the change and has not proved it: one that must not be touched besides."""
    if member.state is State.ROLLING_BACK or member.state in OPEN:
        return True
    return member.loose and not member.back and member.state not in OUT


class Spared:
    """Keeps count, while turns are given, of who is touched where."""

    def __init__(
        self,
        spread: Spread,
        members: Mapping[str, Member],
        devices: Mapping[str, Known],
        others_working: Mapping[tuple[str, str], int],
    ) -> None:
        self._spread = spread
        self._at_station: Counter[str] = Counter()
        self._touched_at: Counter[str] = Counter()
        self._touched_of: Counter[str] = Counter()
        self._working = Counter(others_working)
        for device, member in members.items():
            known = devices.get(device)
            if known is None:
                continue
            self._at_station[known.station] += 1
            if is_touched(member):
                self._count(known)
            elif known.present and known.healthy:
                self._working[known.unit, known.device_class] += 1

    def _count(self, known: Known) -> None:
        self._touched_at[known.station] += 1
        self._touched_of.update(self._pairs(known))

    def _pairs(self, known: Known) -> list[str]:
        return [each for each in known.pairs if fnmatchcase(each, self._spread.pairs)]

    def why_not(self, member: Member, known: Known) -> str:
        """What keeps it from its turn; empty if nothing does."""
        if is_touched(member):
            return ""
        if known.station and self._spread.station_pct < 100:
            allowed = max(1, int(self._at_station[known.station] * self._spread.station_pct / 100))
            if self._touched_at[known.station] >= allowed:
                return f"spread: {allowed} of {known.station} at once"
        for pair in self._pairs(known):
            if self._touched_of[pair]:
                return f"spread: the other one of {pair}"
        least = self._spread.unit_working_min
        if known.unit and least and known.present and known.healthy:
            working = self._working[known.unit, known.device_class]
            if working <= least:
                return f"spread: {known.unit} has {working} working of {known.device_class}, needs {least}"
        return ""

    def touch(self, member: Member, known: Known) -> None:
        """It has its turn."""
        if is_touched(member):
            return
        self._count(known)
        if known.present and known.healthy:
            self._working[known.unit, known.device_class] -= 1


def bad_ends(members: Iterable[Member]) -> Counter[Ill]:
    """How many ended badly, in which way, of those that had their turn."""
    counts = Counter(member.ill for member in members if member.ill is not None and member.executed)
    out = Counter({kind: counts[kind] for kind in Ill if kind in counts})
    out[Ill.ALL] = sum(out.values())
    return out


def broken(plan: Plan, rollout: Rollout) -> AbortRule | None:
    """The rule with the strongest consequence that is broken, if any; what somebody accepted breaks none again."""
    members = [member for member in rollout.members.values() if member.state not in OUT]
    executed = sum(member.executed for member in members)
    bad = bad_ends(members)
    found = [
        rule
        for rule in plan.abort
        if bad[rule.kind] > rollout.head.accepted.get(rule.kind, 0)
        and 100 * bad[rule.kind] > rule.pct * max(executed, rule.min_executed)
    ]
    return max(found, key=lambda rule: _STRENGTH.index(rule.action), default=None)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a wave stands; who is out of the rollout is not counted, nor is, but for ``missed``, who never had a turn
    in time.
    """

    size: int
    done: int
    succeeded: int
    moving: int
    missed: int

    @property
    def success_pct(self) -> float:
        """Of those that are done. If none is: 100 where there was nobody, 0 where nobody had a turn in time."""
        if not self.done:
            return 0.0 if self.missed else 100.0
        return 100 * self.succeeded / self.done


def standing(members: Sequence[Member], wave: int) -> Standing:
    """How the wave of this number stands. Who waits for a lease or a window does not move."""
    within = [each for each in members if each.wave == wave and each.state not in OUT]
    counted = [each for each in within if each.executed or each.state is State.QUEUED]
    return Standing(
        size=len(counted),
        done=sum(each.state in ENDED for each in counted),
        succeeded=sum(each.state is State.SUCCEEDED for each in counted),
        moving=sum(each.state in OPEN and each.state is not State.WAITING for each in counted),
        missed=len(within) - len(counted),
    )


def is_through(plan: Plan, members: Sequence[Member], wave: int) -> bool:
    """Whether all is known of a wave that has to be: of the last one, and all before it, everything."""
    if wave == len(plan.waves) - 1:
        return all(each.state in ENDED for each in members)
    at = standing(members, wave)
    need = plan.waves[wave].min_done
    return not at.moving and at.done >= (min(need, at.size) if need else at.size)


def takes_s(plan: Plan, sizes: Sequence[int]) -> int:
    """How long it takes at least, if all goes well and everybody is there; *sizes*: devices of each wave."""
    seconds = succeeded = 0
    for wave, size in zip(plan.waves, sizes, strict=True):
        left = size
        while left > 0:
            limit = per_minute(plan.rate, succeeded)
            if left <= limit:
                seconds += math.ceil(MINUTE_S * left / limit)
            else:
                seconds += MINUTE_S
            given = min(left, limit)
            left, succeeded = left - given, succeeded + given
        seconds += wave.soak_s
    return seconds
