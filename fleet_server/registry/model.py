"""Devices, organisation nodes and duty units as values, and the words that say where one is."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from broker_config.ids import DEVICE_ID_PATTERN, exact

SLUG_PATTERN: Final = DEVICE_ID_PATTERN
"""Of a node's and a unit's name in a path: the alphabet of devices."""
DEPTH_MAX: Final = 8
NODES_MAX: Final = 10_000
UNITS_MAX: Final = 10_000
NAME_CHARS_MAX: Final = 120
NOTE_CHARS_MAX: Final = 500
TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$"
"""No control characters: it is shown, mailed, and written into tables."""
SERIAL_PATTERN: Final = r"^[!-~]{1,64}$"
PATH_SEPARATOR: Final = "/"
PATH_PATTERN: Final = r"^[a-z0-9][a-z0-9/-]{0,511}$"

Slug = Annotated[str, Meta(pattern=exact(SLUG_PATTERN))]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX, pattern=exact(TEXT_PATTERN))]
Serial = Annotated[str, Meta(pattern=exact(SERIAL_PATTERN))]
Note = Annotated[str, Meta(max_length=NOTE_CHARS_MAX, pattern=exact(TEXT_PATTERN))]


class NodeKind(StrEnum):
    """The levels of the organisation."""

    CENTRE = "centre"
    STATION = "station"
    POST = "post"
    PLATFORM = "platform"


class OrgNode(Struct, frozen=True, forbid_unknown_fields=True):
    """A place in the organisation tree, as an operator says it; a centre has no parent, everything else has one."""

    node: Slug
    kind: NodeKind
    name: Name
    parent: Slug | None = None


class DutyUnit(Struct, frozen=True, forbid_unknown_fields=True):
    """A group that is dispatched; ``node``: where it is at home, if anywhere."""

    unit: Slug
    name: Name
    node: Slug | None = None


class Registration(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator says of a device."""

    device: Slug
    device_class: str
    serial: Serial | None = None
    node: Slug | None = None
    unit: Slug | None = None
    note: Note = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """What a device says of itself in its births since ``at_ms``, by the server's clock; None if it never did."""

    device_class: str = ""
    agent: str = ""
    hardware: str = ""
    profile: str = ""
    profile_digest: str = ""
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The three facts of presence as last recorded."""

    connected: bool = False
    reporting: bool = False
    healthy: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the registry has it.

    ``registration.device_class`` of a device that was only heard of is what it says itself. ``path``: of its node,
    empty without one. ``registered_ms``: None if it was only heard of. ``revision``: 0 before an operator said
    anything.
    """

    registration: Registration
    path: str
    registered_ms: int | None
    revision: int
    reported: Reported
    facts: Facts

    @property
    def device(self) -> str:
        """Its id."""
        return self.registration.device


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node with its path from the root, such as ``hq/station-07/post-3``."""

    node: OrgNode
    path: str
    revision: int


@dataclass(frozen=True, slots=True)
class HeldUnit:
    """A duty unit and the revision of it."""

    unit: DutyUnit
    revision: int


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """What devices are meant; None means any. ``path``: that node and everything below it. ``text``: how its id or
    its serial begins. ``drift``: how its twin stands, see change.twins. ``within``: at one of these nodes or below,
    beside all else; empty is nowhere.
    """

    device_class: str | None = None
    path: str | None = None
    unit: str | None = None
    connected: bool | None = None
    reporting: bool | None = None
    healthy: bool | None = None
    registered: bool | None = None
    text: str | None = None
    drift: str | None = None
    within: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Devices of one path and class: how many there are, and of how many each fact is true."""

    path: str
    device_class: str
    devices: int
    connected: int
    reporting: int
    healthy: int


class RegistryError(Exception):
    """The registry cannot do it; nothing was changed."""


class UnknownError(RegistryError):
    """There is no such device, node or unit; ``what`` says which sort."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there is no {what} {name!r}")
        self.what = what
        self.name = name


class TakenError(RegistryError):
    """The name or the serial is another's, or it is there already."""


class StaleError(RegistryError):
    """It was changed meanwhile; ``revision`` is what it has now."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"it was changed meanwhile; its revision is {revision}")
        self.revision = revision


class InUseError(RegistryError):
    """Something stands below it or belongs to it."""


class FullError(RegistryError):
    """There are as many nodes or units as there may be."""

    def __init__(self, what: str, count_max: int) -> None:
        super().__init__(f"expected at most {count_max} {what}s; drop one that is not needed any more")


class BeyondError(RegistryError):
    """It is not theirs to do there."""


class RuleError(RegistryError):
    """It breaks a rule of the organisation tree or of the registry."""


Said = TypeVar("Said", Registration, OrgNode, DutyUnit)


def patched(kind: type[Said], value: Said, patch: Mapping[str, object]) -> Said:
    """*value* after a merge patch (RFC 7396), in which null takes a member away.

    Raises:
        msgspec.ValidationError: the result is not what *kind* may be.
    """
    merged = {**msgspec.to_builtins(value), **patch}
    return msgspec.convert({name: each for name, each in merged.items() if each is not None}, kind)
