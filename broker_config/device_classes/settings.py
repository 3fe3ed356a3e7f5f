"""What can be set on a device: the few words of JSON Schema that configuration and commands need, and their check.

The same check runs where an operator writes a value and where the device takes it over.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from broker_config.text import shown

Value: TypeAlias = bool | int | float | str
TEXT_CHARS_MAX: Final = 256


class Type(StrEnum):
    """JSON Schema's names."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    STRING = "string"


class Setting(Struct, frozen=True, forbid_unknown_fields=True):
    """One value. Numbers have a unit and both bounds; a text has ``enum`` or ``max_length``; never null.

    ``firmware``: another value is another program on the device, which is held off by what defers firmware.
    """

    type: Type
    description: Annotated[str, Meta(min_length=1, max_length=200)]
    default: Value | None = None
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str, ...] = ()
    max_length: Annotated[int, Meta(ge=1, le=TEXT_CHARS_MAX)] | None = None
    firmware: bool = False

    def __post_init__(self) -> None:
        numeric = self.type in {Type.INTEGER, Type.NUMBER}
        told = (self.minimum is not None, self.maximum is not None, bool(self.unit))
        if numeric and not all(told):
            raise ValueError(f"{self.type} needs unit, minimum and maximum")
        if not numeric and any(told):
            raise ValueError(f"{self.type} has no unit, minimum or maximum")
        if (self.type is Type.STRING) != (bool(self.enum) or self.max_length is not None):
            raise ValueError("string, and nothing else, needs enum or max_length")
        if self.minimum is not None and self.maximum is not None and not self.minimum <= self.maximum:
            raise ValueError(f"expected minimum at most maximum, got {self.minimum:g} and {self.maximum:g}")
        if self.default is not None and (fault := self.fault(self.default)):
            raise ValueError(f"default: {fault}")

    def fault(self, value: object) -> str:
        """What is wrong with *value*: expected and got; empty if nothing is."""
        match self.type:
            case Type.BOOLEAN:
                right = isinstance(value, bool)
            case Type.INTEGER:
                right = isinstance(value, int) and not isinstance(value, bool)
            case Type.NUMBER:
                right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            case Type.STRING:
                right = isinstance(value, str)
        if not right:
            return f"expected {self.type}, got {shown(repr(value), 60)}"
        if isinstance(value, str):
            if self.enum and value not in self.enum:
                return f"expected one of {', '.join(self.enum)}, got {shown(value, 60)!r}"
            if self.max_length is not None and len(value) > self.max_length:
                return f"expected at most {self.max_length} characters, got {len(value)}"
        elif self.minimum is not None and self.maximum is not None:
            assert isinstance(value, int | float)
            if not self.minimum <= value <= self.maximum:
                return f"expected {self.minimum:g} to {self.maximum:g} {self.unit}, got {shown(repr(value), 60)}"
        return ""


def faults_of(known: Mapping[str, Setting], values: Mapping[str, object]) -> list[str]:
    """Every unknown name and every wrong value, one line each, in the order of *values*."""
    out: list[str] = []
    for name, value in values.items():
        setting = known.get(name)
        fault = "unknown" if setting is None else setting.fault(value)
        if fault:
            out.append(f"{shown(name, 60)}: {fault}")
    return out
