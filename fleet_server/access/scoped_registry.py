"""The registry as somebody sees it who may only act at some nodes: what is elsewhere is not there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from fleet_server.access.roles import Scope
from fleet_server.registry.model import (
    BeyondError,
    Device,
    DeviceFilter,
    DutyUnit,
    HeldUnit,
    OrgNode,
    PlacedNode,
    Registration,
    TakenError,
    Tally,
    UnknownError,
)
from fleet_server.registry.store import Imported, Registry


class ScopedRegistry:
    """A :class:`fleet_server.registry.store.Registry`; *scope* is asked at each call."""

    def __init__(self, inner: Registry, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._scope = scope

    # devices

    def device(self, device: str) -> Device | None:
        """See the port."""
        found = self._inner.device(device)
        return found if found is not None and self._scope().covers(found.path) else None

    def devices(self, wanted: DeviceFilter, *, after: str, rows_max: int) -> Sequence[Device]:
        """See the port."""
        scope = self._scope()
        within = None if scope.everywhere else scope.paths
        return self._inner.devices(replace(wanted, within=within), after=after, rows_max=rows_max)

    def tallies(self) -> Sequence[Tally]:
        """See the port."""
        scope = self._scope()
        return [tally for tally in self._inner.tallies() if scope.covers(tally.path)]

    def register(self, registration: Registration, *, expected: int | None, create: bool, now_ms: int) -> Device:
        """See the port. Raises BeyondError too: it would be where they may not act."""
        self._own(registration.device, create=create)
        self._check_place(registration.node, f"{registration.device} without a place")
        self._check_unit(registration.unit)
        return self._inner.register(registration, expected=expected, create=create, now_ms=now_ms)

    def forget(self, device: str, *, expected: int | None, now_ms: int) -> None:
        """See the port."""
        self._own(device, create=False)
        self._inner.forget(device, expected=expected, now_ms=now_ms)

    def import_devices(self, rows: Sequence[Registration], *, now_ms: int, dry_run: bool) -> Imported:
        """See the port; for who may everywhere."""
        self._check_everywhere("import")
        return self._inner.import_devices(rows, now_ms=now_ms, dry_run=dry_run)

    # the organisation

    def nodes(self) -> Sequence[PlacedNode]:
        """See the port."""
        scope = self._scope()
        return [placed for placed in self._inner.nodes() if scope.covers(placed.path)]

    def put_node(self, node: OrgNode, *, expected: int | None, create: bool, now_ms: int) -> PlacedNode:
        """See the port. Raises BeyondError too: at the root, or what somebody is granted themselves."""
        held = {placed.node.node: placed for placed in self._inner.nodes()}
        there, scope = held.get(node.node), self._scope()
        if there is not None and not scope.covers(there.path):
            _elsewhere("node", node.node, create=create)
        if there is None or there.node.parent != node.parent:
            self._check_place(node.parent, f"{node.node} at the root")
            if there is not None and there.path in scope.paths:
                raise BeyondError(f"{node.node} is the top of what you may change: who may above it can move it")
        return self._inner.put_node(node, expected=expected, create=create, now_ms=now_ms)

    def drop_node(self, node: str, *, expected: int | None) -> None:
        """See the port."""
        self._check_place(node, node)
        self._inner.drop_node(node, expected=expected)

    def import_nodes(self, rows: Sequence[OrgNode], *, now_ms: int, dry_run: bool) -> Imported:
        """See the port; for who may everywhere."""
        self._check_everywhere("import")
        return self._inner.import_nodes(rows, now_ms=now_ms, dry_run=dry_run)

    # duty units

    def units(self) -> Sequence[HeldUnit]:
        """See the port. A unit without a node is everybody's to see only who may everywhere."""
        if self._scope().everywhere:
            return self._inner.units()
        here = {placed.node.node for placed in self.nodes()}
        return [held for held in self._inner.units() if held.unit.node in here]

    def put_unit(self, unit: DutyUnit, *, expected: int | None, create: bool) -> HeldUnit:
        """See the port."""
        known = {held.unit.unit for held in self._inner.units()}
        if unit.unit in known and unit.unit not in {held.unit.unit for held in self.units()}:
            _elsewhere("unit", unit.unit, create=create)
        self._check_place(unit.node, f"{unit.unit} without a node")
        return self._inner.put_unit(unit, expected=expected, create=create)

    def drop_unit(self, unit: str, *, expected: int | None) -> None:
        """See the port."""
        self._check_unit(unit)
        self._inner.drop_unit(unit, expected=expected)

    def import_units(self, rows: Sequence[DutyUnit], *, dry_run: bool) -> Imported:
        """See the port; for who may everywhere."""
        self._check_everywhere("import")
        return self._inner.import_units(rows, dry_run=dry_run)

    # what is theirs

    def _own(self, device: str, *, create: bool) -> None:
        found = self._inner.device(device)
        if found is not None and not self._scope().covers(found.path):
            _elsewhere("device", device, create=create)

    def _check_place(self, node: str | None, what: str) -> None:
        scope = self._scope()
        if scope.everywhere:
            return
        if node is None:
            raise BeyondError(f"{what}: only who may act everywhere")
        if node not in {placed.node.node for placed in self.nodes()}:
            raise UnknownError("node", node)

    def _check_unit(self, unit: str | None) -> None:
        if unit is not None and unit not in {held.unit.unit for held in self.units()}:
            raise UnknownError("unit", unit)

    def _check_everywhere(self, what: str) -> None:
        if not self._scope().everywhere:
            raise BeyondError(f"{what}: only who may act everywhere")


def _elsewhere(what: str, name: str, *, create: bool) -> NoReturn:
    if create:
        raise TakenError(f"the {what} {name} is another's")
    raise UnknownError(what, name)
