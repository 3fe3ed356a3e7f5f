"""The port :class:`fleet_server.change.command_store.CommandStore` in the operators' database."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    and_,
    bindparam,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    update,
)

from broker_config.device_classes import SafetyClass
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.command_tables import command as commands
from fleet_server.adapters.sql.command_tables import command_target as targets
from fleet_server.adapters.sql.device_rows import below
from fleet_server.change import commands as rules
from fleet_server.change.command_store import (
    After,
    CommandFilter,
    Meant,
    NotWaitingError,
    Signed,
    StaleOrderError,
    UnknownCommandError,
)
from fleet_server.change.commands import OPEN, SAID, UNSAID, Command, Count, State, Target, Word

LOCK: Final = 0x6666_636D
"""PostgreSQL's writers of commands wait for each other: what a device says twice at once is one word."""
_CHANGED: Final = ("state", "reason", "waits_for", "counter", "sent_ms", "heard_ms", "ended_ms")
_UPDATE: Final = (
    update(targets)
    .where(targets.c.command == bindparam("b_command"), targets.c.device == bindparam("b_device"))
    .values({name: bindparam(f"b_{name}") for name in (*_CHANGED, "result", "order_bytes")})
)


class SqlCommands:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # what people ask

    def create(self, command: Command, targets_: Sequence[Meant]) -> None:
        """See the port."""
        first = rules.first_state(command.needs)
        with database.writing(self._engine, lock=LOCK) as connection:
            connection.execute(insert(commands).values(_row_of(command)))
            rows = [_new_row(command, first, meant) for meant in targets_]
            connection.execute(insert(targets), rows)

    def command(self, command: str) -> Command | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _one(connection, command)

    def commands(self, wanted: CommandFilter, *, after: After | None, rows_max: int) -> Sequence[Command]:
        """See the port."""
        column = commands.c
        query = select(commands).where(*_chosen(wanted))
        if after is not None:
            same = and_(column.created_ms == after.created_ms, column.command < after.command)
            query = query.where(or_(column.created_ms < after.created_ms, same))
        query = query.order_by(column.created_ms.desc(), column.command.desc()).limit(rows_max)
        with database.reading(self._engine) as connection:
            return [_command(row) for row in connection.execute(query).mappings()]

    def counts(self, commands_: Sequence[str], within: tuple[str, ...] | None) -> Mapping[str, Sequence[Count]]:
        """See the port."""
        column = targets.c
        out: dict[str, list[Count]] = {name: [] for name in commands_}
        with database.reading(self._engine) as connection:
            for some in database.slices(commands_):
                query = (
                    select(column.command, column.state, column.reason, func.count())
                    .where(column.command.in_(some), *_within(within))
                    .group_by(column.command, column.state, column.reason)
                )
                for name, state, reason, number in connection.execute(query):
                    out[name].append(Count(State(state), reason, number))
        return out

    def targets(
        self,
        command: str,
        *,
        state: State | None = None,
        within: tuple[str, ...] | None = None,
        after: str = "",
        rows_max: int,
    ) -> Sequence[Target]:
        """See the port."""
        column = targets.c
        query = select(targets).where(column.command == command, column.device > after, *_within(within))
        if state is not None:
            query = query.where(column.state == state.value)
        with database.reading(self._engine) as connection:
            found = connection.execute(query.order_by(column.device).limit(rows_max)).mappings()
            return [_target(row) for row in found]

    def cancel(self, command: str, *, within: tuple[str, ...] | None, now_ms: int) -> int:
        """See the port."""
        with database.writing(self._engine, lock=LOCK) as connection:
            if _one(connection, command) is None:
                raise UnknownCommandError(command)
            found = _found(connection, targets.c.command == command, _in(UNSAID), *_within(within))
            _keep(connection, [rules.cancelled(each, now_ms) for each in found])
            return len(found)

    def prepared(self, orders: Sequence[Signed]) -> None:
        """See the port."""
        with database.writing(self._engine, lock=LOCK) as connection:
            waiting = _of(connection, orders, {State.AWAITING_APPROVAL})
            if len(waiting) != len(orders):
                raise NotWaitingError("it does not wait for a second person any more")
            _keep(connection, waiting)

    def approve(self, command: str, orders: Sequence[Signed], *, by: str, now_ms: int) -> None:
        """See the port."""
        with database.writing(self._engine, lock=LOCK) as connection:
            waits = {
                each.device: each
                for each in _found(connection, targets.c.command == command, _in({State.AWAITING_APPROVAL}))
            }
            given = {each.device: each for each in orders}
            if not waits or given.keys() != waits.keys():
                expected = ", ".join(waits) or "none"
                raise NotWaitingError(f"expected an order for each of {expected}, got {', '.join(given) or 'none'}")
            newest = _newest(connection, tuple(given))
            for device, order in given.items():
                if order.counter != waits[device].counter:
                    raise StaleOrderError(f"{device}: the order was made anew meanwhile")
                if newest.get(device, 0) > order.counter:
                    raise StaleOrderError(f"{device}: another command was said to it meanwhile")
            _keep(connection, [_with(waits[device], order, State.SIGNED) for device, order in given.items()])
            said = {"approved_by": by, "approved_ms": now_ms}
            connection.execute(update(commands).where(commands.c.command == command).values(said))

    # what the service asks

    def to_sign(self, *, rows_max: int) -> Sequence[tuple[Command, Target]]:
        """See the port."""
        query = (
            select(targets)
            .join(commands)
            .where(targets.c.state == State.CREATED.value)
            .order_by(commands.c.created_ms, targets.c.command, targets.c.device)
            .limit(rows_max)
        )
        with database.reading(self._engine) as connection:
            found = [_target(row) for row in connection.execute(query).mappings()]
            names = {each.command for each in found}
            known = {name: _one(connection, name) for name in names}
        return [(told, each) for each in found if (told := known[each.command]) is not None]

    def to_send(self, *, rows_max: int) -> Sequence[Target]:
        """See the port."""
        query = select(targets).where(targets.c.state == State.SIGNED.value).order_by(targets.c.counter)
        with database.reading(self._engine) as connection:
            return [_target(row) for row in connection.execute(query.limit(rows_max)).mappings()]

    def signed(self, orders: Sequence[Signed]) -> Sequence[Target]:
        """See the port."""
        with database.writing(self._engine, lock=LOCK) as connection:
            found = _of(connection, orders, {State.CREATED}, State.SIGNED)
            _keep(connection, found)
        return found

    def sent(self, targets_: Sequence[Target], *, now_ms: int) -> None:
        """See the port."""
        column = targets.c
        with database.writing(self._engine, lock=LOCK) as connection:
            for each in targets_:
                # whoever answers sooner than this is written down stays ahead
                connection.execute(
                    update(targets)
                    .where(column.command == each.command, column.device == each.device)
                    .where(_in({State.SIGNED, State.SENT}))
                    .values(state=State.SENT.value, sent_ms=now_ms)
                )

    def said_to(self, device: str) -> Sequence[Target]:
        """See the port."""
        with database.reading(self._engine) as connection:
            found = _found(connection, targets.c.device == device, _in(SAID))
        return sorted(found, key=lambda each: each.counter)

    def waiting(self, *, late_after_ms: int) -> Mapping[str, int]:
        """See the port."""
        column = targets.c
        late = and_(column.state == State.EXPIRED.value, column.expires_ms > late_after_ms, column.counter > 0)
        since = func.min(func.coalesce(column.sent_ms, commands.c.created_ms))
        query = select(column.device, since).join(commands).where(or_(_in(OPEN), late)).group_by(column.device)
        with database.reading(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def hear(self, words: Sequence[Word], *, now_ms: int) -> Sequence[Target]:
        """See the port."""
        changed: dict[tuple[str, str], Target] = {}
        with database.writing(self._engine, lock=LOCK) as connection:
            known = _by_key(connection, ((word.command, word.device) for word in words))
            for word in words:
                key = word.command, word.device
                before = known.get(key)
                if before is None:
                    continue
                after = rules.heard(before, word, now_ms)
                if after is not before:
                    known[key] = changed[key] = after
            _keep(connection, list(changed.values()))
        return list(changed.values())

    def not_yet(self, *, before_ms: int) -> Sequence[str]:
        """See the port."""
        column = targets.c
        query = select(column.device).where(_in({State.SENT}), column.reason != "", column.heard_ms <= before_ms)
        with database.reading(self._engine) as connection:
            return list(connection.execute(query.distinct()).scalars())

    def expire(self, *, now_ms: int) -> int:
        """See the port."""
        with database.writing(self._engine, lock=LOCK) as connection:
            found = _found(connection, targets.c.expires_ms <= now_ms, _in(OPEN))
            changed = [after for each in found if (after := rules.expired(each, now_ms)) is not each]
            _keep(connection, changed)
        return len(changed)

    def unheard(self, *, since_ms: int) -> int:
        """See the port."""
        column = targets.c
        query = select(func.count()).where(column.state == State.SENT.value, column.sent_ms > since_ms)
        with database.reading(self._engine) as connection:
            return int(connection.execute(query).scalar_one())


# Rows ---------------------------------------------------------------------------------------------------------------


def _row_of(command: Command) -> dict[str, Any]:
    return {
        "command": command.command,
        "name": command.name,
        "parameters": msgspec.json.encode(dict(command.parameters)).decode(),
        "safety": command.safety.value,
        "needs": command.needs,
        "said_by": command.by,
        "created_ms": command.created_ms,
        "expires_ms": command.expires_ms,
        "approved_by": command.approved_by,
        "approved_ms": command.approved_ms,
    }


def _command(row: RowMapping) -> Command:
    return Command(
        command=row["command"],
        name=row["name"],
        parameters=msgspec.json.decode(row["parameters"]),
        safety=SafetyClass(row["safety"]),
        needs=row["needs"],
        by=row["said_by"],
        created_ms=row["created_ms"],
        expires_ms=row["expires_ms"],
        approved_by=row["approved_by"],
        approved_ms=row["approved_ms"],
    )


def _new_row(command: Command, state: State, meant: Meant) -> dict[str, Any]:
    return {
        "command": command.command,
        "device": meant.device,
        "path": meant.path,
        "state": state.value,
        "expires_ms": command.expires_ms,
        "reason": "",
        "waits_for": "",
        "result": "{}",
        "counter": 0,
    }


def _target(row: RowMapping) -> Target:
    return Target(
        command=row["command"],
        device=row["device"],
        path=row["path"],
        state=State(row["state"]),
        expires_ms=row["expires_ms"],
        reason=row["reason"],
        waits_for=row["waits_for"],
        result=msgspec.json.decode(row["result"]),
        counter=row["counter"],
        order=row["order_bytes"] or b"",
        sent_ms=row["sent_ms"],
        heard_ms=row["heard_ms"],
        ended_ms=row["ended_ms"],
    )


def _one(connection: Connection, command: str) -> Command | None:
    row = connection.execute(select(commands).where(commands.c.command == command)).mappings().first()
    return None if row is None else _command(row)


def _found(connection: Connection, *where: ColumnElement[bool]) -> list[Target]:
    return [_target(row) for row in connection.execute(select(targets).where(*where)).mappings()]


def _by_key(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Target]:
    wanted = set(keys)
    out: dict[tuple[str, str], Target] = {}
    for some in database.slices(sorted({command for command, _ in wanted})):
        for devices in database.slices(sorted({device for _, device in wanted})):
            for each in _found(connection, targets.c.command.in_(some), targets.c.device.in_(devices)):
                if (each.command, each.device) in wanted:
                    out[each.command, each.device] = each
    return out


def _of(
    connection: Connection, orders: Sequence[Signed], states: Iterable[State], then: State | None = None
) -> list[Target]:
    """The targets of *orders* that are in one of *states*, with their orders, in state *then*."""
    known = _by_key(connection, ((each.command, each.device) for each in orders))
    allowed = frozenset(states)
    out = []
    for each in orders:
        found = known.get((each.command, each.device))
        if found is not None and found.state in allowed:
            out.append(_with(found, each, then or found.state))
    return out


def _with(target: Target, order: Signed, state: State) -> Target:
    row = {name: getattr(target, name) for name in Target.__slots__}
    return Target(**{**row, "counter": order.counter, "order": order.order, "state": state})


def _newest(connection: Connection, devices: Sequence[str]) -> dict[str, int]:
    """The highest counter that was, or will be, said to each of them."""
    column = targets.c
    query = (
        select(column.device, func.max(column.counter))
        .where(
            column.device.in_(devices),
            column.state.not_in([s.value for s in (State.AWAITING_APPROVAL, State.CANCELLED)]),
        )
        .group_by(column.device)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _keep(connection: Connection, changed: Sequence[Target]) -> None:
    if not changed:
        return
    connection.execute(
        _UPDATE,
        [
            {
                "b_command": each.command,
                "b_device": each.device,
                **{f"b_{name}": getattr(each, name) for name in _CHANGED},
                "b_state": each.state.value,
                "b_result": msgspec.json.encode(dict(each.result)).decode(),
                "b_order_bytes": each.order or None,
            }
            for each in changed
        ],
    )


def _in(states: Iterable[State]) -> ColumnElement[bool]:
    return targets.c.state.in_([state.value for state in states])


def _within(within: tuple[str, ...] | None) -> Iterator[ColumnElement[bool]]:
    if within is not None:
        yield or_(false(), *(below(path, targets.c.path) for path in within))


def _chosen(wanted: CommandFilter) -> Iterator[ColumnElement[bool]]:
    column = commands.c
    mine = targets.c.command == column.command
    if wanted.name is not None:
        yield column.name == wanted.name
    if wanted.by is not None:
        yield column.said_by == wanted.by
    if wanted.device is not None or wanted.within is not None:
        of_device = [] if wanted.device is None else [targets.c.device == wanted.device]
        yield exists().where(mine, *of_device, *_within(wanted.within))
    if wanted.open is not None:
        waiting = exists().where(mine, _in(OPEN))
        yield waiting if wanted.open else ~waiting
