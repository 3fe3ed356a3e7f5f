"""What the API takes and gives of commands."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from broker_config import device_classes
from broker_config.device_classes import SafetyClass
from broker_config.device_classes.settings import Setting
from broker_config.signing import ENVELOPE_BYTES_MAX, LIFETIME_MS_MAX, PARAMETERS_MAX
from fleet_server.api.registry_models import DeviceClass, Slug
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.change import commands as rules
from fleet_server.change.commands import APPROVED_TARGETS_MAX, OWNERS, Count, Owner, State
from fleet_server.change.selector import SELECTOR_CHARS_MAX

COMMAND_PATTERN = r"^[0-9a-f]{16}$"
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31})?$"
DEVICES_MAX = 1_000
"""Named one by one."""

Value: TypeAlias = bool | int | float | Annotated[str, Field(max_length=512)]
CommandName: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN, examples=["identify"])]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CommandIn(_In):
    """What is to be done, and where: by devices, or by any of the others, which narrow each other down."""

    name: CommandName
    parameters: Annotated[dict[str, Value], Field(max_length=PARAMETERS_MAX)] = {}
    devices: Annotated[list[Slug], Field(max_length=DEVICES_MAX, examples=[["cam-7"]])] = []
    node: Slug | None = Field(None, description="There and below.")
    unit: Slug | None = Field(None, examples=["unit-4"])
    device_class: DeviceClass | None = None
    where: Annotated[str, Field(max_length=SELECTOR_CHARS_MAX)] | None = Field(
        None, description="A selector.", examples=["class==body_camera;connected==true"]
    )
    expires_s: Annotated[int, Field(ge=1, le=LIFETIME_MS_MAX // 1000)] | None = Field(
        None, description="Not begun later than this; no longer than the class says, which it is if not given."
    )


class OrderText(_In):
    """A signed order of one device."""

    device: Slug
    order: Annotated[str, Field(max_length=ENVELOPE_BYTES_MAX, description="The envelope's JSON, as it came.")]


class ApproveIn(_In):
    """The orders of all its devices, each with the signatures that it needs."""

    orders: Annotated[list[OrderText], Field(min_length=1, max_length=APPROVED_TARGETS_MAX)]


class CommandCount(BaseModel):
    """So many devices are in a state for one reason."""

    state: State
    reason: str = Field(examples=["busy"])
    devices: int


class Command(BaseModel):
    """A command, and what became of it as far as is known."""

    command: str = Field(examples=["0f" * 8])
    name: str = Field(examples=["identify"])
    parameters: dict[str, Value]
    safety: SafetyClass
    signatures: int = Field(description="How many its orders need.", examples=[1])
    by: str = Field(examples=["person:a-meyer"])
    approved_by: str | None
    created_ms: TimeMs
    created_at: TimeAt
    expires_ms: TimeMs
    expires_at: TimeAt
    over: bool = Field(description="Nothing more is waited for.")
    summary: str = Field(examples=["31 done, 2 refused (busy), 7 silent"])
    counts: list[CommandCount]

    @classmethod
    def of(cls, told: rules.Command, counts: Sequence[Count]) -> "Command":
        """As it stands."""
        return cls(
            command=told.command,
            name=told.name,
            parameters=dict(told.parameters),
            safety=told.safety,
            signatures=told.needs,
            by=told.by,
            approved_by=told.approved_by or None,
            created_ms=told.created_ms,
            created_at=rfc3339(told.created_ms),
            expires_ms=told.expires_ms,
            expires_at=rfc3339(told.expires_ms),
            over=rules.is_over(counts),
            summary=rules.told(counts),
            counts=[CommandCount(state=each.state, reason=each.reason, devices=each.targets) for each in counts],
        )


class SentCommand(BaseModel):
    """What was asked for, or with `dry_run` would be."""

    dry_run: bool
    command: Command
    devices: int = Field(description="How many are meant.", examples=[40])
    names: list[str] = Field(description="Of them, the first hundred.", examples=[["cam-7"]])
    unsuitable: list[str] = Field(
        description="Of a class that does not have the command: left out; the first hundred.", examples=[[]]
    )


class Commands(BaseModel):
    """The newest first; `next` is null on the last page."""

    commands: list[Command]
    next: str | None = Field(description="The cursor of the next page.")


class CommandTarget(BaseModel):
    """What became of a command on one device."""

    device: str = Field(examples=["cam-7"])
    org: str | None = Field(description="As it was when the command was sent.", examples=["hq/station-7"])
    state: State
    owner: Owner = Field(description="Who moves it on.")
    reason: str = Field(examples=[""])
    waits_for: str = Field(description="A lease, while it is deferred.", examples=["recording"])
    result: dict[str, Value]
    sent_ms: TimeMs | None
    sent_at: TimeAt
    heard_ms: TimeMs | None
    heard_at: TimeAt
    ended_ms: TimeMs | None
    ended_at: TimeAt

    @classmethod
    def of(cls, target: rules.Target) -> "CommandTarget":
        """As it stands."""
        return cls(
            device=target.device,
            org=target.path or None,
            state=target.state,
            owner=OWNERS[target.state],
            reason=target.reason,
            waits_for=target.waits_for,
            result=dict(target.result),
            sent_ms=target.sent_ms,
            sent_at=rfc3339(target.sent_ms),
            heard_ms=target.heard_ms,
            heard_at=rfc3339(target.heard_ms),
            ended_ms=target.ended_ms,
            ended_at=rfc3339(target.ended_ms),
        )


class CommandTargets(BaseModel):
    """By device; `next` is null on the last page."""

    targets: list[CommandTarget]
    next: str | None = Field(description="The cursor of the next page.")


class Orders(BaseModel):
    """For a second person to read and to sign; those made before are worth nothing."""

    orders: list[OrderText]


class Cancelled(BaseModel):
    """What no device had heard of is taken back; the rest goes on."""

    cancelled: int
    command: Command


class CatalogEntry(BaseModel):
    """A command of a class."""

    name: str = Field(examples=["identify"])
    description: str
    safety: SafetyClass
    expires_s: int
    parameters: dict[str, dict[str, Value | list[str]]]


class Catalog(BaseModel):
    """All that devices of a class can be told to do, if their profile says how."""

    device_class: str
    commands: list[CatalogEntry]

    @classmethod
    def of(cls, name: str) -> "Catalog":
        """Raises UnknownClassError."""
        loaded = device_classes.load(name)
        return cls(
            device_class=name,
            commands=[
                CatalogEntry(
                    name=each,
                    description=spec.description,
                    safety=spec.safety_class,
                    expires_s=spec.expires_s,
                    parameters={key: _setting(setting) for key, setting in spec.parameters.items()},
                )
                for each, spec in sorted(loaded.commands.items())
            ],
        )


def _setting(setting: Setting) -> dict[str, Value | list[str]]:
    """In JSON Schema's words, those that are said."""
    words: dict[str, Value | list[str] | None] = {
        "type": setting.type.value,
        "description": setting.description,
        "default": setting.default,
        "unit": setting.unit or None,
        "minimum": setting.minimum,
        "maximum": setting.maximum,
        "enum": list(setting.enum) or None,
        "max_length": setting.max_length,
    }
    return {key: value for key, value in words.items() if value is not None}
