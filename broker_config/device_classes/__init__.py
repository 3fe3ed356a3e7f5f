"""Device classes: what agent, server and dashboards must all know of a kind of equipment.

One declarative file a class: its streams with fields, measuring units (SenML names, RFC 8428) and plausible
ranges, its journal events, the leases that hold changes off, what can be configured and commanded, the files that it
uploads. A new class is a new file here and a profile on the device.

Rule 1: every class is also a board that carries an agent: it has the streams, events, settings, commands and files of
``host``, unless it has its own of that name.
Rule 2: a field that two classes have in streams of one name means the same, so it has the same unit.
"""

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from broker_config.device_classes.settings import Setting, faults_of
from broker_config.ids import ContractError
from broker_config.telemetry import JOURNAL, Stream

FILE_SUFFIX: Final = ".toml"
BOARD: Final = "host"
"""The class that every other one includes."""
FILE_CLASSES_MAX: Final = 16
_DIRECTORY: Final = Path(__file__).parent  # importlib.resources would cost an agent most of a megabyte

Text = Annotated[str, Meta(min_length=1, max_length=200)]
EventKind = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_.]{0,47}\Z")]
Suffix = Annotated[str, Meta(pattern=r"^\.[a-z0-9]{1,8}\Z")]
MediaType = Annotated[str, Meta(pattern=r"^[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}\Z")]
CommandName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31})?\Z")]


class SpoolClass(StrEnum):
    """The order of eviction when a spool is full: ``bulk`` first, ``keep`` last."""

    BULK = "bulk"
    NORMAL = "normal"
    KEEP = "keep"


class Field(Struct, frozen=True, forbid_unknown_fields=True):
    """A reading: its measuring unit and the range outside which it is implausible (kept, and shown as such)."""

    unit: Annotated[str, Meta(min_length=1, max_length=16)]
    min: float
    max: float
    description: str = ""

    def __post_init__(self) -> None:
        if not self.min < self.max:
            raise ValueError(f"expected min below max, got {self.min:g} and {self.max:g}")


class StreamSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A numbered stream; ``every_s`` 0 is a stream without a cadence."""

    spool_class: SpoolClass
    every_s: Annotated[float, Meta(ge=0, le=86_400)] = 0
    fields: dict[Stream, Field] = {}


class Change(StrEnum):
    """What a lease can hold off."""

    CONFIG = "config"
    FIRMWARE = "firmware"
    COMMAND = "command"


class Lease(Struct, frozen=True, forbid_unknown_fields=True):
    """A time at which the device is not to be disturbed; *defers* says by what."""

    description: Text
    defers: Annotated[tuple[Change, ...], Meta(min_length=1)] = tuple(Change)


class SafetyClass(StrEnum):
    """What a command can do to people, evidence or service.

    ``harmless`` may come at any time. ``disruptive`` takes the equipment from its user for a while, and waits for
    leases that defer commands. ``hazardous`` can endanger people or evidence: besides, it needs a second person.
    """

    HARMLESS = "harmless"
    DISRUPTIVE = "disruptive"
    HAZARDOUS = "hazardous"


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    """What can be asked of the device by name. ``expires_s``: it is not begun later than this after it was given."""

    description: Text
    safety_class: SafetyClass
    expires_s: Annotated[int, Meta(ge=1, le=604_800)]
    parameters: dict[Stream, Setting] = {}


class Priority(StrEnum):
    """How urgent a file is: ``alarm`` goes before everything, the others share what is left, 8 to 4 to 1."""

    ALARM = "alarm"
    FLAGGED = "flagged"
    ROUTINE = "routine"
    LOG = "log"


class FileKind(StrEnum):
    """What a file is, for how long it must be kept at least."""

    RECORDING = "recording"
    IMAGE = "image"
    LOG = "log"


class FileClass(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder of files that the device uploads. ``media``: suffix -> media type; a file of another suffix is not
    taken. Recordings are chains of segments; every other file stands alone.
    """

    description: Text
    kind: FileKind
    media: Annotated[dict[Suffix, MediaType], Meta(min_length=1, max_length=16)]
    priority: Priority = Priority.ROUTINE


class DeviceClass(Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of equipment."""

    name: Stream
    description: Text
    streams: dict[Stream, StreamSpec]
    events: dict[EventKind, Text]
    leases: dict[Stream, Lease] = {}
    config: dict[Stream, Setting] = {}
    commands: dict[CommandName, Command] = {}
    files: Annotated[dict[Stream, FileClass], Meta(max_length=FILE_CLASSES_MAX)] = {}

    def config_faults(self, document: Mapping[str, object]) -> list[str]:
        """Everything wrong with a configuration that may leave settings out; one line each."""
        return faults_of(self.config, document)

    def parameter_faults(self, command: str, parameters: Mapping[str, object]) -> list[str]:
        """Everything wrong with what a command of this class is given; what has no default must be there."""
        known = self.commands.get(command)
        if known is None:
            return [f"command: expected one of {', '.join(self.commands)}, got {command[:40]!r}"]
        missing = [
            f"{name}: missing"
            for name, setting in known.parameters.items()
            if setting.default is None and name not in parameters
        ]
        return missing + faults_of(known.parameters, parameters)


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
    loaded = _read(name)
    if name != BOARD:
        board = load(BOARD)
        loaded = msgspec.structs.replace(
            loaded,
            streams={**board.streams, **loaded.streams},
            events={**board.events, **loaded.events},
            config={**board.config, **loaded.config},
            commands={**board.commands, **loaded.commands},
            files={**board.files, **loaded.files},
        )
    if JOURNAL not in loaded.streams:
        raise ContractError(f"device class {name}: has no stream {JOURNAL!r}")
    return loaded


def _read(name: str) -> DeviceClass:
    text = _DIRECTORY.joinpath(name + FILE_SUFFIX).read_text(encoding="utf-8")
    try:
        loaded = msgspec.convert(tomllib.loads(text), DeviceClass)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise ContractError(f"device class {name}: {error}") from error
    if loaded.name != name:
        raise ContractError(f"device class {name}: the file says it is {loaded.name}")
    return loaded


@cache
def known_streams() -> Mapping[str, frozenset[str]]:
    """Every stream of every class, with all the fields that any class gives it."""
    out: dict[str, frozenset[str]] = {}
    for name in names():
        for stream, spec in load(name).streams.items():
            out[stream] = out.get(stream, frozenset()) | frozenset(spec.fields)
    return out
