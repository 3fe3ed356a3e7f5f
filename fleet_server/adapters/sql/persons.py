"""The port :class:`fleet_server.access.person_store.Persons` in the operator's database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from fleet_server.access.people import (
    USED_EVERY_MS,
    LastAdministratorError,
    NodeGrant,
    PeopleError,
    Principal,
    SamePersonError,
    check_gift,
    needs_second,
)
from fleet_server.access.persons import (
    PERSONS_MAX,
    SESSIONS_A_PERSON_MAX,
    DisabledPersonError,
    Identity,
    Person,
    SessionRules,
    SignedIn,
    TooManyPersonsError,
    UnknownPersonError,
    holder_of,
    new_session,
    session_digest,
    slug_of,
)
from fleet_server.access.roles import Role
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.grants import (
    BY_GROUP,
    BY_HAND,
    PROPOSED,
    administrators,
    changing,
    place,
)
from fleet_server.adapters.sql.tables import org_node
from fleet_server.adapters.sql.tables import person as persons
from fleet_server.adapters.sql.tables import session as sessions
from fleet_server.registry.model import StaleError


class SqlPersons:
    """See the port."""

    def __init__(self, engine: Engine, rules: SessionRules) -> None:
        """Of a database that is migrated."""
        self._engine = engine
        self._rules = rules

    def sign_in(
        self, identity: Identity, by_group: Sequence[NodeGrant], *, instead_of: str | None, now_ms: int
    ) -> SignedIn:
        """See the port."""
        secret = new_session()
        with changing(self._engine) as connection:
            who = _entered(connection, identity, now_ms)
            BY_GROUP.replace(connection, who, [each for each in by_group if _is_there(connection, each)])
            _end(connection, instead_of)
            connection.execute(delete(sessions).where(sessions.c.expires_ms <= now_ms))
            _make_room(connection, who)
            expires_ms = now_ms + self._rules.whole_ms
            row = {"person": who, "created_ms": now_ms, "used_ms": now_ms, "expires_ms": expires_ms}
            connection.execute(insert(sessions).values(digest=session_digest(secret), **row))
            return SignedIn(_principal(connection, who, identity.name), secret, expires_ms)

    def of_session(self, secret: str, *, now_ms: int) -> Principal | None:
        """See the port."""
        kept = session_digest(secret)
        if kept is None:
            return None
        query = (
            select(sessions, persons.c.name)
            .join(persons, persons.c.person == sessions.c.person)
            .where(sessions.c.digest == kept, persons.c.disabled_ms.is_(None))
        )
        with database.reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
            if row is None or self._rules.is_over(
                created_ms=row.created_ms, used_ms=row.used_ms, expires_ms=row.expires_ms, now_ms=now_ms
            ):
                return None
            found = _principal(connection, row.person, row.name)
        if now_ms - row.used_ms >= USED_EVERY_MS:
            with database.writing(self._engine) as connection:
                connection.execute(update(sessions).where(sessions.c.digest == kept).values(used_ms=now_ms))
        return found

    def sign_out(self, secret: str) -> None:
        """See the port."""
        with database.writing(self._engine) as connection:
            _end(connection, secret)

    def persons(self, *, after: str, rows_max: int) -> Sequence[Person]:
        """See the port."""
        query = select(persons).where(persons.c.person > after).order_by(persons.c.person).limit(rows_max)
        with database.reading(self._engine) as connection:
            return [_person(connection, row) for row in connection.execute(query).all()]

    def person(self, person: str) -> Person | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            row = connection.execute(select(persons).where(persons.c.person == person)).one_or_none()
            return None if row is None else _person(connection, row)

    def put_grants(
        self, person: str, grants: Sequence[NodeGrant], *, expected: int | None, giver: Principal, now_ms: int
    ) -> Person:
        """See the port."""
        with changing(self._engine) as connection:
            row = _row(connection, person)
            if expected is not None and row.revision != expected:
                raise StaleError(row.revision)
            _check_change(connection, person, grants, giver, now_ms)
            added = set(grants) - set(BY_HAND.listed(connection, person))
            several = len(administrators(connection, now_ms, persons=True, lasting=False))
            if needs_second([place(connection, each) for each in added], several):
                PROPOSED.replace(connection, person, grants)
                return _changed(connection, row, proposed_by=giver.holder)
            return _granted(connection, row, grants)

    def approve(self, person: str, *, approver: Principal, now_ms: int) -> Person:
        """See the port."""
        with changing(self._engine) as connection:
            row = _row(connection, person)
            if row.proposed_by is None:
                check_gift(approver, BY_HAND.held(connection, person))
                raise PeopleError(f"nothing is proposed for {person}")
            proposed = PROPOSED.listed(connection, person)
            _check_change(connection, person, proposed, approver, now_ms)
            if row.proposed_by == approver.holder:
                raise SamePersonError(f"{approver.holder} proposed it; another administrator must agree")
            return _granted(connection, row, proposed)

    def disable(self, person: str, *, giver: Principal, now_ms: int) -> Person:
        """See the port."""
        with changing(self._engine) as connection:
            row = _row(connection, person)
            _check_all(connection, person, giver)
            if row.disabled_ms is not None:
                return _person(connection, row)
            _check_not_last(connection, person, now_ms)
            connection.execute(delete(sessions).where(sessions.c.person == person))
            return _changed(connection, row, disabled_ms=now_ms)

    def enable(self, person: str, *, giver: Principal) -> Person:
        """See the port."""
        with changing(self._engine) as connection:
            row = _row(connection, person)
            _check_all(connection, person, giver)
            return (
                _person(connection, row) if row.disabled_ms is None else _changed(connection, row, disabled_ms=None)
            )


def _entered(connection: Connection, identity: Identity, now_ms: int) -> str:
    """The id of whom the provider vouches for, with what they are called now."""
    of_provider = (persons.c.issuer == identity.issuer, persons.c.subject == identity.subject)
    row = connection.execute(select(persons).where(*of_provider)).one_or_none()
    called = {"name": identity.name, "email": identity.email, "last_ms": now_ms}
    if row is None:
        if connection.execute(select(func.count()).select_from(persons)).scalar_one() >= PERSONS_MAX:
            raise TooManyPersonsError(f"there are {PERSONS_MAX} persons")
        who = slug_of(identity, set(connection.execute(select(persons.c.person)).scalars()))
        known = {"person": who, "issuer": identity.issuer, "subject": identity.subject}
        connection.execute(insert(persons).values(**known, **called, first_ms=now_ms, revision=1))
        return who
    if row.disabled_ms is not None:
        raise DisabledPersonError(f"{holder_of(row.person)} is disabled")
    connection.execute(update(persons).where(persons.c.person == row.person).values(**called))
    return str(row.person)


def _make_room(connection: Connection, person: str) -> None:
    """End the oldest sessions, so that there is room for one more."""
    newest = (
        select(sessions.c.digest)
        .where(sessions.c.person == person)
        .order_by(sessions.c.created_ms.desc(), sessions.c.digest)
        .offset(SESSIONS_A_PERSON_MAX - 1)
        .limit(SESSIONS_A_PERSON_MAX)
    )
    old = connection.execute(newest).scalars().all()
    connection.execute(delete(sessions).where(sessions.c.digest.in_(old)))


def _end(connection: Connection, secret: str | None) -> None:
    kept = None if secret is None else session_digest(secret)
    if kept is not None:
        connection.execute(delete(sessions).where(sessions.c.digest == kept))


def _is_there(connection: Connection, grant: NodeGrant) -> bool:
    query = select(org_node.c.node).where(org_node.c.node == grant.node)
    return grant.node is None or connection.execute(query).one_or_none() is not None


def _principal(connection: Connection, person: str, name: str) -> Principal:
    grants = {*BY_HAND.good(connection, person), *BY_GROUP.good(connection, person)}
    return Principal(holder_of(person), name, tuple(sorted(grants)))


def _row(connection: Connection, person: str) -> Row[Any]:
    row = connection.execute(select(persons).where(persons.c.person == person)).one_or_none()
    if row is None:
        raise UnknownPersonError(f"there is no person {person}")
    return row


def _check_change(
    connection: Connection, person: str, grants: Sequence[NodeGrant], giver: Principal, now_ms: int
) -> None:
    """Whether *giver* may give what is new and take away what is gone, and somebody administers the fleet then."""
    before = set(BY_HAND.listed(connection, person))
    new = set(grants)
    check_gift(giver, [place(connection, each) for each in sorted(new - before, key=str)])
    if before - new:
        check_gift(giver, BY_HAND.held(connection, person))
    alone = NodeGrant(Role.ADMINISTRATOR, None)
    if alone in before - new:
        _check_not_last(connection, person, now_ms)


def _check_all(connection: Connection, person: str, giver: Principal) -> None:
    check_gift(giver, [*BY_HAND.held(connection, person), *BY_GROUP.held(connection, person)])


def _check_not_last(connection: Connection, person: str, now_ms: int) -> None:
    if administrators(connection, now_ms, persons=True, lasting=True) == {holder_of(person)}:
        raise LastAdministratorError(f"{holder_of(person)} is the last that administers the fleet")


def _granted(connection: Connection, row: Row[Any], grants: Sequence[NodeGrant]) -> Person:
    BY_HAND.replace(connection, row.person, grants)
    PROPOSED.replace(connection, row.person, ())
    return _changed(connection, row, proposed_by=None)


def _changed(connection: Connection, row: Row[Any], **values: str | int | None) -> Person:
    revised = update(persons).where(persons.c.person == row.person).values(revision=row.revision + 1, **values)
    connection.execute(revised)
    return _person(connection, _row(connection, row.person))


def _person(connection: Connection, row: Row[Any]) -> Person:
    return Person(
        row.person,
        Identity(row.issuer, row.subject, row.name, row.email),
        BY_HAND.listed(connection, row.person),
        BY_GROUP.listed(connection, row.person),
        PROPOSED.listed(connection, row.person),
        row.proposed_by,
        row.revision,
        row.first_ms,
        row.last_ms,
        row.disabled_ms,
    )
