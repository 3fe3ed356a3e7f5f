"""How devices are simulated, what befalls them, and when: decided by a seed before anything starts."""

import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

STRUCK_SHARE: Final = 0.05
"""Of the devices, each fault but the storm strikes so many, at least one."""
BEGIN_SHARE: Final = 0.1
END_SHARE: Final = 0.7
"""Between these shares of the run, so that there is time to recover before the drain."""
STORM_SHARE: Final = 1 / 3
EVERYBODY: Final = -1


class Mode(StrEnum):
    """``sessions``: a TLS connection for each device; ``identities``: all through one bench-only gateway."""

    SESSIONS = "sessions"
    IDENTITIES = "identities"


class Fault(StrEnum):
    """Named as the command line names them."""

    POWER_CUT = "power_cut"
    CLOCK_1970 = "clock_1970"
    NAT_DROP = "nat_drop"
    DISK_FULL = "disk_full"
    DUPLICATE_CLIENT_ID = "duplicate_client_id"
    RECONNECT_STORM = "reconnect_storm"


MEANING: Final[Mapping[Fault, str]] = {
    Fault.POWER_CUT: "the socket breaks, what is not sealed is gone, and the device boots anew after a pause;"
    " its spool stays",
    Fault.CLOCK_1970: "the same, and the clock begins in 1970: batches say so until the server has told the time",
    Fault.NAT_DROP: "nothing that the device says arrives any more, nor what it is told, until it gives the"
    " connection up after 1.5 keep-alives (pings go on: the broker does not notice)",
    Fault.DISK_FULL: "the spool takes nothing for a while; a few batches wait in memory, the others become"
    " tombstones, which are counted as gone, not as lost",
    Fault.DUPLICATE_CLIENT_ID: "somebody with a copy of the certificate connects and stays until the device takes"
    " its session back",
    Fault.RECONNECT_STORM: "the broker is killed, and started again 2 s later; with --site, where it is not ours,"
    " every session breaks at once",
}


class Strike(NamedTuple):
    """*fault* befalls the device of that place, or EVERYBODY, *at_s* after the fleet is connected."""

    at_s: float
    fault: Fault
    device: int


def schedule(faults: Sequence[Fault], *, seed: int, devices: int, seconds: float) -> tuple[Strike, ...]:
    """When what befalls whom, in order; the same seed gives the same."""
    rng = random.Random(seed)  # noqa: S311 - a load, and repeatable
    strikes: list[Strike] = []
    for fault in sorted(set(faults)):
        if fault is Fault.RECONNECT_STORM:
            strikes.append(Strike(seconds * STORM_SHARE, fault, EVERYBODY))
            continue
        struck = rng.sample(range(devices), max(1, round(devices * STRUCK_SHARE)))
        strikes += [Strike(seconds * rng.uniform(BEGIN_SHARE, END_SHARE), fault, device) for device in struck]
    return tuple(sorted(strikes))


def parse(text: str) -> tuple[Fault, ...]:
    """``power_cut,nat_drop``; empty is none.

    Raises:
        ValueError: names what is no fault, and those there are.
    """
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    wrong = [name for name in names if name not in set(Fault)]
    if wrong:
        raise ValueError(f"expected some of {', '.join(Fault)}; got {', '.join(wrong)}")
    return tuple(dict.fromkeys(Fault(name) for name in names))
