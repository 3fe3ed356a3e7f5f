"""The port :class:`fleet_server.access.people_store.People` in the operator's database."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from broker_config.text import shown
from fleet_server.access.people import (
    FIRST,
    USED_EVERY_MS,
    LastAdministratorError,
    NodeGrant,
    PeopleError,
    Principal,
    SamePersonError,
    TakenTokenError,
    Token,
    UnknownTokenError,
    administers_all,
    check_gift,
    digest,
    is_good,
    needs_second,
    new_secret,
)
from fleet_server.access.people_store import NewToken
from fleet_server.access.roles import EVERYWHERE, PERMISSIONS, Grant, Permission, Role
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import org_node, token_grant
from fleet_server.adapters.sql.tables import token as tokens
from fleet_server.registry.model import UnknownError
from fleet_server.telemetry.store import StoreError

_ADMINISTERS: Final = [str(role) for role, held in PERMISSIONS.items() if Permission.PEOPLE_CHANGE in held]


class SqlPeople:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with database.reading(self._engine) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(shown(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with database.writing(self._engine) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(shown(error)) from error

    def authenticate(self, secret: str, *, now_ms: int) -> Principal | None:
        """See the port."""
        kept = digest(secret)
        if kept is None:
            return None
        with self._reading() as connection:
            row = connection.execute(select(tokens).where(tokens.c.digest == kept)).one_or_none()
            if row is None or not _is_good(row, now_ms):
                return None
            grants = tuple(grant for grant in _placed(connection, row.token) if grant is not None)
        if row.used_ms is None or now_ms - row.used_ms >= USED_EVERY_MS:
            with self._writing() as connection:
                connection.execute(update(tokens).where(tokens.c.token == row.token).values(used_ms=now_ms))
        return Principal(row.token, row.name, grants)

    def tokens(self, *, after: str, rows_max: int) -> Sequence[Token]:
        """See the port."""
        query = select(tokens).where(tokens.c.token > after).order_by(tokens.c.token).limit(rows_max)
        with self._reading() as connection:
            return [_token(connection, row) for row in connection.execute(query).all()]

    def token(self, token: str) -> Token | None:
        """See the port."""
        with self._reading() as connection:
            row = connection.execute(select(tokens).where(tokens.c.token == token)).one_or_none()
            return None if row is None else _token(connection, row)

    def make_token(
        self,
        token: str,
        name: str,
        grants: Sequence[NodeGrant],
        *,
        giver: Principal,
        expires_ms: int | None,
        now_ms: int,
    ) -> NewToken:
        """See the port."""
        secret = new_secret()
        with self._writing() as connection:
            if connection.execute(select(tokens.c.token).where(tokens.c.token == token)).one_or_none() is not None:
                raise TakenTokenError(f"there is a token {token} already")
            placed = [_place(connection, grant) for grant in grants]
            check_gift(giver, placed)
            pending = needs_second(placed, len(_administrators(connection, now_ms)))
            row = _columns(token, name, secret, giver.holder, now_ms)
            connection.execute(insert(tokens).values({**row, "pending": pending, "expires_ms": expires_ms}))
            _insert_grants(connection, token, grants)
            made = connection.execute(select(tokens).where(tokens.c.token == token)).one()
            return NewToken(_token(connection, made), secret)

    def approve(self, token: str, *, approver: Principal) -> Token:
        """See the port."""
        with self._writing() as connection:
            row = _row(connection, token)
            check_gift(approver, _held(connection, token))
            if row.pending:
                if row.made_by == approver.holder:
                    raise SamePersonError(f"{token} was made by {approver.holder}; another administrator must agree")
                approved = {"pending": False, "approved_by": approver.holder}
                connection.execute(update(tokens).where(tokens.c.token == token).values(approved))
            return _token(connection, _row(connection, token))

    def revoke(self, token: str, *, giver: Principal, now_ms: int) -> Token:
        """See the port."""
        with self._writing() as connection:
            row = _row(connection, token)
            check_gift(giver, _held(connection, token))
            if row.revoked_ms is None:
                if _administrators(connection, now_ms) == {token}:
                    raise LastAdministratorError(f"{token} is the last that administers the fleet")
                connection.execute(update(tokens).where(tokens.c.token == token).values(revoked_ms=now_ms))
            return _token(connection, _row(connection, token))

    def ensure_first(self, secret: str, *, now_ms: int) -> bool:
        """See the port. The id is taken with a number if an earlier first administrator has it."""
        kept = digest(secret)
        if kept is None:
            raise PeopleError("the administrator's token: expected ff_ and 43 characters of base64url")
        with self._writing() as connection:
            if _administrators(connection, now_ms):
                return False
            if connection.execute(select(tokens.c.token).where(tokens.c.digest == kept)).one_or_none() is not None:
                raise PeopleError("the administrator's token was revoked or has run out; put a new one into its file")
            taken = len(connection.execute(select(tokens.c.token).where(tokens.c.token.startswith(FIRST))).all())
            name = FIRST if not taken else f"{FIRST}-{taken + 1}"
            connection.execute(insert(tokens).values(_columns(name, "made by init", secret, "_server", now_ms)))
            _insert_grants(connection, name, [NodeGrant(Role.ADMINISTRATOR, None)])
        return True


def _columns(token: str, name: str, secret: str, made_by: str, now_ms: int) -> dict[str, Any]:
    kept = digest(secret)
    assert kept is not None
    row = {"token": token, "name": name, "digest": kept, "made_by": made_by, "created_ms": now_ms}
    return {**row, "pending": False, "approved_by": None, "expires_ms": None, "used_ms": None, "revoked_ms": None}


def _insert_grants(connection: Connection, token: str, grants: Sequence[NodeGrant]) -> None:
    rows = [{"token": token, "role": str(grant.role), "node": grant.node or ""} for grant in dict.fromkeys(grants)]
    if rows:
        connection.execute(insert(token_grant), rows)


def _row(connection: Connection, token: str) -> Row[Any]:
    row = connection.execute(select(tokens).where(tokens.c.token == token)).one_or_none()
    if row is None:
        raise UnknownTokenError(f"there is no token {token}")
    return row


def _is_good(row: Row[Any], now_ms: int) -> bool:
    return is_good(pending=row.pending, expires_ms=row.expires_ms, revoked_ms=row.revoked_ms, now_ms=now_ms)


def _place(connection: Connection, grant: NodeGrant) -> Grant:
    if grant.node is None:
        return Grant(grant.role, EVERYWHERE)
    path = connection.execute(select(org_node.c.path).where(org_node.c.node == grant.node)).scalar_one_or_none()
    if path is None:
        raise UnknownError("node", grant.node)
    return Grant(grant.role, path)


def _placed(connection: Connection, token: str) -> Iterator[Grant | None]:
    """Each grant at its node's path of now; None where the node is gone, which grants nothing."""
    query = (
        select(token_grant.c.role, token_grant.c.node, org_node.c.path)
        .outerjoin(org_node, org_node.c.node == token_grant.c.node)
        .where(token_grant.c.token == token)
        .order_by(token_grant.c.role, token_grant.c.node)
    )
    for role, node, path in connection.execute(query):
        if node == "":
            yield Grant(Role(role), EVERYWHERE)
        else:
            yield None if path is None else Grant(Role(role), path)


def _held(connection: Connection, token: str) -> list[Grant]:
    placed = list(_placed(connection, token))
    if None in placed:
        # nobody below the top can tell whose it was
        return [Grant(Role.ADMINISTRATOR, EVERYWHERE)]
    return [grant for grant in placed if grant is not None]


def _administrators(connection: Connection, now_ms: int) -> set[str]:
    query = (
        select(tokens)
        .join(token_grant, token_grant.c.token == tokens.c.token)
        .where(token_grant.c.role.in_(_ADMINISTERS), token_grant.c.node == "")
    )
    return {
        row.token
        for row in connection.execute(query).all()
        if _is_good(row, now_ms) and administers_all(_held(connection, row.token))
    }


def _token(connection: Connection, row: Row[Any]) -> Token:
    query = select(token_grant.c.role, token_grant.c.node).where(token_grant.c.token == row.token)
    grants = sorted((Role(role), node) for role, node in connection.execute(query))
    return Token(
        row.token,
        row.name,
        tuple(NodeGrant(role, node or None) for role, node in grants),
        row.made_by,
        row.approved_by,
        row.pending,
        row.created_ms,
        row.expires_ms,
        row.used_ms,
        row.revoked_ms,
    )
