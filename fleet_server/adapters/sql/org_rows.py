"""Rows of the organisation: nodes and duty units, as the registry's values and as columns."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from fleet_server.adapters.sql.tables import duty_unit, org_node
from fleet_server.registry import tree
from fleet_server.registry.model import (
    UNITS_MAX,
    DutyUnit,
    FullError,
    HeldUnit,
    NodeKind,
    OrgNode,
    PlacedNode,
    RuleError,
    UnknownError,
)
from fleet_server.registry.store import Imported


def nodes_by_name(connection: Connection) -> dict[str, PlacedNode]:
    return {
        row.node: PlacedNode(OrgNode(row.node, NodeKind(row.kind), row.name, row.parent), row.path, row.revision)
        for row in connection.execute(select(org_node))
    }


def node_columns(placed: PlacedNode) -> dict[str, Any]:
    node = placed.node
    return {
        "node": node.node,
        "kind": str(node.kind),
        "name": node.name,
        "parent": node.parent,
        "path": placed.path,
        "revision": placed.revision,
    }


def check_children(node: OrgNode, held: dict[str, PlacedNode]) -> None:
    """A node that becomes of another kind must still be one that its children may stand below."""
    for placed in held.values():
        if placed.node.parent == node.node and node.kind not in tree.BELOW[placed.node.kind]:
            raise RuleError(f"{placed.node.node} is a {placed.node.kind} and may not stand below a {node.kind}")


def units_by_name(connection: Connection) -> dict[str, HeldUnit]:
    return {
        row.unit: HeldUnit(DutyUnit(row.unit, row.name, row.node), row.revision)
        for row in connection.execute(select(duty_unit))
    }


def put_units(connection: Connection, rows: Sequence[DutyUnit], held: dict[str, HeldUnit]) -> Imported:
    nodes = set(connection.execute(select(org_node.c.node)).scalars())
    created: list[str] = []
    changed: list[str] = []
    for unit in rows:
        before = held.get(unit.unit)
        if before is not None and before.unit == unit:
            continue
        if unit.node is not None and unit.node not in nodes:
            raise UnknownError("node", unit.node)
        columns = {"unit": unit.unit, "name": unit.name, "node": unit.node}
        if before is None:
            created.append(unit.unit)
            connection.execute(insert(duty_unit).values(**columns, revision=1))
        else:
            changed.append(unit.unit)
            where = duty_unit.c.unit == unit.unit
            connection.execute(update(duty_unit).where(where).values(**columns, revision=before.revision + 1))
        held[unit.unit] = HeldUnit(unit, 1 if before is None else before.revision + 1)
    if created and len(held) > UNITS_MAX:
        raise FullError("unit", UNITS_MAX)
    return Imported(tuple(created), tuple(changed), len(rows) - len(created) - len(changed))
