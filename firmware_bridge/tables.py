"""Reads a TOML table into a struct and finds every fault of it, not only the first."""

from typing import TypeVar

import msgspec
from msgspec import Struct, structs

from broker_config.text import shown

S = TypeVar("S", bound=Struct)


def read_table(table: object, kind: type[S], place: str, faults: list[str]) -> S | None:
    """Convert *table* (nested tables become nested structs); append each fault to *faults*, with its place.

    Returns:
        None if there was any fault.
    """
    prefix = f"{place}." if place else ""
    if not isinstance(table, dict):
        faults.append(f"{place}: expected a table, got {shown(repr(table))}")
        return None
    before = len(faults)
    fields = {field.encode_name: field for field in structs.fields(kind)}
    faults.extend(f"{prefix}{shown(name)}: unknown" for name in table if name not in fields)
    values: dict[str, object] = {}
    for name, field in fields.items():
        if name not in table:
            if field.required:
                faults.append(f"{prefix}{name}: missing")
        elif isinstance(field.type, type) and issubclass(field.type, Struct):
            values[name] = read_table(table[name], field.type, f"{prefix}{name}", faults)
        else:
            try:
                values[name] = msgspec.convert(table[name], field.type)
            except msgspec.ValidationError as error:
                faults.append(f"{prefix}{name}: {error}, the value is {shown(repr(table[name]))}")
    if len(faults) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:  # a rule that spans more than one type can say
        faults.append(f"{place}: {error}")
        return None
