"""The port :class:`fleet_server.access.people_store.People` in the operator's database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from fleet_server.access.people import (
    FIRST,
    TOKENS_MAX,
    USED_EVERY_MS,
    LastAdministratorError,
    NodeGrant,
    PeopleError,
    Principal,
    SamePersonError,
    TakenTokenError,
    Token,
    TooManyTokensError,
    UnknownTokenError,
    check_gift,
    digest,
    is_good,
    needs_second,
    new_secret,
)
from fleet_server.access.people_store import NewToken
from fleet_server.access.roles import Role
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.grants import OF_TOKENS, administrators, changing, place
from fleet_server.adapters.sql.tables import token as tokens


class SqlPeople:
    """See the port."""

    def __init__(self, engine: Engine, *, persons: bool = False) -> None:
        """Of a database that is migrated. *persons*: they can sign in, and so one may be an administrator."""
        self._engine = engine
        self._persons = persons

    def _administrators(self, connection: Connection, now_ms: int, *, lasting: bool) -> set[str]:
        return administrators(connection, now_ms, persons=self._persons, lasting=lasting)

    def authenticate(self, secret: str, *, now_ms: int) -> Principal | None:
        """See the port."""
        kept = digest(secret)
        if kept is None:
            return None
        with database.reading(self._engine) as connection:
            row = connection.execute(select(tokens).where(tokens.c.digest == kept)).one_or_none()
            if row is None or not _is_good(row, now_ms):
                return None
            grants = OF_TOKENS.good(connection, row.token)
        if row.used_ms is None or now_ms - row.used_ms >= USED_EVERY_MS:
            with database.writing(self._engine) as connection:
                connection.execute(update(tokens).where(tokens.c.token == row.token).values(used_ms=now_ms))
        return Principal(row.token, row.name, grants)

    def tokens(self, *, after: str, rows_max: int) -> Sequence[Token]:
        """See the port."""
        query = select(tokens).where(tokens.c.token > after).order_by(tokens.c.token).limit(rows_max)
        with database.reading(self._engine) as connection:
            return [_token(connection, row) for row in connection.execute(query).all()]

    def token(self, token: str) -> Token | None:
        """See the port."""
        with database.reading(self._engine) as connection:
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
        with changing(self._engine) as connection:
            if connection.execute(select(tokens.c.token).where(tokens.c.token == token)).one_or_none() is not None:
                raise TakenTokenError(f"there is a token {token} already")
            _check_room(connection, now_ms)
            placed = [place(connection, grant) for grant in grants]
            check_gift(giver, placed)
            pending = needs_second(placed, len(self._administrators(connection, now_ms, lasting=False)))
            row = _columns(token, name, secret, giver.holder, now_ms)
            connection.execute(insert(tokens).values({**row, "pending": pending, "expires_ms": expires_ms}))
            OF_TOKENS.insert(connection, token, grants)
            made = connection.execute(select(tokens).where(tokens.c.token == token)).one()
            return NewToken(_token(connection, made), secret)

    def approve(self, token: str, *, approver: Principal) -> Token:
        """See the port."""
        with changing(self._engine) as connection:
            row = _row(connection, token)
            check_gift(approver, OF_TOKENS.held(connection, token))
            if row.pending:
                if row.made_by == approver.holder:
                    raise SamePersonError(f"{token} was made by {approver.holder}; another administrator must agree")
                approved = {"pending": False, "approved_by": approver.holder}
                connection.execute(update(tokens).where(tokens.c.token == token).values(approved))
            return _token(connection, _row(connection, token))

    def revoke(self, token: str, *, giver: Principal, now_ms: int) -> Token:
        """See the port."""
        with changing(self._engine) as connection:
            row = _row(connection, token)
            check_gift(giver, OF_TOKENS.held(connection, token))
            if row.revoked_ms is None:
                if self._administrators(connection, now_ms, lasting=True) == {token}:
                    raise LastAdministratorError(f"{token} is the last that administers the fleet")
                connection.execute(update(tokens).where(tokens.c.token == token).values(revoked_ms=now_ms))
            return _token(connection, _row(connection, token))

    def ensure_first(self, secret: str, *, now_ms: int) -> bool:
        """See the port. The id is taken with a number if an earlier first administrator has it."""
        kept = digest(secret)
        if kept is None:
            raise PeopleError("the administrator's token: expected ff_ and 43 characters of base64url")
        with changing(self._engine) as connection:
            if self._administrators(connection, now_ms, lasting=True):
                return False
            if connection.execute(select(tokens.c.token).where(tokens.c.digest == kept)).one_or_none() is not None:
                raise PeopleError("the administrator's token was revoked or has run out; put a new one into its file")
            taken = set(connection.execute(select(tokens.c.token).where(tokens.c.token.startswith(FIRST))).scalars())
            # one more than are taken, so that one is free
            names = (FIRST, *(f"{FIRST}-{number}" for number in range(2, len(taken) + 2)))
            name = next(each for each in names if each not in taken)
            connection.execute(insert(tokens).values(_columns(name, "made by init", secret, "_server", now_ms)))
            OF_TOKENS.insert(connection, name, [NodeGrant(Role.ADMINISTRATOR, None)])
        return True


def _columns(token: str, name: str, secret: str, made_by: str, now_ms: int) -> dict[str, Any]:
    kept = digest(secret)
    assert kept is not None
    row = {"token": token, "name": name, "digest": kept, "made_by": made_by, "created_ms": now_ms}
    return {**row, "pending": False, "approved_by": None, "expires_ms": None, "used_ms": None, "revoked_ms": None}


def _check_room(connection: Connection, now_ms: int) -> None:
    living = tokens.c.revoked_ms.is_(None) & (tokens.c.expires_ms.is_(None) | (tokens.c.expires_ms > now_ms))
    if connection.execute(select(func.count()).select_from(tokens).where(living)).scalar_one() >= TOKENS_MAX:
        raise TooManyTokensError(f"expected at most {TOKENS_MAX} tokens that are good; revoke one first")


def _row(connection: Connection, token: str) -> Row[Any]:
    row = connection.execute(select(tokens).where(tokens.c.token == token)).one_or_none()
    if row is None:
        raise UnknownTokenError(f"there is no token {token}")
    return row


def _is_good(row: Row[Any], now_ms: int) -> bool:
    return is_good(pending=row.pending, expires_ms=row.expires_ms, revoked_ms=row.revoked_ms, now_ms=now_ms)


def _token(connection: Connection, row: Row[Any]) -> Token:
    return Token(
        row.token,
        row.name,
        OF_TOKENS.listed(connection, row.token),
        row.made_by,
        row.approved_by,
        row.pending,
        row.created_ms,
        row.expires_ms,
        row.used_ms,
        row.revoked_ms,
    )
