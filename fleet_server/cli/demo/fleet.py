"""The demo's four devices: which class, which instruments, and the shipped profile at a cadence one can watch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker_config.ids import DeviceId

EVERY_S: Final = 1
BOARD_EVERY_S: Final = 5
"""Of what the board says of itself: four agents on one machine all say the same of it."""
SEAL_S: Final = 1
STOP_DRAIN_S: Final = 5
KEEP_ALIVE_S: Final = 10
RECEIPT_WAIT_S: Final = 5
"""So that what a killed broker had taken is soon sent again."""
VIDEO: Final = "recordings"
LOGS: Final = "logs"
"""The classes of the files that are made: video, if there is ffmpeg."""
FILES: Final = f"""
[uploads]
look_s = 0.5

[uploads.folders.{VIDEO}]
[uploads.folders.{LOGS}]
"""
BACKOFF: Final = "s_min = 0.5\ns_cap = 3\nstable_s = 5"

BOARD_STREAMS: Final = frozenset({"cpu", "memory", "network", "temperature"})
_BOARD_DRIVER: Final = re.compile(r"^driver = \"host\.", re.MULTILINE)
_CADENCE: Final = re.compile(r"^every_s = .*\n", re.MULTILINE)
_WIRE: Final = "[[wires]]\n"


class Broker(StrEnum):
    """Which one carries the demo."""

    EMBEDDED = "embedded"
    MOSQUITTO = "mosquitto"


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is played at the profile's *address*; the same seed plays the same. ``network``: it is at a port."""

    address: str
    kind: str
    seed: int = 7
    network: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A device of the demo."""

    device: DeviceId
    device_class: str
    instruments: tuple[Instrument, ...]
    records: bool = False
    """Whether it makes files."""


FLEET: Final = (
    Member(
        DeviceId("camera-12"),
        "body_camera",
        (Instrument("controller", "line-camera"), Instrument("gnss", "gnss", seed=12)),
        records=True,
    ),
    # both of one seed: the receiver and the gateway are on the same drive
    Member(DeviceId("car-7"), "in_car_terminal", (Instrument("gnss", "gnss"), Instrument("vehicle", "line-vehicle"))),
    Member(
        DeviceId("light-3"),
        "traffic_light",
        (Instrument("line", "modbus-cabinet"), Instrument("controller", "ntcip-controller", network=True)),
    ),
    # its interview ends 25 s after the beginning
    Member(DeviceId("room-2"), "interrogation_room", (Instrument("line", "modbus-room", seed=175),)),
)


def hastened(profile: str) -> str:
    """A profile's text with every wire at the demo's cadence."""
    head, *wires = profile.split(_WIRE)
    return head + "".join(_WIRE + _hastened_wire(wire) for wire in wires)


def _hastened_wire(wire: str) -> str:
    every_s = BOARD_EVERY_S if _BOARD_DRIVER.search(wire) else EVERY_S
    return f"every_s = {every_s}\n{_CADENCE.sub('', wire)}"


def agent_config(text: str, *, member: Member, link_port: int, addresses: Mapping[str, str]) -> str:
    """``agent.toml`` as ``edge-agent enroll`` wrote it, for the demo.

    The hastened profile beside it, instruments at their *addresses*, and the broker at the far end of *link_port*.
    """
    text = re.sub(
        r"^profile = .*$", f'profile = "profile.toml"\nseal_s = {SEAL_S}', text, count=1, flags=re.MULTILINE
    )
    text = re.sub(r"^state_dir = ", f"stop_drain_s = {STOP_DRAIN_S}\nstate_dir = ", text, count=1, flags=re.MULTILINE)
    text = re.sub(
        r"^port = \d+$", f"port = {link_port}\nkeep_alive_s = {KEEP_ALIVE_S}", text, count=1, flags=re.MULTILINE
    )
    # the text ends with the table [receipts]; literal strings, so that no character of a path means anything
    told = "\n".join(f"{name} = '{address}'" for name, address in addresses.items())
    tables = f"\n[backoff]\n{BACKOFF}\n\n[addresses]\n{told}\n{FILES if member.records else ''}"
    return f"{text}receipt_wait_s = {RECEIPT_WAIT_S}\n{tables}"
