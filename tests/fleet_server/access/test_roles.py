"""A grant holds at its node and below, and nothing else does."""

import pytest

from fleet_server.access.roles import ALL, NOWHERE, PERMISSIONS, Grant, Permission, Role, Scope, scope_of

MANAGER, VIEWER = Role.EQUIPMENT_MANAGER, Role.VIEWER


@pytest.mark.parametrize(
    ("grants", "permission", "scope"),
    [
        ([], Permission.FLEET_READ, NOWHERE),
        ([Grant(VIEWER, "hq/s1")], Permission.FLEET_READ, Scope(("hq/s1",))),
        ([Grant(VIEWER, "hq/s1")], Permission.REGISTRY_CHANGE, NOWHERE),
        ([Grant(VIEWER, "hq/s1"), Grant(MANAGER, "hq/s2")], Permission.FLEET_READ, Scope(("hq/s1", "hq/s2"))),
        ([Grant(VIEWER, "hq/s1"), Grant(MANAGER, "hq/s2")], Permission.REGISTRY_CHANGE, Scope(("hq/s2",))),
        ([Grant(VIEWER, "hq"), Grant(MANAGER, "hq/s2")], Permission.FLEET_READ, Scope(("hq",))),
        ([Grant(VIEWER, "hq/s1"), Grant(VIEWER, "hq/s10")], Permission.FLEET_READ, Scope(("hq/s1", "hq/s10"))),
        ([Grant(VIEWER, "hq/s1"), Grant(VIEWER, "")], Permission.FLEET_READ, ALL),
    ],
)
def test_where_grants_allow(grants: list[Grant], permission: Permission, scope: Scope) -> None:
    assert scope_of(grants, permission) == scope


@pytest.mark.parametrize(
    ("scope", "path", "covered"),
    [
        (ALL, "hq", True),
        (ALL, "", True),
        (NOWHERE, "hq", False),
        (Scope(("hq/s1",)), "hq/s1", True),
        (Scope(("hq/s1",)), "hq/s1/post-3", True),
        (Scope(("hq/s1",)), "hq/s10", False),
        (Scope(("hq/s1",)), "hq", False),
        (Scope(("hq/s1",)), "", False),  # what has no place belongs to who may everywhere
    ],
)
def test_what_a_scope_covers(scope: Scope, path: str, covered: bool) -> None:
    assert scope.covers(path) is covered


def test_everybody_may_look_and_only_administrators_may_make_administrators() -> None:
    assert all(Permission.FLEET_READ in held for held in PERMISSIONS.values())
    assert [role for role, held in PERMISSIONS.items() if Permission.PEOPLE_CHANGE in held] == [Role.ADMINISTRATOR]


def test_who_can_change_the_system_reviews_no_evidence() -> None:
    assert Permission.EVIDENCE_READ not in PERMISSIONS[Role.ADMINISTRATOR]
