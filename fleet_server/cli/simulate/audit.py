"""Whether the server has what it gave receipts for, by its own API."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from fleet_server.cli import answers
from fleet_server.cli.server import Server

DEVICES_MAX: Final = 1_000_000

Place: TypeAlias = tuple[str, str, str]
"""Device, stream, life."""


class Given(NamedTuple):
    """What a device says of one stream: the newest number, and how many of them are tombstones."""

    last: int
    gone: int


class Found(NamedTuple):
    """What the server says of the same. ``lost``: given, not gone, and neither stored nor in quarantine."""

    stored: int
    missing: int
    quarantined: int
    lost: int


def compare(given: Mapping[Place, Given], devices: Iterable[answers.Device]) -> Found:
    """The server's account beside the devices'; streams of others do not count."""
    stored = missing = quarantined = lost = 0
    left = dict(given)
    for device in devices:
        for stream in device.streams:
            own = left.pop((device.device, stream.stream, stream.life), None)
            if own is None:
                continue
            stored += stream.held
            missing += stream.missing
            quarantined += stream.quarantined
            # held may count what was evicted while it was under way
            lost += max(0, own.last - own.gone - stream.held - stream.quarantined)
    lost += sum(own.last - own.gone for own in left.values())
    missing += sum(own.last - own.gone for own in left.values())
    return Found(stored, missing, quarantined, lost)


def ask(server: Server, given: Mapping[Place, Given]) -> Found:
    """:func:`compare` with every device that the API lists. Raises CommandError."""
    document, _ = server.list_all("/v1/devices", "devices", entries_max=DEVICES_MAX)
    return compare(given, answers.read(document, answers.Devices).devices)
