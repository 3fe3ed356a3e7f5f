"""Queries in InfluxQL, the one language that InfluxDB 1, 2 and 3 share; Grafana fills in its variables and macros.

Rule 1: what is *now* is the newest point of each device, and only then a sum over devices: a sum over points would
count a device as often as it was asked.
Rule 2: a query makes one number: InfluxDB 1 goes through the subquery again for each column of each, and a table of
eight columns in one query takes ten times as long as in six.
Rule 3: one pass over the points where the answer is a share: the mean of a 0 or 1. A subquery for each device and
interval takes ten times as long.
"""

import re
from collections.abc import Sequence
from typing import Final

_FIELD: Final = re.compile(r'\("([^"]+)"\)')
TAGS: Final = ("device", "device_class", "org")


def quoted(name: str) -> str:
    """An identifier; every name in a query is written so, which is what the lint reads."""
    assert '"' not in name, name
    return f'"{name}"'


def newest(measurement: str, fields: Sequence[str], tags: Sequence[str], *, where: str) -> str:
    """The newest value of each field: a row for each combination of *tags*, without a time of its own."""
    columns = ", ".join(f"last({quoted(field)}) AS {quoted(field)}" for field in fields)
    grouped = f" GROUP BY {_list(tags)}" if tags else ""
    return f"SELECT {columns} FROM {quoted(measurement)} WHERE {where}{grouped}"


def totals(
    measurement: str, terms: Sequence[str], *, where: str, by: str | None = None, of: str = "device"
) -> list[str]:
    """A query for each of *terms*, such as ``sum("x") / sum("y") AS "z"``, over the newest values of each *of*, which
    is a tag: one row, or one for each value of the tag *by*.
    """
    tags = (of,) if by in {None, of} else (of, by)
    group = "" if by is None else f" GROUP BY {quoted(by)}"
    out = []
    for term in terms:
        fields = list(dict.fromkeys(_FIELD.findall(term)))
        out.append(f"SELECT {term} FROM ({newest(measurement, fields, tags, where=where)}){group}")
    return out


def total(how: str, *names: str) -> list[str]:
    """A term for each field, called as the field: ``sum("x") AS "x"``."""
    return [f"{how}({quoted(name)}) AS {quoted(name)}" for name in names]


def devices_where(
    measurement: str, condition: str, fields: Sequence[str], shown: Sequence[str], *, where: str
) -> str:
    """A row for each device whose newest values meet *condition*: its tags, and *shown* of *fields*."""
    inner = newest(measurement, fields, TAGS, where=where)
    return f"SELECT {_list((*TAGS, *shown))} FROM ({inner}) WHERE {condition}"


def over_time(
    measurement: str, fields: Sequence[str], *, where: str, by: str | None = None, how: str = "mean"
) -> str:
    """*how* (mean, min, max, last) of the points in each interval. One without points is null: nobody knows."""
    columns = ", ".join(f"{how}({quoted(field)}) AS {quoted(field)}" for field in fields)
    tag = "" if by is None else f", {quoted(by)}"
    return f"SELECT {columns} FROM {quoted(measurement)} WHERE {where} GROUP BY time($__interval){tag} fill(null)"


def tag_values(measurement: str, tag: str, *, where: str | None = None) -> str:
    """What a variable can be set to."""
    condition = "" if where is None else f" WHERE {where}"
    return f"SHOW TAG VALUES FROM {quoted(measurement)} WITH KEY = {quoted(tag)}{condition}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))
