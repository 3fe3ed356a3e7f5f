"""Who may do what where: permissions, the roles that hold them, and grants at nodes of the organisation. Pure.

A grant at a node holds for everything below it; nothing takes a permission away again. What has no place in the
organisation belongs to who has the permission everywhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet_server.registry.tree import is_below

EVERYWHERE: Final = ""
"""The path of a grant that holds for all."""


class Permission(StrEnum):
    """What a route asks for; ``resource:action``."""

    FLEET_READ = "fleet:read"
    REGISTRY_CHANGE = "registry:change"
    QUARANTINE_READ = "quarantine:read"
    QUARANTINE_REPLAY = "quarantine:replay"
    SERVER_READ = "server:read"
    SERIES_REBUILD = "series:rebuild"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_CHANGE = "webhooks:change"
    AUDIT_READ = "audit:read"
    PEOPLE_READ = "people:read"
    PEOPLE_CHANGE = "people:change"
    DEVICES_ENROL = "devices:enrol"
    DEVICES_REVOKE = "devices:revoke"
    RELEASES_CHANGE = "releases:change"
    ASSIGNMENTS_READ = "assignments:read"
    ASSIGNMENTS_CHANGE = "assignments:change"
    CONFIG_CHANGE = "config:change"
    COMMANDS_SEND = "commands:send"
    COMMANDS_APPROVE = "commands:approve"
    EVIDENCE_LIST = "evidence:list"
    EVIDENCE_READ = "evidence:read"
    EVIDENCE_CHANGE = "evidence:change"
    EVIDENCE_DELETE = "evidence:delete"
    EVIDENCE_RETENTION = "evidence:retention"
    EVIDENCE_SCRUB = "evidence:scrub"
    ITEMS_CHANGE = "items:change"
    DISPATCHES_CHANGE = "dispatches:change"
    DISPATCHES_EXPLAIN = "dispatches:explain"


class Role(StrEnum):
    """What people are to the fleet."""

    VIEWER = "viewer"
    EVIDENCE_REVIEWER = "evidence_reviewer"
    EQUIPMENT_MANAGER = "equipment_manager"
    RELEASE_MANAGER = "release_manager"
    ADMINISTRATOR = "administrator"


P = Permission
_VIEWER: Final = frozenset({P.FLEET_READ})
PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.VIEWER: _VIEWER,
    # who had what is not everybody's who sees equipment
    Role.EVIDENCE_REVIEWER: _VIEWER
    | {
        P.ASSIGNMENTS_READ,
        P.EVIDENCE_LIST,
        P.EVIDENCE_READ,
        P.EVIDENCE_CHANGE,
        P.EVIDENCE_DELETE,
        P.ITEMS_CHANGE,
        P.DISPATCHES_EXPLAIN,
    },
    Role.EQUIPMENT_MANAGER: _VIEWER
    | {
        P.REGISTRY_CHANGE,
        P.QUARANTINE_READ,
        P.QUARANTINE_REPLAY,
        P.DEVICES_ENROL,
        P.DEVICES_REVOKE,
        P.COMMANDS_SEND,
        P.COMMANDS_APPROVE,
        P.ASSIGNMENTS_READ,
        P.ASSIGNMENTS_CHANGE,
        P.CONFIG_CHANGE,
    },
    Role.RELEASE_MANAGER: _VIEWER | {P.RELEASES_CHANGE},
    # reviews no evidence: who can change the system is not who judges by it; but sees what there is, and can be the
    # second person where something is to be deleted; and who enters dispatches explains none
    Role.ADMINISTRATOR: frozenset(Permission)
    - {P.EVIDENCE_READ, P.EVIDENCE_CHANGE, P.ITEMS_CHANGE, P.DISPATCHES_EXPLAIN},
}


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """*role* at the node of *path* and below; :data:`EVERYWHERE` is all."""

    role: Role
    path: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Where somebody may do one thing: at these nodes and below. Empty is nowhere."""

    paths: tuple[str, ...]

    @property
    def everywhere(self) -> bool:
        """Whether nothing is outside."""
        return EVERYWHERE in self.paths

    @property
    def nowhere(self) -> bool:
        """Whether everything is."""
        return not self.paths

    def covers(self, path: str) -> bool:
        """Whether what belongs at *path* is within; an empty path is no place."""
        return self.everywhere or (path != "" and any(is_below(path, top) for top in self.paths))


ALL: Final = Scope((EVERYWHERE,))
NOWHERE: Final = Scope(())


def scope_of(grants: Iterable[Grant], permission: Permission) -> Scope:
    """Where *grants* together allow *permission*; what stands below another of them is left out."""
    paths = sorted({grant.path for grant in grants if permission in PERMISSIONS[grant.role]})
    if EVERYWHERE in paths:
        return ALL
    return Scope(tuple(path for path in paths if not any(path != top and is_below(path, top) for top in paths)))
