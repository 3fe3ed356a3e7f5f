"""Imports a library without those of its modules that this product never calls, for the memory that they take."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class _LeftOut(ModuleType):
    """Has every name, for who only imports it, annotates with it or derives from it."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})  # of its own each: they are not to be taken for one another


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """Within the block modules *names* are empty, but for those that are loaded already. Whoever imports one after it
    gets the real one; who did within it has an empty one for ever.
    """
    empty = [name for name in names if name not in sys.modules]
    sys.modules.update({name: _LeftOut(name) for name in empty})
    try:
        yield
    finally:
        for name in empty:
            del sys.modules[name]
