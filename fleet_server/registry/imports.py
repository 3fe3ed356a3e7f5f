"""Reads CSV of devices, organisation nodes and duty units: every fault at once, each with its line. Pure.

UTF-8, with a header that names the columns in any order; a column that is left out leaves its member out, an empty
cell is no value. Spreadsheets write a byte order mark and semicolons, and both are taken.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from broker_config import device_classes
from broker_config.text import shown
from fleet_server.registry.model import DutyUnit, OrgNode, Registration

CSV_BYTES_MAX: Final = 16 * 1024 * 1024
ROWS_MAX: Final = 200_000
FAULTS_MAX: Final = 50
"""Faults told of one file; the rest are counted."""

Row = TypeVar("Row", bound=msgspec.Struct)
Time = Annotated[datetime, Meta(tz=True)]
"""RFC 3339, with an offset."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``line``: of the file, from 1, 0 if it is about all of it."""

    line: int
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class Read(Generic[Row]):
    """Rows in the file's order with the line of each; rows count only if there are no faults."""

    rows: list[Row]
    lines: list[int]
    faults: list[Fault]


def read_devices(data: bytes) -> Read[Registration]:
    """Columns device, device_class, serial, node, unit, note."""
    read = read_rows(data, Registration, "device")
    known = device_classes.names()
    for row, line in zip(read.rows, read.lines, strict=True):
        if row.device_class not in known:
            read.faults.append(Fault(line, f"device_class: one of {', '.join(known)}", shown(row.device_class)))
    return read


def read_nodes(data: bytes) -> Read[OrgNode]:
    """Columns node, kind, name, parent."""
    return read_rows(data, OrgNode, "node")


def read_units(data: bytes) -> Read[DutyUnit]:
    """Columns unit, name, node."""
    return read_rows(data, DutyUnit, "unit")


def read_rows(data: bytes, kind: type[Row], key: str | None, *, rows_max: int = ROWS_MAX) -> Read[Row]:
    """Rows of *kind*, whose members are the columns; *key* names each row once, None: nothing does."""
    read: Read[Row] = Read([], [], [])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        read.faults.append(Fault(0, "UTF-8", f"byte {data[error.start]:#04x} at {error.start}"))
        return read
    fields = msgspec.structs.fields(kind)
    names = [field.name for field in fields]
    required = [field.name for field in fields if field.default is msgspec.NODEFAULT]
    seen: dict[str, int] = {}
    try:
        found = lines(text)
        header = [name.strip() for name in next(found, (1, []))[1]]
        read.faults.extend(_of_header(header, names, required))
        if read.faults:
            return read
        for line, cells in found:
            if not any(cells):
                continue
            if len(read.rows) >= rows_max:
                read.faults.append(Fault(line, f"at most {rows_max} rows", "more"))
                break
            _take(read, kind, key, header, line, cells, seen)
    except csv.Error as error:
        read.faults.append(Fault(0, "CSV", shown(error)))
    return read


def lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line and its cells, between commas or semicolons. Raises csv.Error."""
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for cells in reader:
        yield reader.line_num, cells


def _of_header(header: list[str], names: list[str], required: list[str]) -> Iterator[Fault]:
    expected = f"columns of {', '.join(names)}, once each"
    for name in dict.fromkeys(header):
        if name not in names or header.count(name) > 1:
            yield Fault(1, expected, shown(name))
    for name in required:
        if name not in header:
            yield Fault(1, f"a column {name}", f"{len(header)} columns without it")


def _take(
    read: Read[Row],
    kind: type[Row],
    key: str | None,
    header: list[str],
    line: int,
    cells: list[str],
    seen: dict[str, int],
) -> None:
    if len(cells) != len(header):
        read.faults.append(Fault(line, f"{len(header)} cells", str(len(cells))))
        return
    members = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
    try:
        row = msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        place = str(error).rpartition("`$.")[2].rstrip("`")
        read.faults.append(Fault(line, shown(error), shown(members.get(place, ""))))
        return
    if key is not None:
        name = getattr(row, key)
        if name in seen:
            read.faults.append(Fault(line, f"each {key} once", f"{name}, which line {seen[name]} has as well"))
            return
        seen[name] = line
    read.rows.append(row)
    read.lines.append(line)


def ms(at: datetime) -> int:
    """Since the epoch."""
    return int(at.timestamp() * 1_000)
