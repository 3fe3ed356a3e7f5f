"""Grants of tokens and of persons: one way to keep both, and who of both administers the fleet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, delete, insert, or_, select

from fleet_server.access.people import NodeGrant
from fleet_server.access.persons import holder_of
from fleet_server.access.roles import EVERYWHERE, PERMISSIONS, Grant, Permission, Role
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import org_node, person, person_grant, token, token_grant
from fleet_server.registry.model import UnknownError

PEOPLE_LOCK: Final = 0x6666_7070
_ADMINISTERS: Final = [str(role) for role, held in PERMISSIONS.items() if Permission.PEOPLE_CHANGE in held]


@dataclass(frozen=True, slots=True)
class GrantTable:
    """The rows of *table* whose other columns are *fixed*, by the holder's id in column *key*."""

    table: Table
    key: str
    fixed: Mapping[str, str] = field(default_factory=dict)

    def listed(self, connection: Connection, holder: str) -> tuple[NodeGrant, ...]:
        """As people say them, in their order."""
        query = select(self.table.c.role, self.table.c.node).where(self._of(holder))
        grants = sorted((Role(role), node) for role, node in connection.execute(query))
        return tuple(NodeGrant(role, node or None) for role, node in grants)

    def good(self, connection: Connection, holder: str) -> tuple[Grant, ...]:
        """At the paths of now; what is for a node that is gone grants nothing."""
        return tuple(grant for grant in self._placed(connection, holder) if grant is not None)

    def held(self, connection: Connection, holder: str) -> list[Grant]:
        """What somebody must be able to give who takes it away."""
        placed = list(self._placed(connection, holder))
        if None in placed:
            # nobody below the top can tell whose it was
            return [Grant(Role.ADMINISTRATOR, EVERYWHERE)]
        return [grant for grant in placed if grant is not None]

    def insert(self, connection: Connection, holder: str, grants: Sequence[NodeGrant]) -> None:
        """Add them."""
        rows = [
            {self.key: holder, "role": str(each.role), "node": each.node or "", **self.fixed}
            for each in dict.fromkeys(grants)
        ]
        if rows:
            connection.execute(insert(self.table), rows)

    def replace(self, connection: Connection, holder: str, grants: Sequence[NodeGrant]) -> None:
        """Have these and no others."""
        connection.execute(delete(self.table).where(self._of(holder)))
        self.insert(connection, holder, grants)

    def administering(self) -> ColumnElement[bool]:
        """Of a row: it administers the whole fleet."""
        return and_(self.table.c.role.in_(_ADMINISTERS), self.table.c.node == "", *self._fixed())

    def _placed(self, connection: Connection, holder: str) -> Iterator[Grant | None]:
        """Each at its node's path of now; None where the node is gone."""
        table = self.table
        query = (
            select(table.c.role, table.c.node, org_node.c.path)
            .outerjoin(org_node, org_node.c.node == table.c.node)
            .where(self._of(holder))
            .order_by(table.c.role, table.c.node)
        )
        for role, node, path in connection.execute(query):
            if node == "":
                yield Grant(Role(role), EVERYWHERE)
            else:
                yield None if path is None else Grant(Role(role), path)

    def _of(self, holder: str) -> ColumnElement[bool]:
        return and_(self.table.c[self.key] == holder, *self._fixed())

    def _fixed(self) -> list[ColumnElement[bool]]:
        return [self.table.c[name] == value for name, value in self.fixed.items()]


OF_TOKENS: Final = GrantTable(token_grant, "token")
BY_HAND: Final = GrantTable(person_grant, "person", {"given": "hand"})
BY_GROUP: Final = GrantTable(person_grant, "person", {"given": "group"})
PROPOSED: Final = GrantTable(person_grant, "person", {"given": "proposed"})


def place(connection: Connection, grant: NodeGrant) -> Grant:
    """A grant at its node's path. Raises UnknownError: there is no such node."""
    if grant.node is None:
        return Grant(grant.role, EVERYWHERE)
    path = connection.execute(select(org_node.c.path).where(org_node.c.node == grant.node)).scalar_one_or_none()
    if path is None:
        raise UnknownError("node", grant.node)
    return Grant(grant.role, path)


def administrators(connection: Connection, now_ms: int, *, persons: bool, lasting: bool) -> set[str]:
    """Holders who can administer the whole fleet now; *persons*: of those who sign in, too.

    *lasting*: without persons who only do by a group, which the provider may take away at any time.
    """
    good = (token.c.pending.is_(False), token.c.revoked_ms.is_(None))
    in_time = or_(token.c.expires_ms.is_(None), token.c.expires_ms > now_ms)
    query = select(token.c.token).join(token_grant, token_grant.c.token == token.c.token)
    found = set(connection.execute(query.where(OF_TOKENS.administering(), *good, in_time)).scalars())
    if persons:
        given = BY_HAND.administering() if lasting else or_(BY_HAND.administering(), BY_GROUP.administering())
        query = select(person.c.person).join(person_grant, person_grant.c.person == person.c.person)
        found |= {
            holder_of(each)
            for each in connection.execute(query.where(given, person.c.disabled_ms.is_(None))).scalars()
        }
    return found


@contextmanager
def changing(engine: Engine) -> Iterator[Connection]:
    """A transaction after another: two that each take away one of the last two administrators must see each other."""
    with database.writing(engine, lock=PEOPLE_LOCK) as connection:
        yield connection
