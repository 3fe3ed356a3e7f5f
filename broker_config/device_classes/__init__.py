"""Device classes: what agent, server and dashboards must all know of a kind of equipment.

One declarative file a class: its streams with fields, measuring units (SenML names, RFC 8428) and plausible
ranges, and its journal events. A new class is a new file here and a profile on the device.
"""

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from broker_config.ids import ContractError
from broker_config.telemetry import JOURNAL, Stream

FILE_SUFFIX: Final = ".toml"
_DIRECTORY: Final = Path(__file__).parent  # importlib.resources would cost an agent most of a megabyte


class SpoolClass(StrEnum):
    """The order of eviction when a spool is full: ``bulk`` first, ``keep`` last."""

    BULK = "bulk"
    NORMAL = "normal"
    KEEP = "keep"


class Field(Struct, frozen=True, forbid_unknown_fields=True):
    """A reading: its measuring unit and the range outside which it is implausible (kept, and shown as such)."""

    unit: str
    min: float
    max: float
    description: str = ""


class StreamSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A numbered stream; ``every_s`` 0 is a stream without a cadence."""

    spool_class: SpoolClass
    every_s: Annotated[float, Meta(ge=0, le=86_400)] = 0
    fields: dict[Stream, Field] = {}


class DeviceClass(Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of equipment."""

    name: Stream
    description: str
    streams: dict[Stream, StreamSpec]
    events: dict[str, str]


class UnknownClassError(ContractError):
    """No such device class here."""


def names() -> tuple[str, ...]:
    """Every class that this version knows, in alphabetical order."""
    return tuple(
        sorted(
            entry.name.removesuffix(FILE_SUFFIX) for entry in _DIRECTORY.iterdir() if entry.name.endswith(FILE_SUFFIX)
        )
    )


@cache
def load(name: str) -> DeviceClass:
    """Read one class.

    Raises:
        UnknownClassError: there is no file of that name; the message names those there are.
        ContractError: the file is not what a class may be (told with the place in it).
    """
    if name not in names():
        raise UnknownClassError(f"device class: expected one of {', '.join(names())}, got {name[:40]!r}")
    text = _DIRECTORY.joinpath(name + FILE_SUFFIX).read_text(encoding="utf-8")
    try:
        loaded = msgspec.convert(tomllib.loads(text), DeviceClass)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise ContractError(f"device class {name}: {error}") from error
    if JOURNAL not in loaded.streams:
        raise ContractError(f"device class {name}: has no stream {JOURNAL!r}")
    return loaded


@cache
def known_streams() -> Mapping[str, frozenset[str]]:
    """Every stream of every class, with all the fields that any class gives it."""
    out: dict[str, frozenset[str]] = {}
    for name in names():
        for stream, spec in load(name).streams.items():
            out[stream] = out.get(stream, frozenset()) | frozenset(spec.fields)
    return out
