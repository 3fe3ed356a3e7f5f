"""Reads a TOML table into a struct and finds every fault of it, not only the first."""

from typing import Annotated, TypeVar, get_args, get_origin

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
        elif (inner := _table_of(field.type)) is not None and isinstance(table[name], dict):
            values[name] = {
                key: read_table(value, inner, f"{prefix}{name}.{shown(key, 40)}", faults)
                for key, value in table[name].items()
            }
            _check_bounds(values[name], field.type, f"{prefix}{name}", faults)
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


def _table_of(kind: object) -> type[Struct] | None:
    """The struct of which *kind* is a dictionary by name; None if it is something else."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(plain) is not dict:
        return None
    inner = get_args(plain)[1]
    return inner if isinstance(inner, type) and issubclass(inner, Struct) else None


def _check_bounds(found: object, kind: object, place: str, faults: list[str]) -> None:
    """Of the dictionary's own length; what is in it was checked one by one."""
    assert isinstance(found, dict)
    for bound in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
        low, high = getattr(bound, "min_length", None), getattr(bound, "max_length", None)
        if (low is not None and len(found) < low) or (high is not None and len(found) > high):
            faults.append(f"{place}: expected {low or 0} to {high or 'any number of'} entries, got {len(found)}")
