"""Says which leases are held: sightings and time in, names out.

A lease is a time at which the device is not to be disturbed. Which there are and what each holds off is told by the
file of the class; where a device sees that one is held, by its profile: a field of a stream, or a file.

Rule 1: every sighting ends by itself. A reading counts for ``fresh_s``, a file for ``ttl_s`` after it was written:
an instrument that fell silent, or somebody who forgot his file, does not hold off changes for ever.
Rule 2: what nobody has looked at yet is held: a board that starts during a recording does not disturb it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, TypeAlias

from msgspec import Meta, Struct

from broker_config.device_classes import Change, DeviceClass
from broker_config.text import shown

OWNER_CHARS_MAX: Final = 64
UNSEEN: Final = "not seen yet"
"""The owner of what is held by rule 2."""

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class LeaseTable(Struct, frozen=True):
    """``[leases.NAME]`` of a profile, a lease of the class; either ``stream`` and ``field``, or ``file``.

    ``equals``: the reading that means held; without it every one but 0. ``file``: whoever holds the lease writes its
    name into it, again before ``ttl_s`` have passed, and removes it when done.
    """

    stream: str = ""
    field: str = ""
    equals: float | None = None
    fresh_s: Seconds = 60.0
    file: Annotated[str, Meta(max_length=4096)] = ""
    ttl_s: Seconds = 3600.0

    def __post_init__(self) -> None:
        if bool(self.file) == bool(self.stream) or bool(self.stream) != bool(self.field):
            raise ValueError("expected either stream and field, or file")


@dataclass(frozen=True, slots=True)
class ByReading:
    """``at``: which value of the stream's row."""

    stream: str
    at: int
    equals: float | None
    fresh_ms: int


@dataclass(frozen=True, slots=True)
class ByFile:
    """Whose text is the owner's name."""

    path: str
    ttl_ms: int


Source: TypeAlias = ByReading | ByFile


class Guard(NamedTuple):
    """A lease as it is seen here."""

    name: str
    defers: frozenset[Change]
    source: Source


class Sighting(NamedTuple):
    """Somebody holds it, and is believed until then (monotonic)."""

    owner: str
    until_ms: int


class Written(NamedTuple):
    """A lease's file. ``mark``: another one whenever it was written again; ``age_ms``: None if no clock can tell."""

    mark: tuple[int, int]
    owner: str
    age_ms: int | None


def guard(
    name: str,
    table: LeaseTable,
    device_class: DeviceClass,
    fields: Mapping[str, Sequence[str]],
    place: str,
    faults: list[str],
) -> Guard | None:
    """Check a table. *fields*: of each wired stream, those that are read. Appends each fault to *faults*."""
    lease = device_class.leases.get(name)
    if lease is None:
        known = ", ".join(device_class.leases) or "none"
        faults.append(f"{place}: unknown; {device_class.name} has {known}")
        return None
    if table.file:
        return Guard(name, frozenset(lease.defers), ByFile(table.file, int(table.ttl_s * 1000)))
    read = fields.get(table.stream, ())
    if table.field not in read:
        faults.append(f"{place}: {shown(table.stream)}.{shown(table.field)} is not wired")
        return None
    source = ByReading(table.stream, read.index(table.field), table.equals, int(table.fresh_s * 1000))
    return Guard(name, frozenset(lease.defers), source)


def unseen(guards: Sequence[Guard], mono_ms: int) -> dict[str, Sighting]:
    """What is held at the start of a run, until there is a reading. A file can be looked at at once."""
    return {
        each.name: Sighting(UNSEEN, mono_ms + each.source.fresh_ms)
        for each in guards
        if isinstance(each.source, ByReading)
    }


def read(source: ByReading, values: Sequence[float | None], before: Sighting | None, mono_ms: int) -> Sighting | None:
    """A row came; a value that is missing says nothing, and what was seen *before* counts until its end."""
    value = values[source.at]
    if value is None:
        return before
    held = value != 0 if source.equals is None else value == source.equals
    return Sighting(source.stream, mono_ms + source.fresh_ms) if held else None


def written(source: ByFile, file: Written, mono_ms: int) -> Sighting:
    """A file was found that is new or was written again; one whose age nobody knows is taken as just written."""
    age_ms = 0 if file.age_ms is None else max(0, file.age_ms)
    return Sighting(shown(file.owner, OWNER_CHARS_MAX), mono_ms + source.ttl_ms - age_ms)


def held(sightings: Mapping[str, Sighting], mono_ms: int) -> dict[str, str]:
    """Lease -> its owner, of all that are held now."""
    return {name: seen.owner for name, seen in sightings.items() if mono_ms < seen.until_ms}


def waits_for(guards: Sequence[Guard], held: Mapping[str, str], change: Change) -> str:
    """The first lease, in the class's order, that holds off *change*; empty if none does."""
    return next((each.name for each in guards if each.name in held and change in each.defers), "")
