"""Twins, layers and groups as the API takes and tells them."""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from broker_config.device_classes.settings import TEXT_CHARS_MAX
from broker_config.twin import ApplyWindow, ChangeState, SettingValue
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.change import layers, twins
from fleet_server.change.circumstances import Given
from fleet_server.change.composing import Difference
from fleet_server.change.layers import MEMBERS_MAX, PRIORITY_MAX, LayerKind, Source
from fleet_server.change.twins import Drift
from fleet_server.registry.model import SLUG_PATTERN

Value: TypeAlias = StrictBool | StrictInt | StrictFloat | Annotated[StrictStr, Field(max_length=TEXT_CHARS_MAX)]
Settings: TypeAlias = Annotated[
    dict[str, Value],
    Field(description="Setting -> value, as the device class has them.", examples=[{"video": "1080p"}]),
]
LayerSettings: TypeAlias = Annotated[
    dict[str, Value | None],
    Field(
        description="Setting -> value; null: what stands before does not count, and the class's default does.",
        examples=[{"video": "1080p", "keep_alive_s": None}],
    ),
]
SettingsPatch: TypeAlias = Annotated[
    dict[str, Value | None],
    Field(description="A merge patch (RFC 7396) of the device's own settings.", examples=[{"video": "720p"}]),
]
Revision: TypeAlias = Annotated[int, Field(description="Its ETag.", examples=[3])]


class SettingSource(BaseModel):
    """Where a value comes from."""

    kind: LayerKind
    name: str | None = Field(description="Of the class, node, group or device.", examples=["night"])
    revision: int = Field(description="The layer's revision that gave it.", examples=[7])

    @classmethod
    def of(cls, source: Source) -> "SettingSource":
        return cls(kind=source.layer.kind, name=source.layer.name or None, revision=source.revision)


class Window(BaseModel):
    """When a change may be applied, by the device's clock and time zone: minutes after midnight, `end` excluded."""

    start: int = Field(examples=[120])
    end: int = Field(examples=[300])
    days: list[int] = Field(description="Of the start, 1 is Monday; empty: every day.", examples=[[1, 2, 3, 4, 5]])

    @classmethod
    def of(cls, window: ApplyWindow) -> "Window":
        return cls(start=window.start, end=window.end, days=list(window.days))


class DesiredState(BaseModel):
    """What a device is to be."""

    version: int = Field(examples=[1767254400000])
    since_ms: TimeMs
    since_at: TimeAt
    config: Settings
    provenance: dict[str, SettingSource] = Field(description="Where each setting comes from.")
    by: str = Field(description="Who brought it about.", examples=["person:a-meyer"])
    origin: str = Field(description="What did.", examples=["layer group/night@7"])
    rollout: str | None = Field(description="Which rollout released it.", examples=["0f" * 8])
    confirm_s: int = Field(description="How long the device tries it before it goes back.", examples=[300])
    window: Window | None = Field(description="null: it is applied at any time.")

    @classmethod
    def of(cls, aim: twins.Aim) -> "DesiredState":
        """As it is kept."""
        return cls(
            version=aim.version,
            since_ms=aim.at_ms,
            since_at=rfc3339(aim.at_ms),
            config=dict(aim.config),
            provenance={name: SettingSource.of(source) for name, source in aim.provenance.items()},
            by=aim.by,
            origin=aim.origin,
            rollout=aim.rollout or None,
            confirm_s=aim.confirm_s,
            window=None if aim.window is None else Window.of(aim.window),
        )


class ReportedState(BaseModel):
    """What a device says that it is."""

    version: int = Field(examples=[1767254400000])
    since_ms: TimeMs = Field(description="When the server heard it first.")
    since_at: TimeAt
    boot: str = Field(examples=["0f" * 8])
    desired: int = Field(description="The newest desired version that it took up; 0: none.")
    in_force: int = Field(description="The one that its settings come from; 0: they are defaults.")
    state: ChangeState
    reason: str | None
    waits_for: str | None = Field(description="A lease, or `window`.", examples=["recording"])
    config: Settings

    @classmethod
    def of(cls, report: twins.Report) -> "ReportedState":
        """As it is kept."""
        said = report.reported
        return cls(
            version=said.version,
            since_ms=report.at_ms,
            since_at=rfc3339(report.at_ms),
            boot=said.boot,
            desired=said.desired,
            in_force=said.in_force,
            state=said.state,
            reason=said.reason or None,
            waits_for=said.waits_for or None,
            config=dict(said.config),
        )


class TwinPlace(BaseModel):
    """Where a device was, and what it was taken for."""

    device_class: str | None = Field(examples=["body_camera"])
    org: str | None = Field(examples=["hq/station-7"])


class DeviceTwin(BaseModel):
    """What is desired of a device, and what it reported."""

    device: str = Field(examples=["cam-7"])
    at_ms: TimeMs | None = Field(description="The time that was asked for; null: now.")
    at_at: TimeAt
    drift: Drift
    deviating: list[str] = Field(description="Settings that are reported otherwise, or not at all.")
    held_by: str | None = Field(description="A rollout that has not released yet what the layers make.")
    desired: DesiredState | None = Field(description="null: nothing was ever desired.")
    reported: ReportedState | None = Field(description="null: it never said anything.")
    own: LayerSettings | None = Field(description="The device's own settings; null of a time.")
    place: TwinPlace
    agent: str | None = Field(description="null: not known of that time.", examples=["0.2.0"])
    hardware: str | None = Field(description="null: not known of that time.", examples=["bc-2"])
    profile: str | None = Field(description="null: not known of that time.", examples=["body_camera"])
    profile_digest: str | None = Field(description="null: not known of that time.")
    clock: "TwinClock | None" = Field(description="null: not known of that time.")
    assignment: "TwinAssignment | None" = Field(description="null: to nobody, or it is not for you to know.")


class TwinAssignment(BaseModel):
    """To whom a device was given."""

    officer: str | None = Field(examples=["4711"])
    vehicle: str | None = Field(examples=["car-12"])
    shift: str | None = Field(examples=["early"])
    unit: str | None = Field(examples=["unit-4"])

    @classmethod
    def of(cls, given: Given) -> "TwinAssignment":
        """As it was said."""
        return cls(
            officer=given.officer or None,
            vehicle=given.vehicle or None,
            shift=given.shift or None,
            unit=given.unit or None,
        )


class TwinClock(BaseModel):
    """How the device's clock stood."""

    source: str = Field(examples=["ntp"])
    off_ms: int | None = Field(description="What it was off, as far as it knew.", examples=[-12])
    unc_ms: int | None = Field(description="How much more it may have been off.", examples=[40])


class SettingChange(BaseModel):
    """null: the class's default."""

    before: Value | None
    after: Value | None


class DeviceChange(BaseModel):
    """What would change for a device."""

    device: str = Field(examples=["cam-7"])
    settings: dict[str, SettingChange]

    @classmethod
    def of(cls, difference: Difference) -> "DeviceChange":
        """As it was composed."""
        settings = {name: _change(*pair) for name, pair in difference.settings.items()}
        return cls(device=difference.device, settings=settings)


class Preview(BaseModel):
    """What a dry run would have changed; nothing was."""

    devices: int = Field(description="How many devices would change.")
    changes: list[DeviceChange] = Field(description="The first 1,000 of them.")


class TwinChanged(BaseModel):
    """The twin as it is, and of a dry run what would change."""

    twin: DeviceTwin
    dry_run: Preview | None


class ConfigLayer(BaseModel):
    """Settings for some devices. Fleet < class < organisation node < group < device: what stands later wins."""

    kind: LayerKind
    name: str | None = Field(examples=["night"])
    revision: Revision
    settings: LayerSettings
    revisions: dict[str, int] = Field(description="Which revision gave each setting its value.")
    changed_ms: TimeMs | None = Field(description="null: nothing was ever said here.")
    changed_at: TimeAt
    changed_by: str | None = Field(examples=["person:a-meyer"])

    @classmethod
    def of(cls, name: layers.LayerName, layer: layers.Layer | None) -> "ConfigLayer":
        """One that nobody said anything in is empty, of revision 0."""
        at_ms = None if layer is None else layer.at_ms
        return cls(
            kind=name.kind,
            name=name.name or None,
            revision=0 if layer is None else layer.revision,
            settings={} if layer is None else layer.document,
            revisions={} if layer is None else {each: leaf.revision for each, leaf in layer.leaves.items()},
            changed_ms=at_ms,
            changed_at=rfc3339(at_ms),
            changed_by=None if layer is None else layer.by,
        )


class ConfigLayers(BaseModel):
    """By kind and name; `next` is null on the last page."""

    layers: list[ConfigLayer]
    next: str | None = Field(description="The cursor of the next page.")


class LayerIn(BaseModel):
    """All of a layer; what is left out is taken away."""

    model_config = ConfigDict(extra="forbid")

    settings: LayerSettings


class LayerChanged(BaseModel):
    """The layer as it is, and of a dry run what would change."""

    layer: ConfigLayer
    dry_run: Preview | None


class GroupIn(BaseModel):
    """All of a group; what is left out is taken away."""

    model_config = ConfigDict(extra="forbid")

    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX, description="The higher one wins.", examples=[10])]
    members: Annotated[
        list[Annotated[str, Field(pattern=SLUG_PATTERN)]], Field(max_length=MEMBERS_MAX, examples=[["cam-7"]])
    ]


class ConfigGroup(BaseModel):
    """A named set of devices that have settings in common."""

    group: str = Field(examples=["night"])
    priority: int = Field(description="Of two groups of a device the higher one wins, then the newer.", examples=[10])
    created_ms: TimeMs
    created_at: TimeAt
    revision: Revision
    members: list[str] = Field(examples=[["cam-7"]])

    @classmethod
    def of(cls, group: layers.Group) -> "ConfigGroup":
        """As it is kept."""
        return cls(
            group=group.group,
            priority=group.priority,
            created_ms=group.created_ms,
            created_at=rfc3339(group.created_ms),
            revision=group.revision,
            members=sorted(group.members),
        )


class GroupRow(BaseModel):
    """A group without its members."""

    group: str = Field(examples=["night"])
    priority: int = Field(examples=[10])
    created_ms: TimeMs
    created_at: TimeAt
    revision: Revision
    devices: int = Field(description="How many are in it.", examples=[48])

    @classmethod
    def of(cls, group: layers.Group) -> "GroupRow":
        """As it is kept."""
        return cls(
            group=group.group,
            priority=group.priority,
            created_ms=group.created_ms,
            created_at=rfc3339(group.created_ms),
            revision=group.revision,
            devices=len(group.members),
        )


class ConfigGroups(BaseModel):
    """By name; `next` is null on the last page."""

    groups: list[GroupRow]
    next: str | None = Field(description="The cursor of the next page.")


class GroupChanged(BaseModel):
    """The group as it is, null if it is not there; and of a dry run what would change."""

    group: ConfigGroup | None
    dry_run: Preview | None


class DesiredHistory(BaseModel):
    """The newest first; `next` is null on the last page."""

    desired: list[DesiredState]
    next: str | None = Field(description="The cursor of the next page.")


class ReportedHistory(BaseModel):
    """The newest first; `next` is null on the last page."""

    reported: list[ReportedState]
    next: str | None = Field(description="The cursor of the next page.")


def _change(before: SettingValue | None, after: SettingValue | None) -> SettingChange:
    return SettingChange(before=before, after=after)
