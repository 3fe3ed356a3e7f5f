"""The port :class:`fleet_server.access.audit_store.AuditStore` in the operators' database.

One writer at a time: SQLite's write lock, PostgreSQL's advisory one, taken before the head is read. So numbers have
no holes, whatever is rolled back.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, and_, func, insert, or_, select

from broker_config import merkle
from fleet_server.access import audit, tlog
from fleet_server.access.audit import Draft, Head, Wanted
from fleet_server.access.audit_store import LostHashError
from fleet_server.access.tlog import Leaves, Node
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import audit_checkpoint, audit_entry, audit_node
from fleet_server.telemetry.store import StoreError

APPEND_LOCK: Final = 0x6666_6175


class SqlAudit:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    # entries

    def head(self) -> Head | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _head(connection)

    def end_of(self, log: int) -> Head:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _end_of(connection, log)

    def head_at(self, log: int, size: int) -> Head:
        """See the port."""
        if size == 0:
            return Head(log, 0, audit.GENESIS)
        before = self.entries(log, from_index=size - 1, rows_max=1)
        return Head(log, size, audit.digest(before[0]) if before else audit.GENESIS)

    def append(self, drafts: Sequence[Draft]) -> Head:
        """See the port."""
        with database.writing(self._engine, lock=APPEND_LOCK) as connection:
            head = _head(connection)
            return append_in(connection, _begun(head), drafts)

    def begin(self, draft: Draft) -> Head:
        """See the port."""
        with database.writing(self._engine, lock=APPEND_LOCK) as connection:
            last = _head(connection)
            log = draft.at_ms if last is None else max(last.log + 1, draft.at_ms)
            return append_in(connection, Head(log, 0, audit.GENESIS), [draft])

    def entries(self, log: int, *, from_index: int, rows_max: int) -> Sequence[bytes]:
        """See the port."""
        column = audit_entry.c
        query = select(column.entry).where(column.log == log, column.number >= from_index)
        with database.reading(self._engine) as connection:
            return _raw(connection.execute(query.order_by(column.number).limit(rows_max)).scalars())

    def newest(self, wanted: Wanted, *, before: tuple[int, int] | None, rows_max: int) -> Sequence[bytes]:
        """See the port."""
        column = audit_entry.c
        query = select(column.entry).where(
            *(column[name] == value for name, value in _equal(wanted).items()),
            *([] if wanted.from_ms is None else [column.at_ms >= wanted.from_ms]),
            *([] if wanted.to_ms is None else [column.at_ms < wanted.to_ms]),
        )
        if before is not None:
            log, number = before
            query = query.where(or_(column.log < log, and_(column.log == log, column.number < number)))
        with database.reading(self._engine) as connection:
            ordered = query.order_by(column.log.desc(), column.number.desc())
            return _raw(connection.execute(ordered.limit(rows_max)).scalars())

    # the tree

    def hashes(self, log: int, wanted: Sequence[Leaves]) -> list[bytes]:
        """See the port."""
        nodes = [node for leaves in wanted for node in tlog.nodes_of(leaves)]
        with database.reading(self._engine) as connection:
            held = _held(connection, log, nodes)
        try:
            return [tlog.hash_of(leaves, held) for leaves in wanted]
        except KeyError as error:
            raise LostHashError(f"a hash of its tree is not there: {error}") from error

    def subtrees(self, log: int, size: int) -> tuple[bytes, ...]:
        """See the port."""
        return tuple(self.hashes(log, [_leaves(node) for node in tlog.nodes_of(Leaves(0, size))]))

    # checkpoints

    def checkpoint(self, log: int) -> str | None:
        """See the port."""
        column = audit_checkpoint.c
        query = select(column.note).where(column.log == log).order_by(column.size.desc()).limit(1)
        with database.reading(self._engine) as connection:
            return connection.execute(query).scalar_one_or_none()

    def checkpoint_from(self, log: int, size: int) -> str | None:
        """See the port."""
        column = audit_checkpoint.c
        query = select(column.note).where(column.log == log, column.size >= size).order_by(column.size).limit(1)
        with database.reading(self._engine) as connection:
            return connection.execute(query).scalar_one_or_none()

    def keep_checkpoint(self, log: int, size: int, note: str, *, now_ms: int) -> None:
        """See the port."""
        column = audit_checkpoint.c
        same = select(func.count()).where(column.log == log, column.size == size)
        with database.writing(self._engine, lock=APPEND_LOCK) as connection:
            if not connection.execute(same).scalar_one():
                connection.execute(insert(audit_checkpoint).values(log=log, size=size, at_ms=now_ms, note=note))


def _head(connection: Connection) -> Head | None:
    log = connection.execute(select(func.max(audit_entry.c.log))).scalar_one()
    return None if log is None else _end_of(connection, log)


def _end_of(connection: Connection, log: int) -> Head:
    column = audit_entry.c
    query = select(column.number, column.entry).where(column.log == log)
    row = connection.execute(query.order_by(column.number.desc()).limit(1)).one_or_none()
    if row is None:
        return Head(log, 0, audit.GENESIS)
    (raw,) = _raw([row.entry])
    return Head(log, row.number + 1, audit.digest(raw))


def _raw(values: Iterable[bytes | str]) -> list[bytes]:
    """Bytes, also of what somebody has put there as text, which SQLite keeps as such."""
    return [value.encode() if isinstance(value, str) else value for value in values]


def newest_head(connection: Connection) -> Head:
    """The end of the newest log. The transaction must hold APPEND_LOCK. Raises StoreError: there is none yet."""
    return _begun(_head(connection))


def _begun(head: Head | None) -> Head:
    if head is None:
        raise StoreError("there is no audit log yet")
    return head


def append_in(connection: Connection, head: Head, drafts: Sequence[Draft]) -> Head:
    """Enter *drafts* behind *head*, the newest, in a transaction that holds APPEND_LOCK. Raises as the port does."""
    if not drafts:
        return head
    nodes = tlog.nodes_of(Leaves(0, head.size))
    held = _held(connection, head.log, nodes)
    if len(held) < len(nodes):
        raise LostHashError("hashes of its tree are not there")
    frontier = tlog.Frontier(head.size, [held[node] for node in nodes])
    entries: list[dict[str, Any]] = []
    hashes: list[dict[str, Any]] = []
    for draft in drafts:
        entries.append({"log": head.log, "number": head.size, "at_ms": draft.at_ms, **_found_by(draft)})
        raw, head = audit.entered(draft, head)
        entries[-1]["entry"] = raw
        hashes += [
            {"log": head.log, "place": tlog.place(node), "hash": made}
            for node, made in frontier.append(merkle.leaf_hash(raw))
        ]
    connection.execute(insert(audit_entry), entries)
    connection.execute(insert(audit_node), hashes)
    return head


def _found_by(draft: Draft) -> dict[str, str]:
    return {"actor": draft.actor, "action": draft.action, "subject": draft.subject}


def _equal(wanted: Wanted) -> dict[str, str]:
    given = {"actor": wanted.actor, "action": wanted.action, "subject": wanted.subject}
    return {name: value for name, value in given.items() if value is not None}


def _held(connection: Connection, log: int, nodes: Sequence[Node]) -> dict[Node, bytes]:
    places = {tlog.place(node): node for node in nodes}
    column = audit_node.c
    found: dict[Node, bytes] = {}
    for asked in database.slices(list(places)):
        some = column.place.in_(asked)
        for row in connection.execute(select(column.place, column.hash).where(column.log == log, some)):
            found[places[row.place]] = row.hash
    # one that cannot be a hash is as good as none
    return {node: made for node, made in found.items() if isinstance(made, bytes) and len(made) == merkle.HASH_BYTES}


def _leaves(node: Node) -> Leaves:
    return Leaves(node.number << node.level, (node.number + 1) << node.level)
