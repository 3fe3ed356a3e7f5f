"""Happenings in the operators' database: rows, the order in which they are seen, and the feed."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, true

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import happening, watched
from fleet_server.outbound.happenings import SEVERITIES, Data, Happening, Kind, News
from fleet_server.outbound.store import FeedPage, Filter

FEED: Final = "feed"
PRUNED: Final = "pruned"

_DATA: Final = msgspec.json.Decoder(dict[str, str | int | bool | tuple[str, ...]])


def add(connection: Connection, news: Sequence[News]) -> list[Happening]:
    """Give each an id. Until the transaction ends nobody else can, so that a reader that has seen an id has seen all
    that are lower and will ever be.
    """
    if not news:
        return []
    if connection.dialect.name != database.SQLITE:
        connection.exec_driver_sql("LOCK TABLE happening IN SHARE ROW EXCLUSIVE MODE")
    ids = connection.execute(
        insert(happening).returning(happening.c.id, sort_by_parameter_order=True),
        [
            {
                "at_ms": each.at_ms,
                "kind": each.kind.value,
                "device": each.device,
                "device_class": each.device_class,
                "org": each.org,
                "data": msgspec.json.encode(each.data).decode(),
                "severity": each.severity.value,
            }
            for each in news
        ],
    ).scalars()
    return [Happening(id_, each) for id_, each in zip(ids, news, strict=True)]


def of(row: Sequence[Any]) -> Happening:
    """A row of :data:`COLUMNS`."""
    id_, at_ms, kind, device, device_class, org, data_json = row
    data: Data = _DATA.decode(data_json)
    return Happening(id_, News(at_ms, Kind(kind), device, device_class, org, data))


COLUMNS: Final = tuple(happening.c[name] for name in ("id", "at_ms", "kind", "device", "device_class", "org", "data"))


class SqlFeed:
    """A :class:`fleet_server.outbound.store.Feed`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def after(self, after: int, chosen: Filter, *, rows_max: int) -> FeedPage:
        with database.reading(self._engine) as connection:
            pruned, newest = _bounds(connection)
            rows = connection.execute(
                select(*COLUMNS)
                .where(happening.c.id > after, happening.c.id <= newest, _chosen(chosen))
                .order_by(happening.c.id)
                .limit(rows_max)
            ).all()
        found = tuple(map(of, rows))
        up_to = found[-1].id if len(found) == rows_max else max(after, newest)
        return FeedPage(found, up_to, pruned, newest)

    def before(self, before: int | None, chosen: Filter, *, rows_max: int) -> list[Happening]:
        below = true() if before is None else happening.c.id < before
        with database.reading(self._engine) as connection:
            rows = connection.execute(
                select(*COLUMNS).where(below, _chosen(chosen)).order_by(happening.c.id.desc()).limit(rows_max)
            ).all()
        return [of(row) for row in rows]


def _bounds(connection: Connection) -> tuple[int, int]:
    pruned = connection.execute(
        select(watched.c.value).where(watched.c.topic == FEED, watched.c.name == PRUNED)
    ).scalar_one_or_none()
    newest = connection.execute(select(func.max(happening.c.id))).scalar_one()
    low = int(pruned or 0)
    return low, max(low, newest or 0)


def _chosen(chosen: Filter) -> ColumnElement[bool]:
    found: ColumnElement[bool] = true()
    if chosen.kinds:
        found &= happening.c.kind.in_(sorted(kind.value for kind in chosen.kinds))
    least = SEVERITIES.index(chosen.severity)
    if least:
        found &= happening.c.severity.in_([each.value for each in SEVERITIES[least:]])
    if chosen.device:
        found &= happening.c.device == chosen.device
    if chosen.org:
        below = f"{chosen.org}/"
        found &= (happening.c.org == chosen.org) | (func.substr(happening.c.org, 1, len(below)) == below)
    return found
