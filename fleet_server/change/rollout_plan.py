"""What a rollout is told to do, once and for all: to whom, in what waves, how fast, and when it stops itself."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from broker_config.telemetry import Stream
from broker_config.twin import CONFIRM_S, CONFIRM_S_MAX, CONFIRM_S_MIN, SETTINGS_MAX, ApplyWindow, SettingValue
from fleet_server.change import selector
from fleet_server.registry.model import Name

DAY_S: Final = 86_400
WAVES_MAX: Final = 32
RULES_MAX: Final = 16
METRICS_MAX: Final = 8
PER_MINUTE_MAX: Final = 60_000
FACTOR_MAX: Final = 5.0
RETRIES_MAX: Final = 10
SAMPLE_MIN: Final = 5
"""Devices on either side below which no comparison says anything: five against five can be told apart by chance in
one of 252 ways."""

Percent = Annotated[float, Meta(ge=0, le=100)]
SoakSeconds = Annotated[int, Meta(ge=0, le=30 * DAY_S)]
Fact = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\.[a-z][a-z0-9_]{0,31}\Z")]


class Members(StrEnum):
    """Whether who is meant is settled at the start, or looked up again and again. Who is new to the layer of a frozen
    one gets the change with the layer.
    """

    FROZEN = "frozen"
    DYNAMIC = "dynamic"


class Then(StrEnum):
    """What follows on a wave that went well."""

    NEXT = "next"
    PAUSE = "pause"


class Wave(Struct, frozen=True, forbid_unknown_fields=True):
    """Devices that come one after the other, and what has to be so before the next wave's turn.

    ``size``: how many, or ``5%`` of all that are meant at the start; the last wave takes who is left, and who joins
    later. ``where``: a selector; devices of this wave are taken from among those. ``soak_s``: how long a device has
    to show itself well before it counts as succeeded. The wave is through when ``min_done`` have ended (0: all) and
    of these ``success_pct`` succeeded.
    """

    name: Name
    size: Annotated[str, Meta(pattern=r"^([1-9]\d{0,5}|(100|[1-9]?\d(\.\d{1,2})?)%)\Z")] = "100%"
    where: Annotated[str, Meta(max_length=selector.SELECTOR_CHARS_MAX)] = ""
    soak_s: SoakSeconds = 0
    success_pct: Percent = 95.0
    min_done: Annotated[int, Meta(ge=0, le=100_000)] = 0
    then: Then = Then.NEXT


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """How many devices a minute get their turn: ``base_per_min``, times ``factor`` for each ``every`` that succeeded,
    at most ``max_per_min``. Whoever joins late and whoever is tried again is bound as well.
    """

    base_per_min: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)] = 50
    factor: Annotated[float, Meta(ge=1, le=FACTOR_MAX)] = 1.0
    every: Annotated[int, Meta(ge=1, le=100_000)] = 100
    max_per_min: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)] = 1_000


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """What must stay untouched. Touched is who has been offered the change and has not proved it yet.

    ``station_pct``: at most so many of the members at a station at once, but one always. ``pairs``: of each group
    whose name is so, at most one at once. ``unit_working_min``: in each duty unit at least so many working devices of
    a class that are not touched, whether they are members or not.
    """

    station_pct: Percent = 100.0
    pairs: Annotated[str, Meta(max_length=64)] = "pair-*"
    unit_working_min: Annotated[int, Meta(ge=0, le=1_000)] = 0


class Ill(StrEnum):
    """How a device can fare badly."""

    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    SILENT = "silent"
    HEALTH = "health"
    ALL = "all"


class Stop(StrEnum):
    """What a rollout does when a rule is broken; the later the stronger."""

    PAUSE = "pause"
    CANCEL = "cancel"
    ROLL_BACK = "rollback"


class AbortRule(Struct, frozen=True, forbid_unknown_fields=True):
    """More than ``pct`` of those that had their turn, counted as at least ``min_executed``, fared so: then stop."""

    kind: Ill
    pct: Percent
    min_executed: Annotated[int, Meta(ge=1, le=100_000)] = 1
    action: Stop = Stop.PAUSE


class Timers(Struct, frozen=True, forbid_unknown_fields=True):
    """Each in seconds of the rollout's own clock, which stands while nobody looks.

    ``queued_s``: from when a device's wave began until its turn. ``step_s``: with it there and nothing moving; who
    waits for a lease or a window is not held to it. ``total_s``: from its turn until it shows the change, and again
    beyond its soak. ``silent_s``: not there, without having said so. ``ill_s``: not healthy, after having been.
    ``grace_s``: after a cancellation.
    """

    queued_s: Annotated[int, Meta(ge=60, le=365 * DAY_S)] = 30 * DAY_S
    step_s: Annotated[int, Meta(ge=10, le=7 * DAY_S)] = 600
    total_s: Annotated[int, Meta(ge=10, le=60 * DAY_S)] = 7 * DAY_S
    silent_s: Annotated[int, Meta(ge=10, le=7 * DAY_S)] = 900
    ill_s: Annotated[int, Meta(ge=1, le=DAY_S)] = 60
    grace_s: Annotated[int, Meta(ge=1, le=7 * DAY_S)] = 600


class Retries(Struct, frozen=True, forbid_unknown_fields=True):
    """How often a device is tried again; one that rejected it never is."""

    failed: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] = 0
    timed_out: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] = 0


class Worse(StrEnum):
    """Which way a metric is worse."""

    LOWER = "lower"
    HIGHER = "higher"


class Metric(Struct, frozen=True, forbid_unknown_fields=True):
    """A reading by which a wave is compared with devices whose turn it was not yet; ``at_least``: by how much, in its
    own measuring unit, the wave has to be worse to matter.
    """

    fact: Fact
    worse: Worse
    at_least: Annotated[float, Meta(ge=0)] = 0.0


class Control(Struct, frozen=True, forbid_unknown_fields=True):
    """Compares each wave that is through with matched controls; see ``canary``. ``sample_min``: on either side."""

    metrics: Annotated[tuple[Metric, ...], Meta(min_length=1, max_length=METRICS_MAX)]
    sample_min: Annotated[int, Meta(ge=SAMPLE_MIN, le=1_000)] = SAMPLE_MIN
    alpha: Annotated[float, Meta(ge=0.001, le=0.2)] = 0.01


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. ``layer``: which layer of the configuration is changed, such as ``fleet`` or ``class/body_camera``;
    ``patch``: setting -> value, None takes it out of that layer. ``where``: a selector; none: all that the layer
    concerns. ``into_layer``: whether the change goes into its layer at the end; if not, those who were meant keep it,
    and it may be rolled back later. ``window``, ``confirm_s``: for the device, which keeps them.
    ``approved_by_second``: also where the device classes do not ask for it.
    """

    name: Name
    layer: Annotated[str, Meta(min_length=1, max_length=600)]
    patch: Annotated[dict[Stream, SettingValue | None], Meta(min_length=1, max_length=SETTINGS_MAX)]
    where: Annotated[str, Meta(max_length=selector.SELECTOR_CHARS_MAX)] = ""
    into_layer: bool = True
    members: Members = Members.DYNAMIC
    waves: Annotated[tuple[Wave, ...], Meta(min_length=1, max_length=WAVES_MAX)] = (Wave("all"),)
    rate: Rate = Rate()
    spread: Spread = Spread()
    abort: Annotated[tuple[AbortRule, ...], Meta(max_length=RULES_MAX)] = (
        AbortRule(Ill.ALL, pct=5.0, min_executed=20, action=Stop.PAUSE),
    )
    timers: Timers = Timers()
    retries: Retries = Retries()
    window: ApplyWindow | None = None
    confirm_s: Annotated[int, Meta(ge=CONFIRM_S_MIN, le=CONFIRM_S_MAX)] = CONFIRM_S
    control: Control | None = None
    approved_by_second: bool = False


SECOND_FOR: Final = frozenset({"traffic_light", "interrogation_room"})
"""Device classes whose wrong setting can endanger people, or an interview that cannot be had again: a second person
has to agree.
"""


def faults(plan: Plan) -> list[str]:
    """Everything wrong with it that its types do not say; one line each."""
    out: list[str] = []
    for name, text in [("where", plan.where), *((f"waves.{each.name}.where", each.where) for each in plan.waves)]:
        try:
            if text:
                selector.parse(text)
        except selector.BadSelectorError as error:
            out.append(f"{name}: {error}")
    if plan.rate.max_per_min < plan.rate.base_per_min:
        out.append(f"rate.max_per_min: expected at least {plan.rate.base_per_min}, got {plan.rate.max_per_min}")
    if len({each.name for each in plan.waves}) < len(plan.waves):
        out.append("waves: expected names that differ")
    if plan.control is not None:
        out += [
            f"control: expected the field of a stream, got {each.fact!r}"
            for each in plan.control.metrics
            if selector.facts().get(each.fact) is not selector.Sort.NUMBER or each.fact.startswith(selector.CONFIG)
        ]
    if plan.window is not None and plan.window.start == plan.window.end:
        out.append("window: expected an end that is not its start")
    return out
