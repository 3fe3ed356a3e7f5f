"""What the API takes and gives of the registry."""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.registry import model
from fleet_server.registry.model import NodeKind

Slug: TypeAlias = Annotated[str, Field(pattern=model.SLUG_PATTERN, examples=["station-7"])]
Name: TypeAlias = Annotated[
    str,
    Field(min_length=1, max_length=model.NAME_CHARS_MAX, pattern=model.TEXT_PATTERN, examples=["Seventh station"]),
]
DeviceClass: TypeAlias = Annotated[str, Field(max_length=32, pattern=r"^[a-z][a-z0-9_]*$", examples=["body_camera"])]
Serial: TypeAlias = Annotated[str, Field(pattern=model.SERIAL_PATTERN, examples=["AX-1047-22"])]
Note: TypeAlias = Annotated[str, Field(max_length=model.NOTE_CHARS_MAX, pattern=model.TEXT_PATTERN, examples=[""])]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RegistrationIn(_In):
    """What an operator says of a device; what is left out is taken away."""

    device_class: DeviceClass
    serial: Serial | None = None
    node: Slug | None = Field(None, description="The organisation node it belongs to.")
    unit: Slug | None = Field(None, description="The duty unit that has it.", examples=["unit-4"])
    note: Note = ""


class RegistrationPatch(_In):
    """A merge patch (RFC 7396): what is left out stays, null takes away."""

    device_class: DeviceClass | None = None
    serial: Serial | None = None
    node: Slug | None = None
    unit: Slug | None = Field(None, examples=["unit-4"])
    note: Note | None = None


class Registration(BaseModel):
    """What operators said of a device."""

    device: str = Field(examples=["car-7"])
    device_class: str = Field(examples=["in_car_terminal"])
    serial: str | None = Field(examples=["AX-1047-22"])
    node: str | None = Field(examples=["station-7"])
    org: str | None = Field(description="The node's path from the root.", examples=["hq/station-7"])
    unit: str | None = Field(examples=["unit-4"])
    note: str = Field(examples=[""])
    registered_ms: TimeMs
    registered_at: TimeAt
    revision: int = Field(description="Its ETag.", examples=[3])

    @classmethod
    def of(cls, device: model.Device) -> "Registration":
        """As the registry has it; of a device that is registered."""
        said = device.registration
        assert device.registered_ms is not None
        return cls(
            device=said.device,
            device_class=said.device_class,
            serial=said.serial,
            node=said.node,
            org=device.path or None,
            unit=said.unit,
            note=said.note,
            registered_ms=device.registered_ms,
            registered_at=rfc3339(device.registered_ms),
            revision=device.revision,
        )


class OrgNodeIn(_In):
    """An organisation node; a centre may stand at the root, everything else below something."""

    kind: NodeKind
    name: Name
    parent: Slug | None = Field(None, examples=["hq"])


class OrgNodePatch(_In):
    """A merge patch (RFC 7396)."""

    kind: NodeKind | None = None
    name: Name | None = None
    parent: Slug | None = Field(None, examples=["hq"])


class OrgNode(BaseModel):
    """A place in the organisation tree."""

    node: str = Field(examples=["station-7"])
    kind: NodeKind
    name: str = Field(examples=["Seventh station"])
    parent: str | None = Field(examples=["hq"])
    org: str = Field(description="Its path from the root.", examples=["hq/station-7"])
    revision: int = Field(description="Its ETag.", examples=[1])

    @classmethod
    def of(cls, placed: model.PlacedNode) -> "OrgNode":
        """As the registry has it."""
        node = placed.node
        return cls(
            node=node.node,
            kind=node.kind,
            name=node.name,
            parent=node.parent,
            org=placed.path,
            revision=placed.revision,
        )


class OrgNodePage(BaseModel):
    """Nodes by their paths; `next` is null on the last page."""

    org_nodes: list[OrgNode]
    next: str | None = Field(description="The cursor of the next page.")


class DutyUnitIn(_In):
    """A group that is dispatched, and where it is at home."""

    name: Name
    node: Slug | None = None


class DutyUnitPatch(_In):
    """A merge patch (RFC 7396)."""

    name: Name | None = None
    node: Slug | None = None


class DutyUnit(BaseModel):
    """A group that is dispatched."""

    unit: str = Field(examples=["unit-4"])
    name: str = Field(examples=["Fourth unit"])
    node: str | None = Field(examples=["station-7"])
    revision: int = Field(description="Its ETag.", examples=[1])

    @classmethod
    def of(cls, held: model.HeldUnit) -> "DutyUnit":
        """As the registry has it."""
        return cls(unit=held.unit.unit, name=held.unit.name, node=held.unit.node, revision=held.revision)


class DutyUnitPage(BaseModel):
    """Duty units by name; `next` is null on the last page."""

    duty_units: list[DutyUnit]
    next: str | None = Field(description="The cursor of the next page.")


class Imported(BaseModel):
    """What an import did, or with `dry_run` would do; of the names at most the first hundred."""

    dry_run: bool
    created: int = Field(examples=[120])
    changed: int = Field(examples=[3])
    unchanged: int = Field(examples=[2477])
    created_names: list[str] = Field(examples=[["car-7"]])
    changed_names: list[str] = Field(examples=[[]])


class FleetRow(BaseModel):
    """Devices of one place, with everything below it, and how many of them are well."""

    org: str | None = Field(description="A node's path; null: devices without a place.", examples=["hq/station-7"])
    node: str | None = Field(examples=["station-7"])
    kind: NodeKind | None
    name: str = Field(examples=["Seventh station"])
    devices: int = Field(examples=[54])
    connected: int = Field(examples=[53])
    reporting: int = Field(examples=[53])
    healthy: int = Field(examples=[51])


class FleetClass(BaseModel):
    """Devices of one class."""

    device_class: str = Field(description="Empty: not known.", examples=["body_camera"])
    devices: int = Field(examples=[400])
    connected: int = Field(examples=[390])
    reporting: int = Field(examples=[390])
    healthy: int = Field(examples=[388])


class FleetSummary(BaseModel):
    """The fleet at a glance, by place and by class. Presence here is as last recorded, a few seconds old at most."""

    devices: int = Field(examples=[2600])
    connected: int = Field(examples=[2551])
    reporting: int = Field(examples=[2540])
    healthy: int = Field(examples=[2533])
    places: list[FleetRow]
    classes: list[FleetClass]
