"""What the watches remember, as rows of (topic, name, value): so that a restart tells nothing twice. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from fleet_server.outbound.server_watch import ServerTold
from fleet_server.outbound.watch import Told

DEVICE: Final = "device"
GAP: Final = "gap"
SERVER: Final = "server"
BASELINE: Final = "baseline"
FAILING: Final = "failing"

Row: TypeAlias = tuple[str, str]
"""Topic and name."""
Changes: TypeAlias = Mapping[Row, str | None]
"""Values to keep; None: forget it."""


@dataclass(slots=True)
class Memory:
    """All that is remembered, once read."""

    devices: dict[str, Told] = field(default_factory=dict)
    gaps: set[str] = field(default_factory=set)
    server: ServerTold = field(default_factory=ServerTold)
    baselines: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)


def read(rows: Iterable[tuple[str, str, str]]) -> Memory:
    """Rows as they are kept; of a topic that is not known, nothing."""
    memory = Memory()
    for topic, name, value in rows:
        match topic:
            case "device":
                memory.devices[name] = msgspec.json.decode(value, type=Told)
            case "gap":
                memory.gaps.add(name)
            case "server":
                memory.server = msgspec.json.decode(value, type=ServerTold)
            case "baseline":
                memory.baselines.add(name)
            case "failing":
                memory.failing.add(name)
            case _:
                continue
    return memory


def devices(told: Mapping[str, Told]) -> Changes:
    """What is told of devices."""
    return {(DEVICE, device): _json(each) for device, each in told.items()}


def gaps(told: Iterable[str], forgotten: Iterable[str]) -> Changes:
    """Gaps that are told, or over."""
    changes: dict[Row, str | None] = dict.fromkeys(((GAP, key) for key in forgotten), None)
    return changes | {(GAP, key): "" for key in told}


def server(told: ServerTold) -> Changes:
    """What is told of the server."""
    return {(SERVER, SERVER): _json(told)}


def baseline(name: str) -> Changes:
    """A watch has seen all for the first time."""
    return {(BASELINE, name): ""}


def failing(subscription: str, *, told: bool) -> Changes:
    """Operators were told that it fails; or it does no more."""
    return {(FAILING, subscription): "" if told else None}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
