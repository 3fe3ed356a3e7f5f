"""Topics and filters as a tree of levels: which filters cover a topic, and which topics a filter covers.

Agrees with :func:`broker_config.topics.matches` on every valid filter and topic.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

V = TypeVar("V")
ONE: Final = "+"
REST: Final = "#"


class _Node(Generic[V]):
    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.value: V | None = None


class Tree(Generic[V]):
    """A value for each path; its depth is bounded by whoever puts paths in."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def put(self, path: str, value: V) -> None:
        """Set the value at *path*, a topic or a valid filter."""
        node = self._root
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        node.value = value

    def get(self, path: str) -> V | None:
        """The value at exactly *path*."""
        node = self._root
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                return None
            node = child
        return node.value

    def remove(self, path: str) -> None:
        """Forget *path* and the levels that led to nothing else."""
        trail: list[tuple[_Node[V], str]] = []
        node = self._root
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                return
            trail.append((node, level))
            node = child
        node.value = None
        for parent, level in reversed(trail):
            child = parent.children[level]
            if child.value is not None or child.children:
                return
            del parent.children[level]

    def covering(self, topic: str) -> list[V]:
        """The values of the filters that cover *topic*; ``$`` topics only by their own name."""
        found: list[V] = []
        here = [self._root]
        wild = not topic.startswith("$")
        for level in topic.split("/"):
            below: list[_Node[V]] = []
            for node in here:
                children = node.children
                if (child := children.get(level)) is not None:
                    below.append(child)
                if wild:
                    if (child := children.get(ONE)) is not None:
                        below.append(child)
                    if (child := children.get(REST)) is not None and child.value is not None:
                        found.append(child.value)
            wild = True
            if not below:
                return found
            here = below
        for node in here:
            if node.value is not None:
                found.append(node.value)
            if (child := node.children.get(REST)) is not None and child.value is not None:
                found.append(child.value)  # "a/#" covers "a" too
        return found

    def covered(self, pattern: str) -> list[V]:
        """The values of the topics that *pattern* covers."""
        here = [self._root]
        for at, level in enumerate(pattern.split("/")):
            if level == REST:
                return [value for node in here for value in _values(node, hide_dollar=at == 0)]
            if level == ONE:
                here = [
                    child
                    for node in here
                    for name, child in node.children.items()
                    if at > 0 or not name.startswith("$")
                ]
            else:
                here = [child for node in here if (child := node.children.get(level)) is not None]
        return [node.value for node in here if node.value is not None]

    def __bool__(self) -> bool:
        return bool(self._root.children)


def _values(top: _Node[V], *, hide_dollar: bool) -> Iterator[V]:
    if top.value is not None:
        yield top.value
    waiting = [child for name, child in top.children.items() if not (hide_dollar and name.startswith("$"))]
    while waiting:
        node = waiting.pop()
        if node.value is not None:
            yield node.value
        waiting.extend(node.children.values())
