"""A rollout as it stands, and what is known of the world when it is looked at. Values only.

``Rollout`` is all that a restart needs; the ``World`` is read anew at each look.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from msgspec import Struct

from broker_config.twin import ChangeState
from fleet_server.change.rollout_plan import Ill

NOT: Final = -1
"""No such moment yet."""
REASON_CHARS_MAX: Final = 200


class Phase(StrEnum):
    """What a rollout does. The last three are ends."""

    WAITING_APPROVAL = "waiting_approval"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELING = "canceling"
    ROLLING_BACK = "rolling_back"
    COMMITTING = "committing"
    COMPLETED = "completed"
    CANCELED = "canceled"
    ROLLED_BACK = "rolled_back"


ENDS: Final = frozenset({Phase.COMPLETED, Phase.CANCELED, Phase.ROLLED_BACK})


class State(StrEnum):
    """How far a device has come.

    ``queued``: not its turn yet, or to be tried again. ``offered``: desired of it, and not taken up. ``waiting``: it
    says that it waits for a lease or its window. ``applying``: under way. ``verifying``: it shows the change; its
    soak runs. ``rolling_back``: what it had is desired of it again. The others are ends; of ``timed_out`` and
    ``silent`` a later word of the device still counts.
    """

    QUEUED = "queued"
    OFFERED = "offered"
    WAITING = "waiting"
    APPLYING = "applying"
    VERIFYING = "verifying"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    SILENT = "silent"
    CANCELED = "canceled"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


OPEN: Final = frozenset({State.OFFERED, State.WAITING, State.APPLYING, State.VERIFYING})
"""It has had its turn, and it is not known how that ends."""
ENDED: Final = frozenset(State) - OPEN - {State.QUEUED, State.ROLLING_BACK}
OUT: Final = frozenset({State.CANCELED, State.SUPERSEDED})
"""No longer this rollout's affair: on no side of a percentage."""


class Member(Struct, frozen=True, omit_defaults=True):
    """A device in a rollout. Moments are ms of the rollout's own clock.

    ``since_ms``: when its state began, later by as long as it was away in it. ``released_ms``: its last turn, kept
    while it is tried again. ``base``: the version desired before that turn; the turn's own has to be above it if
    ``again``. ``version``: what is desired of it by us, 0 if not known. ``shown_ms``: when it first showed that.
    ``well``: it was healthy at its turn. ``loose``: an order is out, and nobody knows what becomes of it. ``back``:
    what it had is to be desired again. ``late``: its word came after its time was up. ``registered``: operators had
    said what it is; once nobody says so any more, it is no member.
    """

    state: State
    wave: int
    since_ms: int
    released_ms: int = NOT
    base: int = 0
    again: bool = False
    version: int = 0
    shown_ms: int = NOT
    away_ms: int = NOT
    ill_ms: int = NOT
    well: bool = False
    loose: bool = False
    back: bool = False
    late: bool = False
    registered: bool = False
    tries_failed: int = 0
    tries_timed_out: int = 0
    ill: Ill | None = None
    reason: str = ""

    @property
    def executed(self) -> bool:
        """Whether it ever had its turn."""
        return self.released_ms != NOT


class PauseWhy(StrEnum):
    """Who or what paused it; what resuming means depends on that."""

    OPERATOR = "operator"
    RULE = "rule"
    WAVE = "wave"
    SUCCESS = "success"
    CONTROL = "control"
    SUPERSEDED = "superseded"


class Pause(Struct, frozen=True):
    """Why it is paused."""

    why: PauseWhy
    text: str


class Head(Struct, frozen=True, omit_defaults=True):
    """All of a rollout but its members. Moments are ms of its own clock.

    ``released``: second of the clock -> turns given in it, for the last minute. ``accepted``: ``kind`` -> how many
    bad ends somebody has seen and gone on. ``judged``: waves that need no more comparison. ``passed``: waves that
    somebody took as they are. ``waits``: what keeps devices from going on -> how many.
    """

    phase: Phase
    created_by: str
    created_ms: int
    started_with: int = 0
    clock_ms: int = 0
    wave: int = 0
    wave_ms: int = 0
    phase_ms: int = 0
    released: dict[int, int] = {}
    accepted: dict[Ill, int] = {}
    judged: int = 0
    passed: int = 0
    pause: Pause | None = None
    why: str = ""
    approved_by: str = ""
    ended_ms: int | None = None
    waits: dict[str, int] = {}


class Rollout(Struct, frozen=True):
    """``id``: 16 hex digits."""

    id: str
    head: Head
    members: dict[str, Member]


class Meant(StrEnum):
    """What is desired of a device, by the twin: what the rollout brings, what the layers alone say, both (they are
    the same for it), or something else, of somebody newer.
    """

    NEW = "new"
    OLD = "old"
    BOTH = "both"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a device reports; ``as_desired``: the settings it reports are those desired."""

    desired: int
    in_force: int
    state: ChangeState
    as_desired: bool
    reason: str = ""
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A device at this look. ``station``, ``unit``: empty if none. ``pairs``: the groups that it is in. ``present``:
    connected. ``excused``: it said that it goes away. ``version``: of what is desired. ``taken``: a newer rollout has
    it. ``refused``: why the server cannot desire the change of it. ``waves``: numbers of the waves whose own selector
    it fits. ``registered``: operators say what it is.
    """

    device_class: str
    station: str
    unit: str
    pairs: tuple[str, ...]
    present: bool
    excused: bool
    healthy: bool
    meant: Meant
    version: int
    shown: Shown | None
    taken: bool = False
    refused: str = ""
    waves: frozenset[int] = frozenset()
    registered: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """``devices``: of the members those that exist, and all of ``wanted``. ``wanted``: who is meant now; None: not
    looked up this time. ``others_working``: (unit, class) -> working devices that are no members. ``measures``:
    fact -> device -> value, as :func:`canary.asked` wants them. ``committed``: the layer has the change.
    """

    devices: Mapping[str, Known]
    wanted: frozenset[str] | None = None
    others_working: Mapping[tuple[str, str], int] = field(default_factory=dict)
    measures: Mapping[str, Mapping[str, float]] | None = None
    committed: bool = False


class ActKind(StrEnum):
    """What is to be carried out: desire the change of a device; desire of it what the layers alone say; put the
    change into its layer.
    """

    RELEASE = "release"
    WITHDRAW = "withdraw"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Act:
    """Safe to repeat. ``again``: a new version though what is desired stays the same."""

    kind: ActKind
    device: str = ""
    again: bool = False


class NotNowError(Exception):
    """It cannot be done as the rollout stands; nothing was changed."""
