"""The twin of a device as the server keeps it: what is desired, what was reported, how far apart they are. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from broker_config import twin
from broker_config.signing import COUNTER_AHEAD_MS_MAX
from broker_config.twin import CONFIRM_S, ApplyWindow, ChangeState, Desired, Reported, SettingValue
from fleet_server.change.layers import Source, same

HISTORY_MAX: Final = 1_000
"""Entries of each of the two histories that are kept of one device; the oldest go."""


class Drift(StrEnum):
    """How what a device reported stands to what is desired of it.

    ``pending``: it has not taken the newest up, or is at it. ``drifted``: it says that it has, and its values are
    others. ``deferred``, ``reverted``, ``failed``, ``refused``: as it said of the newest.
    """

    IN_SYNC = "in_sync"
    PENDING = "pending"
    DEFERRED = "deferred"
    REVERTED = "reverted"
    FAILED = "failed"
    REFUSED = "refused"
    DRIFTED = "drifted"
    NEVER_REPORTED = "never_reported"


class Wish(NamedTuple):
    """A whole configuration that is to be desired of a device. ``by``: who wants it; ``origin``: what brought it,
    such as ``layer fleet@7``; ``rollout``: which one releases it, empty without one. ``confirm_s``, ``window``: see
    :class:`broker_config.twin.Desired`.
    """

    device: str
    config: Mapping[str, SettingValue]
    provenance: Mapping[str, Source]
    by: str
    origin: str
    rollout: str = ""
    confirm_s: int = CONFIRM_S
    window: ApplyWindow | None = None


class Aim(NamedTuple):
    """What is desired of a device since ``at_ms``."""

    version: int
    at_ms: int
    config: Mapping[str, SettingValue]
    provenance: Mapping[str, Source]
    by: str
    origin: str
    rollout: str = ""
    confirm_s: int = CONFIRM_S
    window: ApplyWindow | None = None

    @property
    def desired(self) -> Desired:
        """As the device is told it."""
        return Desired(
            1, self.version, dict(self.config), confirm_s=self.confirm_s, window=self.window, rollout=self.rollout
        )


class Report(NamedTuple):
    """What a device said of itself; ``at_ms``: when the server heard it first."""

    at_ms: int
    reported: Reported


class Twin(NamedTuple):
    """``aim`` None: nothing was ever desired; ``report`` None: it never said anything. ``held_by``: the rollout that
    alone may release to it what its layers make, empty: nobody holds it.
    """

    device: str
    aim: Aim | None = None
    report: Report | None = None
    held_by: str = ""

    @property
    def drift(self) -> Drift:
        """See :class:`Drift`."""
        return drift(self.aim, self.report)

    @property
    def desired_version(self) -> int:
        """0: nothing was ever desired."""
        return 0 if self.aim is None else self.aim.version

    @property
    def reported_version(self) -> int:
        """0: it never said anything."""
        return 0 if self.report is None else self.report.reported.version


class Versions(NamedTuple):
    """The newest that is desired of a device, the newest that it reported, and the newest that it says it took up."""

    desired: int
    reported: int
    taken: int


_SAID: Final = {
    ChangeState.DEFERRED: Drift.DEFERRED,
    ChangeState.APPLYING: Drift.PENDING,
    ChangeState.CONFIRMING: Drift.PENDING,
    ChangeState.REVERTED: Drift.REVERTED,
    ChangeState.FAILED: Drift.FAILED,
    ChangeState.REFUSED: Drift.REFUSED,
}


def drift(aim: Aim | None, report: Report | None) -> Drift:
    """See :class:`Drift`. Settings that are not desired may be anything: their default is the device's business."""
    if report is None:
        return Drift.NEVER_REPORTED
    said = report.reported
    if aim is None:
        return Drift.IN_SYNC if said.in_force == 0 else Drift.DRIFTED
    if said.desired < aim.version:
        return Drift.PENDING
    if said.desired == aim.version and said.state in _SAID:
        return _SAID[said.state]
    return Drift.DRIFTED if deviating(aim.config, said.config) else Drift.IN_SYNC


def deviating(desired: Mapping[str, SettingValue], reported: Mapping[str, SettingValue]) -> tuple[str, ...]:
    """The settings that are desired and reported otherwise, or not at all."""
    return tuple(name for name, value in desired.items() if name not in reported or not same(reported[name], value))


def changes(
    before: Mapping[str, SettingValue], after: Mapping[str, SettingValue]
) -> dict[str, tuple[SettingValue | None, SettingValue | None]]:
    """Setting -> (before, after) for those that are different; None: it has its default."""
    names = sorted(before.keys() | after.keys())
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if not same(*pair)}


def next_version(last: int, taken: int, now_ms: int) -> int:
    """The version after *last*, and after what the device took up: a server that was restored from a backup begins
    above that. What is further ahead than a counter may be is not believed.
    """
    return twin.next_version(max(last, taken if taken <= now_ms + COUNTER_AHEAD_MS_MAX else 0), now_ms)


def is_behind(versions: Versions, now_ms: int) -> bool:
    """Whether the device took up something newer than the server knows: what is desired must be desired anew, or it
    would never be obeyed.
    """
    return 0 < versions.desired < versions.taken <= now_ms + COUNTER_AHEAD_MS_MAX
