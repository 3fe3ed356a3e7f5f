"""Reads ``agent.toml`` and the profile that it names into one frozen structure, or tells every fault of both.

Paths are relative to the file that names them.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from broker_config import device_classes, ids, limits
from broker_config.device_classes import DeviceClass
from broker_config.ids import ContractError, DeviceId
from broker_config.text import shown
from edge_agent import profile
from edge_agent.handlers import HOST_PATTERN
from edge_agent.profile import Profile
from firmware_bridge.tables import read_table

if TYPE_CHECKING:
    from edge_agent.upload_tables import UploadSettings

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Path_ = Annotated[str, Meta(min_length=1, max_length=4096)]


class BrokerTable(Struct, frozen=True):
    """``[broker]``."""

    host: Annotated[str, Meta(max_length=255, pattern=HOST_PATTERN)]
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


class Over(StrEnum):
    """How releases come: from the devices' listener, or, where only MQTT passes, through the broker."""

    HTTPS = "https"
    MQTT = "mqtt"


class ReleasesTable(Struct, frozen=True):
    """``[releases]``: who may release for this device, TUF's root of its site. ``hardware``: what this board is;
    empty: named as its class.
    """

    root_file: Path_
    hardware: Annotated[str, Meta(max_length=63)] = ""
    over: Over = Over.HTTPS


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


class CommandsTable(Struct, frozen=True):
    """``[commands]``: what this board does by programs of its own; argument lists, none: not supported."""

    reboot: Annotated[tuple[str, ...], Meta(max_length=16)] = ()


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
    releases: ReleasesTable | None = None
    spool: SpoolTable = SpoolTable()
    backoff: BackoffTable = BackoffTable()
    clock: ClockTable = ClockTable()
    system: SystemTable = SystemTable()
    commands: CommandsTable = CommandsTable()
    uploads: dict[str, object] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the agent is told, with paths made absolute. ``uploads`` None: no folder of files."""

    device: DeviceId
    device_class: DeviceClass
    profile: Profile
    state_dir: Path
    ca_file: Path
    cert_file: Path
    key_file: Path
    mac_file: Path
    signers_file: Path | None
    release_root_file: Path | None
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
    table = profile.read_toml(path, str(path.name), faults)
    file = read_table(table, AgentFile, "", faults) if table is not None else None
    if file is None:
        raise ConfigError(faults)
    base = path.resolve().parent
    state_dir = base / file.state_dir
    device_class = _class(file.device_class, "device_class", faults)
    found = profile.find(file.profile, base, faults)
    wired = None if found is None else profile.read(found, file.addresses, device_class, state_dir, faults)
    paths: dict[str, Path] = {}
    for place, name in (
        ("broker.ca_file", file.broker.ca_file),
        ("broker.cert_file", file.broker.cert_file),
        ("broker.key_file", file.broker.key_file),
        ("receipts.mac_file", file.receipts.mac_file),
        *((("orders.signers_file", file.orders.signers_file),) if file.orders.signers_file else ()),
        *(() if file.releases is None else (("releases.root_file", file.releases.root_file),)),
        ("system.boot_id_file", file.system.boot_id_file),
    ):
        paths[place] = base / name
        if not paths[place].is_file():
            faults.append(f"{place}: no file {shown(name)}")
    uploads = _uploads(file, device_class, base, state_dir, faults) if file.uploads else None
    if file.backoff.s_min > file.backoff.s_cap:
        faults.append(f"backoff.s_min: expected at most s_cap {file.backoff.s_cap}, got {file.backoff.s_min}")
    if faults or device_class is None or wired is None:
        raise ConfigError(faults)
    return Settings(
        device=ids.device_id(file.device),
        device_class=device_class,
        profile=wired,
        state_dir=state_dir,
        ca_file=paths["broker.ca_file"],
        cert_file=paths["broker.cert_file"],
        key_file=paths["broker.key_file"],
        mac_file=paths["receipts.mac_file"],
        signers_file=paths.get("orders.signers_file"),
        release_root_file=paths.get("releases.root_file"),
        boot_id_file=paths["system.boot_id_file"],
        config_file=path.resolve(),
        uploads=uploads,
        file=file,
    )


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


def as_json(error: ConfigError) -> str:
    """For programs: ``{"faults": [...]}``."""
    return msgspec.json.encode({"faults": list(error.faults)}).decode()
