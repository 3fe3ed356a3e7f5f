"""Reads ``agent.toml`` and the profile that it names into one frozen structure, or tells every fault of both.

Paths are relative to the file that names them. In the options of a wire ``{state_dir}`` stands for the agent's
state directory, and ``{name}`` for an address of the profile's table ``[addresses]``, which ``[addresses]`` of
agent.toml overrides: a profile is the same for every device of its kind, where an instrument is plugged in is not.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from broker_config import device_classes, ids, limits
from broker_config.device_classes import DeviceClass, StreamSpec
from broker_config.ids import ContractError, DeviceId
from broker_config.telemetry import JOURNAL
from broker_config.text import shown
from firmware_bridge.driver import Resource
from firmware_bridge.registry import UnknownDriverError, driver_class
from firmware_bridge.tables import read_table

if TYPE_CHECKING:
    from edge_agent.upload_tables import UploadSettings

PROFILE_SUFFIX: Final = ".toml"
PROFILES: Final = Path(__file__).parent / "profiles"
WIRES_MAX: Final = limits.STREAMS_MAX // 2
STATE_DIR: Final = "state_dir"
PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
PROFILE_NAMES: Final = frozenset({"device_class", "addresses", "wires"})
DEADLINE_S: Final = 5.0
"""A driver that takes longer has failed, unless its cadence is shorter still."""

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Path_ = Annotated[str, Meta(min_length=1, max_length=4096)]


class BrokerTable(Struct, frozen=True):
    """``[broker]``."""

    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65_535)]
    ca_file: Path_
    cert_file: Path_
    key_file: Path_
    keep_alive_s: Annotated[int, Meta(ge=1, le=limits.KEEP_ALIVE_S_MAX)] = limits.KEEP_ALIVE_S


class EnrolmentTable(Struct, frozen=True):
    """``[enrolment]``: where this device was enrolled, and renews its certificate; without it nobody renews it."""

    url: Annotated[str, Meta(min_length=1, max_length=512)]


class ReceiptsTable(Struct, frozen=True):
    """``[receipts]``."""

    mac_file: Path_
    receipt_wait_s: Seconds = limits.RECEIPT_WAIT_S
    unreceipted_batches_max: Annotated[int, Meta(ge=1, le=1000)] = limits.UNRECEIPTED_BATCHES_MAX


class OrdersTable(Struct, frozen=True):
    """``[orders]``. ``signers_file`` empty: nobody may order anything."""

    signers_file: Annotated[str, Meta(max_length=4096)] = ""


class SpoolTable(Struct, frozen=True):
    """``[spool]``."""

    bytes_max: Annotated[int, Meta(ge=65_536)] = 268_435_456
    hold_h: Annotated[float, Meta(ge=0, le=8760)] = 48.0


class BackoffTable(Struct, frozen=True):
    """``[backoff]``."""

    s_min: Seconds = 1.0
    s_cap: Seconds = 60.0
    stable_s: Seconds = 60.0


class ClockTable(Struct, frozen=True):
    """``[clock]``."""

    rtt_ms_max: Annotated[int, Meta(ge=1, le=60_000)] = limits.RTT_MS_MAX
    ask_every_s: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0


class SystemTable(Struct, frozen=True):
    """``[system]``: where the board's own facts come from; only a rig that plays a board changes it.

    ``ntp``: ``kernel`` asks adjtimex whether somebody disciplines the clock; ``yes`` and ``no`` say so.
    ``mono_add_ms``: added to the monotonic clock.
    """

    boot_id_file: Path_ = "/proc/sys/kernel/random/boot_id"
    ntp: Literal["kernel", "yes", "no"] = "kernel"
    mono_add_ms: Annotated[int, Meta(ge=0, le=10**12)] = 0


class AgentFile(Struct, frozen=True):
    """``agent.toml``."""

    device: Annotated[str, Meta(pattern=ids.DEVICE_ID_PATTERN)]
    device_class: str
    profile: Path_
    broker: BrokerTable
    receipts: ReceiptsTable
    enrolment: EnrolmentTable | None = None
    addresses: dict[str, str] = {}
    state_dir: Path_ = "state"
    seal_s: Annotated[float, Meta(ge=0.1, le=300)] = limits.SEAL_S
    stop_drain_s: Annotated[float, Meta(ge=0, le=60)] = 2.0
    orders: OrdersTable = OrdersTable()
    spool: SpoolTable = SpoolTable()
    backoff: BackoffTable = BackoffTable()
    clock: ClockTable = ClockTable()
    system: SystemTable = SystemTable()
    uploads: dict[str, object] = {}


class WireTable(Struct, frozen=True):
    """``[[wires]]``: what feeds which stream. ``every_s`` and ``deadline_s``: None is the class's cadence, and
    the shorter of that and DEADLINE_S. ``points``: the stream's fields that are read, each with the driver's name for
    it; empty is every field under its own name. ``optional``: left out where the driver finds nothing to read.
    """

    stream: str
    driver: str
    every_s: Annotated[float, Meta(ge=0.05, le=86_400)] | None = None
    deadline_s: Seconds | None = None
    optional: bool = False
    points: dict[str, str] = {}
    options: dict[str, object] = {}


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


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the agent is told, with paths made absolute. ``uploads`` None: no folder of files."""

    device: DeviceId
    device_class: DeviceClass
    profile: str
    profile_digest: str
    wires: tuple[Wire, ...]
    state_dir: Path
    ca_file: Path
    cert_file: Path
    key_file: Path
    mac_file: Path
    signers_file: Path | None
    boot_id_file: Path
    config_file: Path
    uploads: "UploadSettings | None"
    file: AgentFile


class ConfigError(Exception):
    """What is wrong with the files; ``faults`` has one line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


def load(path: Path) -> Settings:
    """Read and check ``agent.toml`` and the profile.

    Raises:
        ConfigError: with every fault of both.
    """
    faults: list[str] = []
    table = _read_toml(path, str(path.name), faults)
    file = read_table(table, AgentFile, "", faults) if table is not None else None
    if file is None:
        raise ConfigError(faults)
    base = path.resolve().parent
    state_dir = base / file.state_dir
    device_class = _class(file.device_class, "device_class", faults)
    profile = _profile_path(file.profile, base, faults)
    wires = [] if profile is None else _profile(profile, file, device_class, state_dir, faults)
    paths: dict[str, Path] = {}
    for place, name in (
        ("broker.ca_file", file.broker.ca_file),
        ("broker.cert_file", file.broker.cert_file),
        ("broker.key_file", file.broker.key_file),
        ("receipts.mac_file", file.receipts.mac_file),
        *((("orders.signers_file", file.orders.signers_file),) if file.orders.signers_file else ()),
        ("system.boot_id_file", file.system.boot_id_file),
    ):
        paths[place] = base / name
        if not paths[place].is_file():
            faults.append(f"{place}: no file {shown(name)}")
    uploads = _uploads(file, device_class, base, state_dir, faults) if file.uploads else None
    if file.backoff.s_min > file.backoff.s_cap:
        faults.append(f"backoff.s_min: expected at most s_cap {file.backoff.s_cap}, got {file.backoff.s_min}")
    if faults or device_class is None or profile is None:
        raise ConfigError(faults)
    return Settings(
        device=ids.device_id(file.device),
        device_class=device_class,
        profile=profile.stem,
        profile_digest=_digest(profile),
        wires=tuple(wires),
        state_dir=state_dir,
        ca_file=paths["broker.ca_file"],
        cert_file=paths["broker.cert_file"],
        key_file=paths["broker.key_file"],
        mac_file=paths["receipts.mac_file"],
        signers_file=paths.get("orders.signers_file"),
        boot_id_file=paths["system.boot_id_file"],
        config_file=path.resolve(),
        uploads=uploads,
        file=file,
    )


def _read_toml(path: Path, place: str, faults: list[str]) -> dict[str, object] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"{place}: {error.strerror or error}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{place}: {error}")
    return None


def _class(name: str, place: str, faults: list[str]) -> DeviceClass | None:
    try:
        return device_classes.load(name)
    except ContractError as error:
        faults.append(f"{place}: {error}")
        return None


def _uploads(
    file: AgentFile, device_class: DeviceClass | None, base: Path, state_dir: Path, faults: list[str]
) -> "UploadSettings | None":
    from edge_agent import upload_tables  # noqa: PLC0415  # memory that a device without folders does not need

    table = read_table(file.uploads, upload_tables.Uploads, "uploads", faults)
    if table is None or device_class is None:
        return None
    return upload_tables.placed(table, device_class, base, state_dir, faults)


def shipped_profiles() -> tuple[str, ...]:
    """The names that need no path."""
    return tuple(sorted(path.stem for path in PROFILES.glob("*" + PROFILE_SUFFIX)))


def _profile_path(name: str, base: Path, faults: list[str]) -> Path | None:
    """A name without ``/`` and ``.toml`` is a shipped profile's."""
    if "/" in name or name.endswith(PROFILE_SUFFIX):
        return base / name
    if name in shipped_profiles():
        return PROFILES / (name + PROFILE_SUFFIX)
    faults.append(f"profile: expected a path or one of {', '.join(shipped_profiles())}, got {shown(name)!r}")
    return None


def _digest(path: Path) -> str:
    """SHA-256 of the profile's bytes; two devices with the same one are wired alike, but for their addresses."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _profile(
    path: Path, file: AgentFile, device_class: DeviceClass | None, state_dir: Path, faults: list[str]
) -> list[Wire]:
    """The wires of the profile, as far as they are right."""
    place = f"profile {path.stem}"
    table = _read_toml(path, place, faults)
    if table is None:
        return []
    faults.extend(f"{place}: {shown(key)}: unknown" for key in table if key not in PROFILE_NAMES)
    told = table.get("device_class")
    if device_class is not None and told != device_class.name:
        faults.append(f"{place}: device_class: expected {device_class.name!r}, got {shown(repr(told))}")
    addresses = _addresses(table.get("addresses", {}), file.addresses, place, faults)
    tables = table.get("wires", [])
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
        wire = _wire(row, f"{place}: wires[{at}]", device_class, {**addresses, STATE_DIR: str(state_dir)}, faults)
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
    resource = driver_class(wire.driver).resource(wire.options)
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
    return Wire(row.stream, row.driver, fields, points, every_s, deadline_s, row.optional, options)


def _fields(row: WireTable, place: str, stream: StreamSpec, faults: list[str]) -> tuple[str, ...]:
    """The fields that are read, in the class's order."""
    foreign = [field for field in row.points if field not in stream.fields]
    if foreign:
        faults.append(
            f"{place}.points: {row.stream} has no {', '.join(map(shown, foreign))}; "
            f"expected of {', '.join(stream.fields)}"
        )
    return tuple(field for field in stream.fields if not row.points or field in row.points)


def as_json(error: ConfigError) -> str:
    """For programs: ``{"faults": [...]}``."""
    return msgspec.json.encode({"faults": list(error.faults)}).decode()
