"""Twins, layers and groups as somebody sees them who may only act at some nodes.

A layer for an organisation node is theirs where the node is; a device's own layer and its twin where the device is.
What is for the whole fleet or for a class is seen by all, and changed by who may act everywhere; so is a group, whose
members may be anywhere, and only they see it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from fleet_server.access.roles import Scope
from fleet_server.change.circumstances import Circumstances, CircumstancesOf
from fleet_server.change.composing import Composer, Difference
from fleet_server.change.layers import Group, Layer, LayerDocument, LayerKind, LayerName
from fleet_server.change.store import LayerStore, Revised, TwinStore
from fleet_server.change.twins import Aim, Report, Twin
from fleet_server.registry.model import BeyondError, UnknownError
from fleet_server.registry.store import Registry

SEEN: frozenset[LayerKind] = frozenset({LayerKind.FLEET, LayerKind.DEVICE_CLASS})
"""By all."""


class ScopedCircumstances:
    """A :class:`fleet_server.change.circumstances.CircumstancesOf`; to whom a device was given is told to who may
    know that there. *may_know*: where they may.
    """

    def __init__(self, inner: CircumstancesOf, may_know: Callable[[], Scope]) -> None:
        self._inner = inner
        self._may_know = may_know

    def __call__(self, device: str, at_ms: int) -> Circumstances:
        """See the port."""
        found = self._inner(device, at_ms)
        if found.given is None or self._may_know().covers(found.given.path):
            return found
        return found._replace(given=None)


class ScopedTwins:
    """What may be read of twins; *registry*: as it is for who acts. Every call raises UnknownError."""

    def __init__(self, inner: TwinStore, registry: Registry) -> None:
        self._inner = inner
        self._registry = registry

    def twin(self, device: str) -> Twin:
        """See the port."""
        self._check(device)
        return self._inner.twin(device)

    def at(self, device: str, at_ms: int) -> Twin:
        """See the port."""
        self._check(device)
        return self._inner.at(device, at_ms)

    def desired_history(self, device: str, *, before: int | None, rows_max: int) -> Sequence[Aim]:
        """See the port."""
        self._check(device)
        return self._inner.desired_history(device, before=before, rows_max=rows_max)

    def reported_history(self, device: str, *, before: int | None, rows_max: int) -> Sequence[Report]:
        """See the port."""
        self._check(device)
        return self._inner.reported_history(device, before=before, rows_max=rows_max)

    def _check(self, device: str) -> None:
        if self._registry.device(device) is None:
            raise UnknownError("device", device)


class ScopedLayers:
    """What may be read and changed of layers and groups. Every call raises UnknownError: it is not there for them;
    each change raises BeyondError: it is not theirs to do.
    """

    def __init__(self, inner: LayerStore, composer: Composer, registry: Registry, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._composer = composer
        self._registry = registry
        self._scope = scope

    def layer(self, name: LayerName) -> Layer | None:
        """See the port."""
        self._check(name)
        return self._inner.layer(name)

    def all_layers(self) -> list[Layer]:
        """See the port; those that they see."""
        layers = self._inner.all_layers()
        if self._scope().everywhere:
            return list(layers)
        nodes = {placed.node.node for placed in self._registry.nodes()}
        return [
            layer
            for layer in layers
            if layer.name.kind in SEEN or (layer.name.kind is LayerKind.ORG_NODE and layer.name.name in nodes)
        ]

    def put_layer(self, name: LayerName, document: LayerDocument, *, expected: int | None, by: str) -> Layer:
        """See :meth:`fleet_server.change.composing.Composer.put_layer`."""
        self._own(name)
        return self._composer.put_layer(name, document, expected=expected, by=by)

    def if_layer(self, name: LayerName, document: LayerDocument) -> Iterator[Difference]:
        """See the composer."""
        self._own(name)
        return self._composer.if_layer(name, document)

    def groups(self) -> Sequence[Group]:
        """See the port."""
        return self._inner.groups() if self._scope().everywhere else []

    def group(self, group: str) -> Group:
        """See the port."""
        found = self._inner.group(group) if self._scope().everywhere else None
        if found is None:
            raise UnknownError("group", group)
        return found

    def put_group(
        self, group: str, priority: int, members: Iterable[str], *, expected: int | None, by: str
    ) -> Revised:
        """See the composer."""
        self._everywhere("groups are")
        return self._composer.put_group(group, priority, members, expected=expected, by=by)

    def if_group(self, group: Group) -> Iterator[Difference]:
        """See the composer."""
        self._everywhere("groups are")
        return self._composer.if_group(group)

    def drop_group(self, group: str, *, expected: int | None, by: str) -> None:
        """See the composer."""
        self._everywhere("groups are")
        self.group(group)
        self._composer.drop_group(group, expected=expected, by=by)

    def strangers(self, devices: Sequence[str]) -> list[str]:
        """Those that the registry does not know."""
        self._everywhere("groups are")
        return self._composer.strangers(devices)

    def _own(self, name: LayerName) -> None:
        self._check(name)
        if name.kind not in {LayerKind.ORG_NODE, LayerKind.DEVICE}:
            self._everywhere("settings for more than an organisation node are")

    def _check(self, name: LayerName) -> None:
        if not self._sees(name):
            raise UnknownError(name.kind.value, name.name)

    def _sees(self, name: LayerName) -> bool:
        match name.kind:
            case LayerKind.ORG_NODE:
                return name.name in {placed.node.node for placed in self._registry.nodes()}
            case LayerKind.DEVICE:
                return self._registry.device(name.name) is not None
            case LayerKind.GROUP:
                return self._scope().everywhere and self._inner.group(name.name) is not None
            case _:
                return True

    def _everywhere(self, what: str) -> None:
        if not self._scope().everywhere:
            raise BeyondError(f"{what} for who may act everywhere")
