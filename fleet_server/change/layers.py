"""Layered configuration: which layers count for a device, what they make together, and where each value comes from.

Fleet < device class < organisation node (from the root to the leaf) < group (by priority, then the newer one) <
device: what stands later wins. A layer is flat, setting -> value; null takes away what stands before, so that the
class's default counts (RFC 7396). Pure.

Rule 1: a layer for many classes may have settings that only some know; each device gets what its class knows.
Rule 2: each leaf has the revision that gave it its value, not the newest one of its layer.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from broker_config import device_classes
from broker_config.device_classes.settings import Setting
from broker_config.text import shown
from broker_config.twin import SETTINGS_MAX, SettingValue
from fleet_server.registry.model import PATH_SEPARATOR

GROUPS_MAX: Final = 1_000
MEMBERS_MAX: Final = 2_000
"""Of one group; what is larger is a class or an organisation node."""
PRIORITY_MAX: Final = 1_000_000
COMPOSED_MAX: Final = 10_000
"""Different compositions that are remembered: one for each class, place and set of groups."""

LayerValue: TypeAlias = SettingValue | None
LayerDocument: TypeAlias = Mapping[str, LayerValue]
"""Setting -> value; None takes away what stands before."""


class LayerKind(StrEnum):
    """In the order in which they count."""

    FLEET = "fleet"
    DEVICE_CLASS = "class"
    ORG_NODE = "node"
    GROUP = "group"
    DEVICE = "device"


class LayerName(NamedTuple):
    """``name``: of the class, node, group or device; empty for the fleet."""

    kind: LayerKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" if self.name else str(self.kind)


FLEET: Final = LayerName(LayerKind.FLEET)


class Leaf(NamedTuple):
    """A value, and the revision of the layer that gave it."""

    value: LayerValue
    revision: int


class Layer(NamedTuple):
    """``revision``: counts the changes of the layer, from 1. ``at_ms``, ``by``: of the last one."""

    name: LayerName
    revision: int
    leaves: Mapping[str, Leaf]
    at_ms: int = 0
    by: str = ""

    @property
    def document(self) -> dict[str, LayerValue]:
        """Its values alone."""
        return {name: leaf.value for name, leaf in self.leaves.items()}


class Group(NamedTuple):
    """A named set of devices. Of two groups that a device is in, the one with the higher ``priority`` wins, of equal
    ones the newer.
    """

    group: str
    priority: int
    created_ms: int
    revision: int
    members: frozenset[str]


class Source(NamedTuple):
    """Where a leaf comes from."""

    layer: LayerName
    revision: int


class Composed(NamedTuple):
    """A whole configuration, and the source of each of its settings."""

    config: Mapping[str, SettingValue]
    provenance: Mapping[str, Source]


class Placed(NamedTuple):
    """What of a device decides which layers count for it; ``path``: of its organisation node, empty without one."""

    device: str
    device_class: str
    path: str


def revised(name: LayerName, before: Layer | None, document: LayerDocument, *, at_ms: int, by: str) -> Layer:
    """*before* with *document* in its place; leaves that stay as they were keep their revision. If nothing is
    different it is *before* itself.
    """
    revision = 1 if before is None else before.revision + 1
    held: Mapping[str, Leaf] = {} if before is None else before.leaves
    leaves = {
        setting: held[setting] if setting in held and same(held[setting].value, value) else Leaf(value, revision)
        for setting, value in document.items()
    }
    if before is not None and leaves == dict(before.leaves):
        return before
    return Layer(name, revision, leaves, at_ms, by)


def same(one: object, other: object) -> bool:
    """Whether two values are the same one: true is not 1, though Python says so."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def faults(document: LayerDocument, classes: Iterable[str]) -> list[str]:
    """Everything wrong with a layer for devices of *classes*: a setting that none of them knows, or a value that one
    which knows it does not take. One line each.
    """
    known = [device_classes.load(name) for name in classes]
    out = [f"settings: expected at most {SETTINGS_MAX}, got {len(document)}"] if len(document) > SETTINGS_MAX else []
    for setting, value in document.items():
        having = [each for each in known if setting in each.config]
        if not having:
            out.append(f"{shown(setting, 60)}: unknown")
        elif value is not None:
            found = dict.fromkeys(each.config[setting].fault(value) for each in having)
            out += [f"{shown(setting, 60)}: {fault}" for fault in found if fault]
    return out


def classes_of(name: LayerName, device_class: str = "") -> tuple[str, ...]:
    """The classes whose devices a layer can be for; *device_class*: of the device whose own layer it is."""
    match name.kind:
        case LayerKind.DEVICE_CLASS:
            return (name.name,)
        case LayerKind.DEVICE:
            return (device_class,)
        case _:
            return device_classes.names()


def composed(layers: Iterable[Layer], known: Mapping[str, Setting]) -> Composed:
    """What *layers*, in the order in which they count, make for a device whose class knows *known*.

    A value that the class does not take (any more) is passed over: the device would refuse all of it.
    """
    config: dict[str, SettingValue] = {}
    provenance: dict[str, Source] = {}
    for layer in layers:
        for setting, leaf in layer.leaves.items():
            if leaf.value is None:
                config.pop(setting, None)
                provenance.pop(setting, None)
            elif setting in known and not known[setting].fault(leaf.value):
                config[setting] = leaf.value
                provenance[setting] = Source(layer.name, leaf.revision)
    return Composed(config, provenance)


class Layering:
    """All layers but those of single devices, as of one moment. Remembers what it composed; one thread."""

    def __init__(self, layers: Iterable[Layer], groups: Iterable[Group]) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._groups = {group.group: group for group in groups}
        self._groups_of: dict[str, list[str]] = {}
        for group in sorted(self._groups.values(), key=lambda each: (each.priority, each.created_ms, each.group)):
            for member in group.members:
                self._groups_of.setdefault(member, []).append(group.group)
        self._classes = frozenset(device_classes.names())
        self._composed: dict[tuple[str, str, tuple[str, ...]], Composed] = {}

    def of(self, placed: Placed, own: Layer | None) -> Composed | None:
        """The configuration of a device; *own*: its own layer. None: its class is not known here, so nobody can say
        what it may be set to.
        """
        if placed.device_class not in self._classes:
            return None
        groups = tuple(self._groups_of.get(placed.device, ()))
        if own is not None:
            return self._made(placed, groups, own)
        key = (placed.device_class, placed.path, groups)
        found = self._composed.get(key)
        if found is None:
            if len(self._composed) >= COMPOSED_MAX:
                self._composed.clear()
            found = self._composed[key] = self._made(placed, groups, None)
        return found

    def with_layer(self, layer: Layer) -> "Layering":
        """The same with *layer* in the place of the one of its name."""
        return Layering({**self._layers, layer.name: layer}.values(), self._groups.values())

    def with_group(self, group: Group) -> "Layering":
        """The same with *group* in the place of the one of its name."""
        return Layering(self._layers.values(), {**self._groups, group.group: group}.values())

    def _made(self, placed: Placed, groups: tuple[str, ...], own: Layer | None) -> Composed:
        found = (self._layers.get(name) for name in _names(placed, groups))
        layers = [layer for layer in (*found, own) if layer is not None]
        return composed(layers, device_classes.load(placed.device_class).config)


def _names(placed: Placed, groups: Iterable[str]) -> Iterator[LayerName]:
    yield FLEET
    yield LayerName(LayerKind.DEVICE_CLASS, placed.device_class)
    for node in placed.path.split(PATH_SEPARATOR) if placed.path else ():
        yield LayerName(LayerKind.ORG_NODE, node)
    for group in groups:
        yield LayerName(LayerKind.GROUP, group)
