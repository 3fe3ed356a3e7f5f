"""Who acts now, and where they may: set once for a request, before anything of it runs.

The ports that routes stand on ask here at each call (see ``scoped``), so that no handler can forget to. Where nobody
was set, nothing is allowed.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from fleet_server.access.people import Principal
from fleet_server.access.roles import NOWHERE, Scope


@dataclass(frozen=True, slots=True)
class Acting:
    """*principal* does what the request asks for within *scope*."""

    principal: Principal
    scope: Scope


_now: Final[ContextVar[Acting | None]] = ContextVar("acting", default=None)


def begin(acting: Acting) -> None:
    """From here on in this task, and in threads that it starts work in."""
    _now.set(acting)


def acting() -> Acting | None:
    """Who acts, if anybody was set."""
    return _now.get()


def scope() -> Scope:
    """Where they may."""
    found = _now.get()
    return NOWHERE if found is None else found.scope


def principal() -> Principal:
    """Who acts; only where somebody was set."""
    found = _now.get()
    assert found is not None, "nobody acts"
    return found.principal
