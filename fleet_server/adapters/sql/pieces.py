"""The index of evidence in the operators' database: the ports ``evidence.arrival.Register`` and
``evidence.pieces.Pieces``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    ScalarSelect,
    and_,
    case,
    exists,
    false,
    func,
    insert,
    not_,
    or_,
    select,
)

from broker_config import device_classes, limits, manifest
from broker_config.device_classes import FileKind, UnknownClassError
from fleet_server.access.audit import Place
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.assignment_tables import assignment as assignments
from fleet_server.adapters.sql.assignments import counting
from fleet_server.adapters.sql.custody import CustodyLog, Entering
from fleet_server.adapters.sql.device_rows import below
from fleet_server.adapters.sql.evidence_tables import evidence_class, evidence_hold
from fleet_server.adapters.sql.evidence_tables import evidence_piece as pieces
from fleet_server.adapters.sql.tables import device as devices
from fleet_server.evidence.arrival import Arrival
from fleet_server.evidence.content import Content, ContentError
from fleet_server.evidence.custody import arrived
from fleet_server.evidence.pieces import (
    BEGINNING,
    UNCLASSIFIED,
    After,
    Damage,
    Piece,
    PieceFilter,
    State,
    Totals,
    UnknownPieceError,
)
from fleet_server.telemetry.store import StoreError


class SqlPieces:
    """See the ports."""

    def __init__(self, log: CustodyLog, content: Content) -> None:
        """*content*: where originals are; what is not there is not entered."""
        self._log = log
        self._content = content

    def verified(self, arrival: Arrival) -> Place:
        """See the port."""
        return self._log.entering(lambda entering: self._enter(entering, arrival))

    def piece(self, piece: str) -> Piece | None:
        """See the port."""
        with database.reading(self._log.engine) as connection:
            return find(connection, piece)

    def pieces(self, wanted: PieceFilter, *, after: After = BEGINNING, rows_max: int) -> Sequence[Piece]:
        """See the port."""
        column = pieces.c
        behind = or_(
            column.received_ms > after.received_ms,
            and_(column.received_ms == after.received_ms, column.piece > after.piece),
        )
        query = select(pieces).where(behind, *_chosen(wanted)).order_by(column.received_ms, column.piece)
        with database.reading(self._log.engine) as connection:
            return _with_sayings(connection, connection.execute(query.limit(rows_max)).mappings().all())

    def newest(self, wanted: PieceFilter, *, before: After | None, rows_max: int) -> Sequence[Piece]:
        """See the port."""
        column = pieces.c
        query = select(pieces).where(*_chosen(wanted)).order_by(column.received_ms.desc(), column.piece.desc())
        if before is not None:
            query = query.where(
                or_(
                    column.received_ms < before.received_ms,
                    and_(column.received_ms == before.received_ms, column.piece < before.piece),
                )
            )
        with database.reading(self._log.engine) as connection:
            return _with_sayings(connection, connection.execute(query.limit(rows_max)).mappings().all())

    def totals(self) -> Totals:
        """See the port."""
        kept, damaged = pieces.c.state == State.KEPT.value, pieces.c.damage != Damage.NONE.value
        query = select(
            func.count().filter(kept),
            func.coalesce(func.sum(pieces.c.size).filter(kept), 0),
            func.count().filter(kept, damaged),
            func.count().filter(not_(kept)),
        ).select_from(pieces)
        with database.reading(self._log.engine) as connection:
            return Totals(*map(int, connection.execute(query).one()))

    def _enter(self, entering: Entering, arrival: Arrival) -> Place:
        connection, said = entering.connection, arrival.manifest
        held = select(pieces.c.log, pieces.c.entry).where(pieces.c.piece == arrival.upload)
        row = connection.execute(held).one_or_none()
        if row is not None:
            return Place(row.log, row.entry)
        # in this transaction, which excludes the one that takes the last piece of a content away
        try:
            if not self._content.exists(said.sha256):
                raise StoreError(f"{arrival.upload}: its content is not in the store")
        except ContentError as error:
            raise StoreError(f"{arrival.upload}: {error}") from error
        path, device_class = _place(connection, said.device)
        received, verified = arrived(arrival)
        entering.event(received)
        place = entering.event(verified)
        said_columns = _said(arrival, _kind(device_class, said.file_class))
        kept = {"device_class": device_class, "path": path, "state": State.KEPT.value, "damage": Damage.NONE.value}
        where = {"log": place.log, "entry": place.number}
        connection.execute(insert(pieces).values({**said_columns, **kept, **where}))
        return place


def find(connection: Connection, piece: str) -> Piece | None:
    """One piece, in a transaction."""
    rows = connection.execute(select(pieces).where(pieces.c.piece == piece)).mappings().all()
    return next(iter(_with_sayings(connection, rows)), None)


def known(connection: Connection, piece: str) -> Piece:
    """One piece, in a transaction. Raises UnknownPieceError."""
    found = find(connection, piece)
    if found is None:
        raise UnknownPieceError("piece", piece)
    return found


def _place(connection: Connection, device: str) -> tuple[str, str]:
    """Where a device is, and of what class; empty if nobody knows."""
    column = devices.c
    query = select(column.path, column.device_class, column.reported_class).where(column.device == device)
    row = connection.execute(query).one_or_none()
    return ("", "") if row is None else (row.path, row.device_class or row.reported_class)


_COLUMNS: Final = tuple(column.name for column in pieces.columns)


def _with_sayings(connection: Connection, rows: Sequence[RowMapping]) -> list[Piece]:
    names = [row["piece"] for row in rows]
    classes: defaultdict[str, list[str]] = defaultdict(list)
    holds: defaultdict[str, list[str]] = defaultdict(list)
    assigned: dict[str, str] = {}
    for some in database.slices(names):
        of = evidence_class.c
        for row in connection.execute(select(of.piece, of.evidence_class).where(of.piece.in_(some))):
            classes[row.piece].append(row.evidence_class)
        hold = evidence_hold.c
        holding = hold.piece.in_(some) & hold.released_ms.is_(None)
        for row in connection.execute(select(hold.piece, hold.hold).where(holding)):
            holds[row.piece].append(row.hold)
        had = select(pieces.c.piece, _officer().label("officer")).where(pieces.c.piece.in_(some))
        assigned.update((row.piece, row.officer or "") for row in connection.execute(had))
    return [_piece(row, classes[row["piece"]], holds[row["piece"]], assigned.get(row["piece"], "")) for row in rows]


def _lasted() -> ColumnElement[bool]:
    """Until the piece began, by the device's clock, or longer."""
    return or_(assignments.c.to_ms.is_(None), assignments.c.to_ms > pieces.c.begin_ms)


def _officer() -> ScalarSelect[str]:
    """Who had the piece's device when it began; null or empty: nobody."""
    said = assignments.c
    # of intervals that share no moment the last that had begun is the one, or there is none
    begun = (said.device == pieces.c.device, said.from_ms <= pieces.c.begin_ms, counting(None))
    last = select(case((_lasted(), said.officer))).where(*begun).order_by(said.from_ms.desc()).limit(1)
    return last.scalar_subquery()


def _piece(row: RowMapping, classes: Iterable[str], holds: Iterable[str], assigned: str) -> Piece:
    values: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    values["kind"] = FileKind(row["kind"]) if row["kind"] else None
    values["state"], values["damage"] = State(row["state"]), Damage(row["damage"])
    return Piece(**values, classes=tuple(sorted(classes)), holds=tuple(sorted(holds)), assigned=assigned)


def _said(arrival: Arrival, kind: FileKind | None) -> dict[str, Any]:
    said, segment = arrival.manifest, arrival.manifest.segment
    return {
        "piece": arrival.upload,
        "device": said.device,
        "file_class": said.file_class,
        "kind": "" if kind is None else kind.value,
        "name": said.name,
        "media_type": said.media_type,
        "size": said.size,
        "sha256": said.sha256,
        "manifest_sha256": manifest.digest(manifest.encode(said)),
        "recording": "" if segment is None else segment.recording,
        "segment": 0 if segment is None else segment.number,
        "last": segment is not None and segment.last,
        "begin_ms": said.begin.t_ms,
        "begin_unc_ms": said.begin.unc_ms,
        "end_ms": said.end.t_ms,
        "end_unc_ms": said.end.unc_ms,
        "clock": said.end.src,
        "holder": said.holder,
        "journal_life": said.journal.life,
        "journal_first": said.journal.first,
        "journal_last": said.journal.last,
        "envelope": arrival.envelope,
        "certificate": arrival.certificate,
        "via": arrival.via,
        "offered_ms": arrival.offered_ms,
        "received_ms": arrival.verified_ms,
    }


def _kind(device_class: str, file_class: str) -> FileKind | None:
    """What the device's class says of the folder; None if nobody knows."""
    try:
        known_class = device_classes.load(device_class)
    except UnknownClassError:
        return None
    found = known_class.files.get(file_class)
    return None if found is None else found.kind


def _chosen(wanted: PieceFilter) -> Iterator[ColumnElement[bool]]:
    column = pieces.c
    for name in ("device", "recording", "file_class", "sha256"):
        value = getattr(wanted, name)
        if value is not None:
            yield column[name] == value
    if wanted.holder is not None:
        yield or_(column.holder == wanted.holder, _assigned(wanted.holder))
    if wanted.state is not None:
        yield column.state == wanted.state.value
    if wanted.damaged is not None:
        yield (column.damage != Damage.NONE.value) == wanted.damaged
    if wanted.from_ms is not None:
        yield column.end_ms + column.end_unc_ms >= wanted.from_ms
    if wanted.to_ms is not None:
        yield column.begin_ms - column.begin_unc_ms < wanted.to_ms
    if wanted.received_from_ms is not None:
        yield column.received_ms >= wanted.received_from_ms
    if wanted.received_to_ms is not None:
        yield column.received_ms < wanted.received_to_ms
    if wanted.path is not None:
        yield below(wanted.path, column.path)
    if wanted.within is not None:
        yield or_(false(), *(below(path, column.path) for path in wanted.within))
    if wanted.evidence_class is not None:
        yield _classed(wanted.evidence_class)
    if wanted.hold is not None:
        hold = evidence_hold.c
        yield exists().where(hold.piece == column.piece, hold.hold == wanted.hold, hold.released_ms.is_(None))


def _assigned(officer: str) -> ColumnElement[bool]:
    """Of which the manifest names nobody, and the book of assignments them: few intervals, and the pieces of each."""
    said, their = assignments.c, pieces.alias("their")
    within = and_(
        their.c.device == said.device,
        their.c.begin_ms >= said.from_ms,
        their.c.begin_ms < func.coalesce(said.to_ms, limits.TIME_MS_MAX),
        # an expression keeps the planner from reading all that name nobody, instead of each device's
        their.c.holder + "" == "",
    )
    query = select(their.c.piece).select_from(assignments).join(their, within)
    return pieces.c.piece.in_(query.where(said.officer == officer, counting(None)))


def _classed(name: str) -> ColumnElement[bool]:
    of = evidence_class.c
    if name == UNCLASSIFIED:
        return not_(exists().where(of.piece == pieces.c.piece))
    return exists().where(of.piece == pieces.c.piece, of.evidence_class == name)
