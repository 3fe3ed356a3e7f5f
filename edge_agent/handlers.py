"""What applies a setting: the agent itself, a file that an instrument reads, a program, or another agent.

Tables and their check.

Every handler may be asked twice for the same: a power cut repeats what it interrupted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct, structs

from broker_config.device_classes import DeviceClass
from broker_config.text import shown
from broker_config.twin import SettingValue

AGENTS_OWN: Final = frozenset({"broker_host", "broker_port", "keep_alive_s"})
"""What the agent applies to itself. What is not set has the value of agent.toml."""
AGENT_RELEASE: Final = "agent_release"
"""The setting that is another agent. What is not set is the release that was committed last."""
HOST_PATTERN: Final = r"^[A-Za-z0-9_:%-]{1,63}(\.[A-Za-z0-9_:%-]{1,63})*\.?\Z"
"""Of the broker: a name in ASCII, or an address."""
ARGUMENTS_MAX: Final = 32

Argument = Annotated[str, Meta(max_length=4096)]
Command = Annotated[tuple[Argument, ...], Meta(max_length=ARGUMENTS_MAX)]
Values: TypeAlias = Mapping[str, SettingValue]


class McuTable(Struct, frozen=True):
    """A microcontroller with MCUboot behind the board. ``hw``: what the list of releases calls it; the others as
    ``firmware-bridge update`` takes them.
    """

    hw: Annotated[str, Meta(max_length=63)]
    port: Annotated[str, Meta(max_length=4096)]
    keys: Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=8)]
    slot_bytes: Annotated[int, Meta(ge=1, le=2**28)]
    hardware: Annotated[str, Meta(max_length=256)] = ""
    trailer_bytes: Annotated[int, Meta(ge=0, le=2**20)] = 0
    trial_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0


class HandlerTable(Struct, frozen=True):
    """``[settings.NAME]`` of a profile, a setting of the class. Settings with the same table are applied together.

    ``agent``: see AGENTS_OWN. ``file``: JSON of its settings, replaced at ``path`` whole or not at all. ``program``:
    ``argv`` gets that JSON on stdin and has applied it when it ends with 0; ``check`` gets the same and ends with 0
    when that is in force. ``needs_server``: it is confirmed only by hearing from the server, over a connection made
    since. ``release``: the agent itself, replaced by another (:mod:`edge_agent.launch`). ``mcu``:
    the program of the microcontroller of that table.
    """

    handler: Literal["agent", "file", "program", "release", "mcu"]
    path: Annotated[str, Meta(max_length=4096)] = ""
    argv: Command = ()
    check: Command = ()
    seconds_max: Annotated[float, Meta(ge=0.1, le=600)] = 30.0
    needs_server: bool = False
    mcu: McuTable | None = None

    def __post_init__(self) -> None:
        if bool(self.path) != (self.handler == "file"):
            raise ValueError("file, and nothing else, needs path")
        if bool(self.argv) != (self.handler == "program") or (self.check and not self.argv):
            raise ValueError("program, and nothing else, needs argv")
        if (self.mcu is not None) != (self.handler == "mcu"):
            raise ValueError("mcu, and nothing else, needs a table of that name")


@dataclass(frozen=True, slots=True)
class ByAgent:
    """Nothing is to be done but to connect anew."""

    needs_server: bool = True


@dataclass(frozen=True, slots=True)
class ByFile:
    """See HandlerTable."""

    path: str
    needs_server: bool


@dataclass(frozen=True, slots=True)
class ByProgram:
    """See HandlerTable."""

    argv: tuple[str, ...]
    check: tuple[str, ...]
    seconds_max: float
    needs_server: bool


@dataclass(frozen=True, slots=True)
class ByRelease:
    """Another agent goes on, and is not believed before the server has heard it."""

    needs_server: bool = True


@dataclass(frozen=True, slots=True)
class ByMcu:
    """See McuTable."""

    hw: str
    port: str
    keys: tuple[str, ...]
    slot_bytes: int
    hardware: str
    trailer_bytes: int
    trial_s: float
    needs_server: bool


Handler: TypeAlias = ByAgent | ByFile | ByProgram | ByRelease | ByMcu


def read(
    tables: Mapping[str, HandlerTable], device_class: DeviceClass, place: str, faults: list[str]
) -> dict[str, Handler]:
    """Setting -> its handler, in the class's order. Appends each fault to *faults*."""
    for name, table in tables.items():
        if name not in device_class.config:
            known = ", ".join(device_class.config) or "none"
            faults.append(f"{place}.{shown(name)}: unknown; {device_class.name} has {known}")
        if (table.handler == "agent") != (name in AGENTS_OWN):
            faults.append(f"{place}.{shown(name)}: agent, and nothing else, applies {', '.join(sorted(AGENTS_OWN))}")
        if (table.handler == "release") != (name == AGENT_RELEASE):
            faults.append(f"{place}.{shown(name)}: release, and nothing else, applies {AGENT_RELEASE}")
        if table.handler == "mcu" and name in device_class.config and not device_class.config[name].firmware:
            faults.append(f"{place}.{shown(name)}: mcu applies settings that are firmware, and nothing else")
    found = {name: _handler(tables[name]) for name in device_class.config if name in tables}
    files: dict[str, Handler] = {}
    for name, handler in found.items():
        if isinstance(handler, ByFile) and files.setdefault(handler.path, handler) != handler:
            faults.append(f"{place}.{name}: {shown(handler.path)} is used with another needs_server")
    return found


def _handler(table: HandlerTable) -> Handler:
    match table.handler:
        case "agent":
            return ByAgent()
        case "file":
            return ByFile(table.path, table.needs_server)
        case "program":
            return ByProgram(table.argv, table.check, table.seconds_max, table.needs_server)
        case "release":
            return ByRelease()
        case "mcu":
            assert table.mcu is not None
            return ByMcu(**structs.asdict(table.mcu), needs_server=table.needs_server)


def grouped(handlers: Mapping[str, Handler], values: Values) -> list[tuple[Handler, dict[str, SettingValue]]]:
    """Each handler once, with what it has to apply."""
    out: dict[Handler, dict[str, SettingValue]] = {}
    for name, handler in handlers.items():
        if name in values:
            out.setdefault(handler, {})[name] = values[name]
    return list(out.items())


def filled(
    device_class: DeviceClass, handlers: Mapping[str, Handler], own: Values, config: Values
) -> dict[str, SettingValue]:
    """Every setting that can be applied here, as *config* has it; else its default. *own*: of agent.toml."""
    out: dict[str, SettingValue] = {}
    for name in handlers:
        value = config.get(name, own.get(name, device_class.config[name].default))
        if value is not None:
            out[name] = value
    return out


def faults_of(device_class: DeviceClass, handlers: Mapping[str, Handler], config: Values) -> Sequence[str]:
    """Why this device cannot be set to *config*; one line each."""
    unhandled = [
        f"{name}: nothing here applies it"
        for name, value in config.items()
        if name in device_class.config and name not in handlers and value != device_class.config[name].default
    ]
    host = config.get("broker_host", "localhost")
    nowhere = isinstance(host, str) and not re.match(HOST_PATTERN, host)
    no_host = [f"broker_host: expected a host's name or address, got {shown(host, 30)!r}"] if nowhere else []
    return [*device_class.config_faults(config), *no_host, *unhandled]
