"""One row of ``chunk``: a stream's batches of one hour, as columns or as they came.

As they came are the journal's (its hash chain must stay checkable) and the few of an hour that is not over, which
would only be taken apart again.
"""

import sqlite3
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from broker_config.telemetry import Batch, Events, Record
from fleet_server.adapters.sqlite_log import LogRow, pack, record_if_read, record_of
from fleet_server.telemetry import chunk

HOUR_MS: Final = 3_600_000
HOURS_A_DAY: Final = 24
COLUMNS_ROWS_MIN: Final = 16
"""Fewer rows stay as they came until their hour is over."""


class Form(IntEnum):
    """How a part's body is written; stored."""

    AS_RECEIVED = 0
    COLUMNS = 1


class Sealed(NamedTuple):
    """A record with its bytes, and by how much its rows are stored later than it says."""

    record: Record
    payload: bytes
    shift_ms: int

    @property
    def start_ms(self) -> int:
        """Its mapped time."""
        return self.record.t0 + self.shift_ms


class Part(NamedTuple):
    """What goes into a row of ``chunk`` beside its place; ``fields`` is empty unless the form is COLUMNS."""

    form: Form
    fields: tuple[str, ...]
    first_ms: int
    last_ms: int
    records: int
    heads: bytes
    body: bytes
    roll: bytes | None


def part_of(sealed: Sequence[Sealed], *, over: bool) -> Part:
    """*over*: the hour is over, so that the part will last."""
    batches = [one for one in sealed if isinstance(one.record, Batch)]
    few = not over and sum(len(one.record.dt) for one in sealed) < COLUMNS_ROWS_MIN
    if few or len(batches) < len(sealed):
        return _as_received(sealed)
    return columns_of(block_of(batches))


def _as_received(sealed: Sequence[Sealed]) -> Part:
    ordered = sorted(sealed, key=lambda one: (one.start_ms, one.record.life, one.record.seq))
    empty = [""] * len(ordered)
    return Part(
        Form.AS_RECEIVED,
        (),
        min(one.start_ms + one.record.dt[0] for one in ordered),
        max(one.start_ms + one.record.dt[-1] for one in ordered),
        len(ordered),
        chunk.encode_heads([_head(one) for one in ordered]),
        chunk.compress(pack(empty, empty, [one.payload for one in ordered], [0] * len(ordered))),
        None,
    )


def _head(one: Sealed) -> chunk.BatchHead:
    return chunk.head_of(one.record, zlib.crc32(one.payload), one.shift_ms)


def columns_of(block: chunk.Block) -> Part:
    """A part that holds *block*."""
    encoded = chunk.encode(block)
    return Part(
        Form.COLUMNS,
        encoded.fields,
        min(block.times_ms),
        max(block.times_ms),
        len(block.heads),
        chunk.encode_heads(block.heads),
        encoded.body,
        encoded.roll,
    )


def block_of(sealed: Sequence[Sealed]) -> chunk.Block:
    """The rows of what is not the journal's; at least one."""
    return chunk.block_of([(_head(one), one.record) for one in sealed if isinstance(one.record, Batch)])


def read_as_received(heads: bytes, body: bytes, *, strict: bool) -> list[Sealed]:
    """What an AS_RECEIVED part holds; unless *strict*, without what an older contract admitted and this one refuses.

    Raises:
        BadBatchError: there is such a record.
    """
    row = LogRow(chunk.decompress(body))
    out: list[Sealed] = []
    for place, head in enumerate(chunk.decode_heads(heads)):
        payload = row.payload(place)
        record = record_of(payload) if strict else record_if_read(payload)
        if record is not None:
            out.append(Sealed(record, payload, head.shift_ms))
    return out


def merged(rows: Sequence[tuple[Form, bytes, bytes, tuple[str, ...]]]) -> Part:
    """One lasting part of several; *rows*: form, heads, body, fields of each. Raises BadBatchError."""
    received: list[Sealed] = []
    blocks: list[chunk.Block] = []
    for form, heads, body, fields in rows:
        if form == Form.AS_RECEIVED:
            received += read_as_received(heads, body, strict=True)
        else:
            blocks.append(chunk.Block(chunk.decode_heads(heads), *chunk.decode(body, fields)))
    if any(isinstance(one.record, Events) for one in received):
        assert not blocks, "a stream is the journal's or it is not"
        return _as_received(received)
    if received:
        blocks.append(block_of(received))
    return columns_of(chunk.joined(blocks))


class Names:
    """Numbers of series and shapes, remembered. For the sealer's thread; *forget* after a rollback."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], int] = {}
        self._shapes: dict[tuple[str, ...], int] = {(): 0}

    def forget(self) -> None:
        """What was given out in a transaction that failed is not in the file."""
        self._series.clear()
        self._shapes = {(): 0}

    def series(self, connection: sqlite3.Connection, device: str, stream: str) -> int:
        """The series' number, given now if it is new."""
        number = self._series.get((device, stream))
        if number is None:
            connection.execute("INSERT OR IGNORE INTO series(device, stream) VALUES(?, ?)", (device, stream))
            found = series_number(connection, device, stream)
            assert found is not None
            number = self._series[device, stream] = found
        return number

    def shape(self, connection: sqlite3.Connection, fields: tuple[str, ...]) -> int:
        """The number of a list of columns, given now if it is new."""
        number = self._shapes.get(fields)
        if number is None:
            text = chunk.encode_fields(fields)
            connection.execute("INSERT OR IGNORE INTO shape(fields) VALUES(?)", (text,))
            row = connection.execute("SELECT id FROM shape WHERE fields = ?", (text,)).fetchone()
            number = self._shapes[fields] = int(row[0])
        return number


def series_number(connection: sqlite3.Connection, device: str, stream: str) -> int | None:
    """The series' number, if anything of it was ever sealed."""
    row = connection.execute("SELECT id FROM series WHERE device = ? AND stream = ?", (device, stream)).fetchone()
    return None if row is None else int(row[0])
