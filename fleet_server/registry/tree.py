"""The rules of the organisation tree: what may stand below what, and what a node's path is. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from fleet_server.registry.model import (
    DEPTH_MAX,
    PATH_SEPARATOR,
    NodeKind,
    OrgNode,
    PlacedNode,
    RuleError,
    UnknownError,
)

BELOW: Final[Mapping[NodeKind, frozenset[NodeKind | None]]] = {
    NodeKind.CENTRE: frozenset({None, NodeKind.CENTRE}),
    NodeKind.STATION: frozenset({NodeKind.CENTRE}),
    NodeKind.POST: frozenset({NodeKind.STATION}),
    NodeKind.PLATFORM: frozenset({NodeKind.CENTRE, NodeKind.STATION}),
}
"""What each kind may stand below; None is the root."""


def path_of(node: OrgNode, placed: Mapping[str, PlacedNode]) -> str:
    """The path that *node* has among *placed* (by name).

    Raises:
        UnknownError: its parent is not there.
        RuleError: it may not stand there, or would stand below itself, or too deep.
    """
    parent = None if node.parent is None else placed.get(node.parent)
    if node.parent is not None and parent is None:
        raise UnknownError("node", node.parent)
    kind = None if parent is None else parent.node.kind
    if kind not in BELOW[node.kind]:
        allowed = " or ".join(
            "the root" if each is None else f"a {each}" for each in sorted(BELOW[node.kind], key=str)
        )
        raise RuleError(
            f"a {node.kind} stands below {allowed}, not below {'the root' if kind is None else f'a {kind}'}"
        )
    if parent is None:
        return node.node
    levels = parent.path.split(PATH_SEPARATOR)
    if node.node in levels:
        raise RuleError(f"{node.node} would stand below itself")
    if len(levels) >= DEPTH_MAX:
        raise RuleError(f"expected at most {DEPTH_MAX} levels, got {len(levels) + 1}")
    return f"{parent.path}{PATH_SEPARATOR}{node.node}"


def moved(old: str, new: str, paths: Iterable[str]) -> dict[str, str]:
    """The new path of each of *paths* that is *old* or below it, once *old* is *new*."""
    return {path: new + path[len(old) :] for path in paths if is_below(path, old)}


def is_below(path: str, top: str) -> bool:
    """Whether *path* is *top* or stands below it."""
    return path == top or path.startswith(top + PATH_SEPARATOR)


def in_order(nodes: Iterable[OrgNode]) -> list[OrgNode]:
    """Parents before their children, whatever order they came in; what hangs on nobody here keeps its place.

    Raises:
        RuleError: they stand below each other in a circle.
    """
    waiting = {node.node: node for node in nodes}
    out: list[OrgNode] = []
    while waiting:
        ready = [node for node in waiting.values() if node.parent not in waiting]
        if not ready:
            raise RuleError(f"{', '.join(sorted(waiting)[:5])}: expected a tree, got a circle")
        for node in ready:
            del waiting[node.node]
        out += ready
    return out
