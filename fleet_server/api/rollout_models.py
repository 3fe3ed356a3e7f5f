"""What the API takes and tells of rollouts."""

from typing import Annotated, Any, TypeAlias

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from broker_config import twin
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.api.twin_models import Value
from fleet_server.change import rollout_plan as plans
from fleet_server.change.planning import Preview
from fleet_server.change.rollout_plan import Plan
from fleet_server.change.rollout_state import Member, PauseWhy, Phase, State
from fleet_server.change.rollout_store import Listed
from fleet_server.change.selector import SELECTOR_CHARS_MAX
from fleet_server.registry.model import NAME_CHARS_MAX, TEXT_PATTERN

REASON_CHARS_MAX = 300

SettingName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
SettingIn: TypeAlias = Value | None
Selector: TypeAlias = Annotated[str, Field(max_length=SELECTOR_CHARS_MAX)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX, pattern=TEXT_PATTERN)]
Percent: TypeAlias = Annotated[float, Field(ge=0, le=100)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WaveIn(_In):
    """Devices that come one after the other, and what has to be so before the next wave's turn."""

    name: Name = Field(examples=["canary"])
    size: Annotated[
        str,
        Field(
            pattern=r"^([1-9][0-9]{0,5}|(100|[1-9]?[0-9](\.[0-9]{1,2})?)%)$",
            description="How many, or a share of all; the last wave takes who is left.",
            examples=["5%"],
        ),
    ] = "100%"
    where: Annotated[Selector, Field(description="Only devices that this selector means are taken into it.")] = ""
    soak_s: Annotated[
        int, Field(ge=0, le=30 * plans.DAY_S, description="How long a device has to show the change.")
    ] = 0
    success_pct: Percent = 95.0
    min_done: Annotated[
        int, Field(ge=0, le=100_000, description="How many have to have ended; 0: all of the wave.")
    ] = 0
    then: plans.Then = plans.Then.NEXT


class RateIn(_In):
    """How many devices a minute have their turn."""

    base_per_min: Annotated[int, Field(ge=1, le=plans.PER_MINUTE_MAX)] = 50
    factor: Annotated[float, Field(ge=1, le=plans.FACTOR_MAX)] = 1.0
    every: Annotated[int, Field(ge=1, le=100_000, description="So many successes raise the rate by the factor.")] = (
        100
    )
    max_per_min: Annotated[int, Field(ge=1, le=plans.PER_MINUTE_MAX)] = 1_000


class SpreadIn(_In):
    """What must stay untouched meanwhile."""

    station_pct: Annotated[Percent, Field(description="Of the members at a station, at once; one always.")] = 100.0
    pairs: Annotated[str, Field(max_length=64, description="Of each group of such a name one at once.")] = "pair-*"
    unit_working_min: Annotated[
        int, Field(ge=0, le=1_000, description="Working devices of a class that a duty unit keeps.")
    ] = 0


class AbortRuleIn(_In):
    """More than `pct` of those that had their turn, counted as at least `min_executed`: then `action`."""

    kind: plans.Ill
    pct: Percent
    min_executed: Annotated[int, Field(ge=1, le=100_000)] = 1
    action: plans.Stop = plans.Stop.PAUSE


class TimersIn(_In):
    """In seconds during which the server looks."""

    queued_s: Annotated[int, Field(ge=60, le=365 * plans.DAY_S, description="Until a device's turn.")] = (
        30 * plans.DAY_S
    )
    step_s: Annotated[int, Field(ge=10, le=7 * plans.DAY_S, description="There, and nothing moves.")] = 600
    total_s: Annotated[int, Field(ge=10, le=60 * plans.DAY_S, description="From its turn to the change.")] = (
        7 * plans.DAY_S
    )
    silent_s: Annotated[int, Field(ge=10, le=7 * plans.DAY_S, description="Gone without a word.")] = 900
    ill_s: Annotated[int, Field(ge=1, le=plans.DAY_S, description="Not healthy, after having been.")] = 60
    grace_s: Annotated[int, Field(ge=1, le=7 * plans.DAY_S, description="After a cancellation.")] = 600


class RetriesIn(_In):
    """How often a device is tried again; never one that rejected it."""

    failed: Annotated[int, Field(ge=0, le=plans.RETRIES_MAX)] = 0
    timed_out: Annotated[int, Field(ge=0, le=plans.RETRIES_MAX)] = 0


class WindowIn(_In):
    """When a device may apply it, by its own clock and time zone; minutes after midnight."""

    start: int = Field(ge=0, lt=twin.MINUTES_A_DAY, examples=[120])
    end: int = Field(ge=0, lt=twin.MINUTES_A_DAY, examples=[300])
    days: Annotated[
        list[Annotated[int, Field(ge=1, le=7)]], Field(max_length=7, description="1 is Monday; none: every day.")
    ] = []


class MetricIn(_In):
    """A reading by which a wave is compared with devices whose turn it was not yet."""

    fact: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}\.[a-z][a-z0-9_]{0,31}$", examples=["power.battery_pct"])
    worse: plans.Worse
    at_least: Annotated[float, Field(ge=0, le=1e15, description="By how much it has to be worse to matter.")] = 0.0


class ControlIn(_In):
    """A wave that is worse than its controls pauses the rollout."""

    metrics: list[MetricIn] = Field(min_length=1, max_length=plans.METRICS_MAX)
    sample_min: Annotated[int, Field(ge=plans.SAMPLE_MIN, le=1_000)] = plans.SAMPLE_MIN
    alpha: Annotated[float, Field(ge=0.001, le=0.2)] = 0.01


class RolloutPlan(_In):
    """What a rollout is told to do."""

    name: Name = Field(examples=["720p at night"])
    layer: str = Field(
        min_length=1,
        max_length=600,
        description="fleet, class/NAME, node/NAME, group/NAME or device/ID.",
        examples=["class/body_camera"],
    )
    patch: dict[SettingName, SettingIn] = Field(
        min_length=1,
        max_length=twin.SETTINGS_MAX,
        description="Settings of the layer; null takes one out of it.",
        examples=[{"video": "720p"}],
    )
    where: Annotated[Selector, Field(description="Who is meant; nothing: all that the layer concerns.")] = ""
    into_layer: Annotated[
        bool,
        Field(description="Whether the change goes into its layer at the end; if not, only those meant keep it."),
    ] = True
    members: plans.Members = plans.Members.DYNAMIC
    waves: Annotated[list[WaveIn], Field(min_length=1, max_length=plans.WAVES_MAX)] = [WaveIn(name="all")]
    rate: RateIn = RateIn()
    spread: SpreadIn = SpreadIn()
    abort: Annotated[list[AbortRuleIn], Field(max_length=plans.RULES_MAX)] = [
        AbortRuleIn(kind=plans.Ill.ALL, pct=5.0, min_executed=20)
    ]
    timers: TimersIn = TimersIn()
    retries: RetriesIn = RetriesIn()
    window: WindowIn | None = None
    confirm_s: Annotated[int, Field(ge=twin.CONFIRM_S_MIN, le=twin.CONFIRM_S_MAX)] = twin.CONFIRM_S
    control: ControlIn | None = None
    approved_by_second: Annotated[bool, Field(description="Also where no device class asks for a second person.")] = (
        False
    )

    def plan(self) -> Plan:
        """As the core has it. Raises msgspec.ValidationError."""
        return msgspec.convert(self.model_dump(mode="json"), Plan)

    @classmethod
    def of(cls, plan: Plan) -> "RolloutPlan":
        """As it is told."""
        told: dict[str, Any] = msgspec.to_builtins(plan)
        return cls.model_validate(told)


class ReasonIn(_In):
    """Why."""

    reason: Annotated[str, Field(max_length=REASON_CHARS_MAX, pattern=TEXT_PATTERN, examples=["cameras restart"])] = (
        ""
    )


class RolloutPause(BaseModel):
    """Who or what paused it, and why."""

    why: PauseWhy
    text: str = Field(examples=["wave canary: 7 of 10 succeeded, needs 95 %"])


class Rollout(BaseModel):
    """How a rollout stands."""

    rollout: str = Field(examples=["0f" * 8])
    plan: RolloutPlan
    phase: Phase
    why: str = Field(description="Of its last stop.", examples=[""])
    pause: RolloutPause | None
    wave: int = Field(description="The newest whose turn it is, counted from 0.")
    counts: dict[State, int] = Field(description="How many devices are in each state.", examples=[{"queued": 40}])
    waits: dict[str, int] = Field(description="What keeps devices from going on.", examples=[{"rate": 12}])
    looked_s: int = Field(description="How long it was looked at; its timers go by that.")
    created_by: str
    created_ms: TimeMs
    created_at: TimeAt
    approved_by: str | None
    ended_ms: TimeMs | None
    ended_at: TimeAt

    @classmethod
    def of(cls, listed: Listed) -> "Rollout":
        """As it is kept."""
        head = listed.head
        return cls(
            rollout=listed.id,
            plan=RolloutPlan.of(listed.plan),
            phase=head.phase,
            why=head.why,
            pause=None if head.pause is None else RolloutPause(why=head.pause.why, text=head.pause.text),
            wave=head.wave,
            counts=listed.counts,
            waits=head.waits,
            looked_s=head.clock_ms // 1000,
            created_by=head.created_by,
            created_ms=head.created_ms,
            created_at=rfc3339(head.created_ms),
            approved_by=head.approved_by or None,
            ended_ms=head.ended_ms,
            ended_at=rfc3339(head.ended_ms),
        )


class Rollouts(BaseModel):
    """The newest first; `next` is null on the last page."""

    rollouts: list[Rollout]
    next: str | None = Field(description="The cursor of the next page.")


class PlannedWave(BaseModel):
    """Devices in the order of their turns."""

    name: str
    count: int
    devices: list[str]


class RolloutPreview(BaseModel):
    """What a plan would do. With faults it cannot begin."""

    waves: list[PlannedWave]
    faults: list[str]
    warnings: list[str] = Field(description="What will hold it up.")
    takes_s: int = Field(description="How long at least, if all goes well and everybody is there.")
    second_person: bool = Field(description="Whether another one has to agree.")

    @classmethod
    def of(cls, plan: Plan, preview: Preview) -> "RolloutPreview":
        """As it is told."""
        named = zip(plan.waves, preview.waves, strict=False)
        return cls(
            waves=[PlannedWave(name=wave.name, count=len(some), devices=list(some)) for wave, some in named],
            faults=list(preview.faults),
            warnings=list(preview.warnings),
            takes_s=preview.takes_s,
            second_person=preview.second,
        )


class RolloutMade(BaseModel):
    """One of the two."""

    rollout: Rollout | None
    dry_run: RolloutPreview | None


class RolloutDevice(BaseModel):
    """How far a device has come."""

    device: str = Field(examples=["cam-17"])
    state: State
    wave: int
    reason: str = Field(examples=["waits for recording"])
    ill: plans.Ill | None
    version: int | None = Field(description="Of what is desired of it.")
    tries: int

    @classmethod
    def of(cls, device: str, member: Member) -> "RolloutDevice":
        """As it is kept."""
        return cls(
            device=device,
            state=member.state,
            wave=member.wave,
            reason=member.reason,
            ill=member.ill,
            version=member.version or None,
            tries=member.executed + member.tries_failed + member.tries_timed_out,
        )


class RolloutDevices(BaseModel):
    """By id; `next` is null on the last page."""

    devices: list[RolloutDevice]
    next: str | None = Field(description="The cursor of the next page.")
