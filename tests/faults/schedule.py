"""What goes wrong in a run, and when: all of it drawn from the seed before anything starts. Pure."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

KILLS_A_ROUND: Final = 50
"""Each fault that is no kill comes once, and once more for so many kills."""


class Target(StrEnum):
    """What can be killed."""

    AGENT = "agent"
    SERVER = "server"
    BROKER = "broker"


class Kind(StrEnum):
    """A fault."""

    KILL = "kill"
    """One or several of them at once, ``kill -9``."""
    KILL_AND_WIPE = "kill_and_wipe"
    """The same with the broker among them, and its data directory gone."""
    AGENT_LINK_RESET = "agent_link_reset"
    AGENT_LINK_HALF_OPEN = "agent_link_half_open"
    AGENT_LINK_SLOW = "agent_link_slow"
    SERVER_LINK_RESET = "server_link_reset"
    SERVER_LINK_HALF_OPEN = "server_link_half_open"
    AGENT_STOPPED = "agent_stopped"
    AGENT_FROZEN = "agent_frozen"
    """The seeded silence without a reason."""
    SERVER_FROZEN = "server_frozen"
    SPOOL_RESTORED = "spool_restored"
    SPOOL_RESTORED_OFFLINE = "spool_restored_offline"
    """And out of reach until it has given more numbers than the server knows of. What it then says under numbers that
    are taken is kept raw, the journal's word on its start too, so the silence is rightly unexplained: a test of its
    own, not a part of every run.
    """
    STORE_RESTORED = "store_restored"
    CLOCK_1970 = "clock_1970"
    CLOCK_AHEAD = "clock_ahead"
    CLOCK_JUMPS = "clock_jumps"
    AGENT_DISK_FULL = "agent_disk_full"
    SERVER_DISK_FULL = "server_disk_full"
    SERVER_DISK_READ_ONLY = "server_disk_read_only"


USUAL: Final = tuple(kind for kind in Kind if kind is not Kind.SPOOL_RESTORED_OFFLINE)
KILLS: Final = frozenset({Kind.KILL, Kind.KILL_AND_WIPE})
DISKS: Final = frozenset({Kind.AGENT_DISK_FULL, Kind.SERVER_DISK_FULL, Kind.SERVER_DISK_READ_ONLY})
CLOCKS: Final = frozenset({Kind.CLOCK_1970, Kind.CLOCK_AHEAD, Kind.CLOCK_JUMPS})
WIPES_SHARE: Final = 0.2
ALONE_SHARE: Final = 0.75
UNSETTLED_SHARE: Final = 0.3
"""So many kills come before the one before has healed."""
PAUSE_S_MAX: Final = 1.0
DOWN_S_MAX: Final = 0.4


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. ``pause_s`` before it, ``down_s`` until it is healed; ``settle``: wait until it is over."""

    kind: Kind
    targets: tuple[Target, ...] = ()
    pause_s: float = 0.0
    down_s: float = 0.0
    settle: bool = True

    @property
    def name(self) -> str:
        """For the report: kills are told apart by what was killed."""
        return f"{self.kind}:{'+'.join(self.targets)}" if self.targets else str(self.kind)


def plan(seed: int, kills: int, kinds: Collection[Kind]) -> Sequence[Step]:
    """The steps of a run: just *kills* processes killed, the other *kinds* strewn among them.

    The same arguments give the same steps.
    """
    rng = random.Random(seed)
    steps: list[Step] = []
    wanted = [kind for kind in (Kind.KILL, Kind.KILL_AND_WIPE) if kind in kinds]
    left = kills if wanted else 0
    while left > 0:
        step = _kill(rng, left, wanted)
        steps.append(step)
        left -= len(step.targets)
    rounds = 1 + kills // (2 * KILLS_A_ROUND)
    for kind in sorted(set(kinds) - KILLS):
        for _ in range(rounds):
            step = Step(kind, (), _pause(rng), rng.uniform(0.5, 1.0), settle=True)
            steps.insert(rng.randint(0, len(steps)), step)
    return steps


def _kill(rng: random.Random, left: int, wanted: Sequence[Kind]) -> Step:
    if Kind.KILL not in wanted or (Kind.KILL_AND_WIPE in wanted and rng.random() < WIPES_SHARE):
        kind, first = Kind.KILL_AND_WIPE, Target.BROKER
    else:
        kind, first = Kind.KILL, rng.choice(tuple(Target))
    others = [target for target in Target if target is not first]
    rng.shuffle(others)
    count = 1 if rng.random() < ALONE_SHARE else rng.randint(2, len(Target))
    targets = tuple(sorted((first, *others[: min(count, left) - 1])))
    settle = rng.random() >= UNSETTLED_SHARE
    return Step(kind, targets, _pause(rng), rng.uniform(0, DOWN_S_MAX), settle=settle)


def _pause(rng: random.Random) -> float:
    return rng.uniform(0, PAUSE_S_MAX)
