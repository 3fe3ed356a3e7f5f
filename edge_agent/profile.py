"""Reads a profile: how a device class is wired here.

``[[wires]]`` say which driver feeds which stream, ``[leases]`` where each lease of the class shows itself,
``[settings]`` what applies each setting, ``[commands]`` what carries out which command. In what a profile says
``{state_dir}`` stands for the agent's state directory, and ``{name}`` for an address of its table ``[addresses]``,
which ``[addresses]`` of agent.toml overrides: a profile is the same for every device of its kind, where an instrument
is plugged in is not.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from broker_config import device_classes, limits
from broker_config.device_classes import DeviceClass, StreamSpec
from broker_config.telemetry import JOURNAL
from broker_config.text import shown
from edge_agent import handlers, leases
from edge_agent.handlers import ARGUMENTS_MAX, Argument, Handler, HandlerTable
from edge_agent.leases import Guard, LeaseTable
from firmware_bridge.driver import Driver, MonoMs, Resource
from firmware_bridge.expected import Expected
from firmware_bridge.registry import UnknownDriverError, driver_class
from firmware_bridge.tables import read_table

PROFILE_SUFFIX: Final = ".toml"
PROFILES: Final = Path(__file__).parent / "profiles"
WIRES_MAX: Final = limits.STREAMS_MAX // 2
STATE_DIR: Final = "state_dir"
PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
PROFILE_NAMES: Final = frozenset({"device_class", "addresses", "wires", "leases", "settings", "commands"})
DEADLINE_S: Final = 5.0
"""A driver that takes longer has failed, unless its cadence is shorter still."""

T = TypeVar("T", bound=Struct)
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class WireTable(Struct, frozen=True):
    """``[[wires]]``: what feeds which stream. ``every_s`` and ``deadline_s``: None is the class's cadence, and
    the shorter of that and DEADLINE_S. ``points``: the stream's fields that are read, each with the driver's name for
    it; empty is every field under its own name. ``optional``: left out where the driver finds nothing to read.
    ``expects``: what the instrument must tell of itself, see Expected; empty: whoever is there is good.
    """

    stream: str
    driver: str
    every_s: Annotated[float, Meta(ge=0.05, le=86_400)] | None = None
    deadline_s: Seconds | None = None
    optional: bool = False
    points: dict[str, str] = {}
    options: dict[str, object] = {}
    expects: dict[str, object] = {}


@dataclass(frozen=True, slots=True)
class Wire:
    """A checked wire. ``fields`` are the stream's that are read, in the class's order; ``points`` are the driver's
    names for them, in that order.
    """

    stream: str
    driver: str
    fields: tuple[str, ...]
    points: tuple[str, ...]
    every_s: float
    deadline_s: float
    optional: bool
    options: Struct
    expects: Expected | None = None

    @property
    def resource(self) -> Resource | None:
        """What its driver needs to itself."""
        return driver_class(self.driver).resource(self.options)

    def driver_for(self, mono_ms: MonoMs) -> Driver:
        """Its driver, which nobody has asked yet."""
        driver = driver_class(self.driver)(self.options, mono_ms)
        if self.expects is None:
            return driver
        from firmware_bridge.guarded import Guarded  # noqa: PLC0415  # few wires need it

        return Guarded(driver, self.expects, mono_ms)


class Program(Struct, frozen=True):
    """``[commands.NAME]``: what carries out a command of the class, those of every board excepted. It gets the
    parameters as JSON on stdin; exit code 0 is done.
    """

    argv: Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=ARGUMENTS_MAX)]
    seconds_max: Annotated[float, Meta(ge=0.1, le=3_600)] = 60.0


@dataclass(frozen=True, slots=True)
class Profile:
    """A checked one, for this device. ``digest``: SHA-256 of its bytes; two devices with the same one are wired
    alike, but for their addresses. ``handlers``: setting -> what applies it; ``programs``: command -> what does it.
    """

    name: str
    digest: str
    wires: tuple[Wire, ...]
    guards: tuple[Guard, ...]
    handlers: Mapping[str, Handler]
    programs: Mapping[str, Program]


def shipped() -> tuple[str, ...]:
    """The names that need no path."""
    return tuple(sorted(path.stem for path in PROFILES.glob("*" + PROFILE_SUFFIX)))


def find(name: str, base: Path, faults: list[str]) -> Path | None:
    """A name without ``/`` and ``.toml`` is a shipped profile's; a path is relative to *base*."""
    if "/" in name or name.endswith(PROFILE_SUFFIX):
        return base / name
    if name in shipped():
        return PROFILES / (name + PROFILE_SUFFIX)
    faults.append(f"profile: expected a path or one of {', '.join(shipped())}, got {shown(name)!r}")
    return None


def read_toml(path: Path, place: str, faults: list[str]) -> dict[str, object] | None:
    """Append each fault to *faults*."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"{place}: {error.strerror or error}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{place}: {error}")
    return None


def read(
    path: Path, told: Mapping[str, str], device_class: DeviceClass | None, state_dir: Path, faults: list[str]
) -> Profile | None:
    """*told*: the addresses of agent.toml. Appends each fault to *faults*; None if there is no profile at all."""
    place = f"profile {path.stem}"
    table = read_toml(path, place, faults)
    if table is None:
        return None
    faults.extend(f"{place}: {shown(key)}: unknown" for key in table if key not in PROFILE_NAMES)
    named = table.get("device_class")
    if device_class is not None and named != device_class.name:
        faults.append(f"{place}: device_class: expected {device_class.name!r}, got {shown(repr(named))}")
    addresses = _addresses(table.get("addresses", {}), told, place, faults)
    known = {**addresses, STATE_DIR: str(state_dir)}
    wires = _wires(table.get("wires", []), place, device_class, known, faults)
    guards: dict[str, Guard] = {}
    applied: dict[str, Handler] = {}
    programs = _tables(table, "commands", Program, place, known, faults)
    if device_class is not None:
        fields = {wire.stream: wire.fields for wire in wires}
        for name, lease in _tables(table, "leases", LeaseTable, place, known, faults).items():
            guard = leases.guard(name, lease, device_class, fields, f"{place}: leases.{shown(name)}", faults)
            guards |= {} if guard is None else {name: guard}
        rows = _tables(table, "settings", HandlerTable, place, known, faults)
        applied = handlers.read(rows, device_class, f"{place}: settings", faults)
        faults.extend(_foreign_commands(programs, device_class, f"{place}: commands"))
        guards = {name: guards[name] for name in device_class.leases if name in guards}  # in the class's order
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Profile(path.stem, digest, tuple(wires), tuple(guards.values()), applied, programs)


def _foreign_commands(programs: Mapping[str, Program], device_class: DeviceClass, place: str) -> list[str]:
    own = device_classes.load(device_classes.BOARD).commands
    known = [name for name in device_class.commands if name not in own]
    expected = f"expected one of {', '.join(known) or 'none'}"
    return [f"{place}.{shown(name)}: {expected}" for name in programs if name not in known]


def _tables(
    table: Mapping[str, object],
    name: str,
    kind: type[T],
    place: str,
    addresses: Mapping[str, str],
    faults: list[str],
) -> dict[str, T]:
    """``[NAME.key]`` for each key, as far as they are right."""
    rows = table.get(name, {})
    if not isinstance(rows, dict):
        faults.append(f"{place}: {name}: expected tables")
        return {}
    out: dict[str, T] = {}
    for key, row in rows.items():
        at = f"{place}: {name}.{shown(key, 40)}"
        found = read_table(_filled(row, addresses, at, faults), kind, at, faults)
        if found is not None:
            out[key] = found
    return out


def _wires(
    tables: object, place: str, device_class: DeviceClass | None, addresses: Mapping[str, str], faults: list[str]
) -> list[Wire]:
    if not isinstance(tables, list) or len(tables) > WIRES_MAX:
        faults.append(f"{place}: wires: expected at most {WIRES_MAX} tables")
        return []
    wires: list[Wire] = []
    seen: set[str] = set()
    used: dict[str, tuple[str, Resource]] = {}
    for at, entry in enumerate(tables, start=1):
        row = read_table(entry, WireTable, f"{place}: wires[{at}]", faults)
        if row is None or device_class is None:
            continue
        if row.stream in seen:
            faults.append(f"{place}: wires[{at}]: stream {row.stream} is wired twice")
        seen.add(row.stream)
        wire = _wire(row, f"{place}: wires[{at}]", device_class, addresses, faults)
        if wire is not None:
            wires.append(wire)
            _share(wire, f"{place}: wires[{at}]", used, faults)
    return wires


def _addresses(table: object, told: Mapping[str, str], place: str, faults: list[str]) -> dict[str, str]:
    """The profile's addresses as agent.toml overrides them; an empty one has to be overridden."""
    try:
        out = msgspec.convert(table, dict[str, str])
    except msgspec.ValidationError as error:
        faults.append(f"{place}: addresses: {error}")
        return {}
    known = ", ".join(out) or "none"
    faults.extend(f"addresses.{shown(name)}: unknown; {place} has {known}" for name in told if name not in out)
    out |= {name: address for name, address in told.items() if name in out}
    faults.extend(f"addresses.{shown(name)}: missing; {place} has no default" for name in out if not out[name])
    return out


def _filled(value: object, addresses: Mapping[str, str], place: str, faults: list[str]) -> object:
    """*value* with its placeholders filled in."""
    if isinstance(value, dict):
        return {key: _filled(inner, addresses, place, faults) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, addresses, place, faults) for inner in value]
    if not isinstance(value, str):
        return value
    faults.extend(
        f"{place}: no address {shown(name)!r}: expected one of {', '.join(addresses)}"
        for name in PLACEHOLDER.findall(value)
        if name not in addresses
    )
    return PLACEHOLDER.sub(lambda found: addresses.get(found[1], found[0]), value)


def _share(wire: Wire, place: str, used: dict[str, tuple[str, Resource]], faults: list[str]) -> None:
    """Two wires of one port must mean the same line."""
    resource = wire.resource
    if resource is None:
        return
    first = used.setdefault(resource[0], (wire.stream, resource))
    if first[1] != resource:
        faults.append(f"{place}.options: {shown(resource[0])} is used by {first[0]} with another driver or settings")
    elif first[0] != wire.stream and not driver_class(wire.driver).shares:
        faults.append(f"{place}.options: {shown(resource[0])} is used by {first[0]}, and cannot be shared")


def _wire(
    row: WireTable, place: str, device_class: DeviceClass, addresses: Mapping[str, str], faults: list[str]
) -> Wire | None:
    before = len(faults)
    stream = device_class.streams.get(row.stream) if row.stream != JOURNAL else None
    if stream is None:
        known = ", ".join(name for name in device_class.streams if name != JOURNAL)
        faults.append(f"{place}.stream: expected one of {known}, got {shown(row.stream)!r}")
    fields = _fields(row, place, stream, faults) if stream is not None else ()
    every_s = row.every_s if row.every_s is not None else stream.every_s if stream is not None else 1.0
    if every_s <= 0:
        faults.append(f"{place}.every_s: missing, and the class gives {row.stream} no cadence")
    try:
        driver = driver_class(row.driver)
    except UnknownDriverError as error:
        faults.append(f"{place}.driver: {error}")
        return None
    except ImportError as error:
        faults.append(f"{place}.driver: {row.driver} is not usable here: {error}")
        return None
    told = _filled(row.options, addresses, f"{place}.options", faults)
    options = read_table(told, driver.options_type, f"{place}.options", faults)
    expects: Expected | None = None
    if row.expects:
        expects = read_table(
            _filled(row.expects, addresses, f"{place}.expects", faults), Expected, f"{place}.expects", faults
        )
        if driver.identify is Driver.identify:
            faults.append(f"{place}.expects: {row.driver} has no way to ask who is there")
    if stream is None or options is None:
        return None
    points = tuple(row.points.get(field, field) for field in fields)
    known_points = driver.points_of(options)
    foreign = [point for point in points if known_points and point not in known_points]
    if foreign:
        faults.append(
            f"{place}.points: {row.driver} does not read {', '.join(map(shown, foreign))}; "
            f"expected of {', '.join(known_points)}"
        )
    if len(faults) > before:
        return None
    deadline_s = row.deadline_s if row.deadline_s is not None else min(every_s, DEADLINE_S)
    return Wire(row.stream, row.driver, fields, points, every_s, deadline_s, row.optional, options, expects)


def _fields(row: WireTable, place: str, stream: StreamSpec, faults: list[str]) -> tuple[str, ...]:
    """The fields that are read, in the class's order."""
    foreign = [field for field in row.points if field not in stream.fields]
    if foreign:
        faults.append(
            f"{place}.points: {row.stream} has no {', '.join(map(shown, foreign))}; "
            f"expected of {', '.join(stream.fields)}"
        )
    return tuple(field for field in stream.fields if not row.points or field in row.points)
