"""What the API and the device's own spool say of the demo, as one value a moment, and the report of the last one."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from fleet_server.cli import answers
from fleet_server.cli.demo.rig import Rig
from fleet_server.cli.server import Server

STATUS_S_MAX: Final = 10.0
AHEAD_MS: Final = 60_000
"""The device's clock may be a little ahead of ours."""
ENTRIES_MAX: Final = 10_000
UNEXPLAINED: Final = "unexplained"


class Spooled(msgspec.Struct, frozen=True):
    """A stream as the device's spool has it: numbers given, and how many of them are receipted."""

    stream: str
    last: int
    receipted: int


class _Status(msgspec.Struct, frozen=True):
    """What is read of ``edge-agent status --json``."""

    streams: list[Spooled]


@dataclass(frozen=True, slots=True)
class Moment:
    """The demo *at_s* after its begin, at *now_ms*. ``values``: stored values of each stream."""

    at_s: float
    now_ms: int
    devices: Sequence[answers.Device]
    latest: Sequence[answers.Latest]
    gaps: Sequence[answers.Gap]
    facts: answers.Facts
    values: dict[str, int]
    spool: Sequence[Spooled]
    agent_rss_bytes: int

    @property
    def streams(self) -> list[answers.Stream]:
        """Of all devices."""
        return [stream for device in self.devices for stream in device.streams]


def moment(server: Server, rig: Rig, *, at_s: float, now_ms: int, begin_ms: int, agent_rss_bytes: int) -> Moment:
    """Ask the API and the spool.

    Raises:
        CommandError: the API does not answer, or does not know what it should.
    """
    document, _ = server.list_all("/v1/devices", "devices", entries_max=ENTRIES_MAX)
    devices = answers.read(document, answers.Devices).devices
    gaps: list[answers.Gap] = []
    latest: list[answers.Latest] = []
    values: dict[str, int] = {}
    if devices:
        path = f"/v1/devices/{rig.device}"
        span: dict[str, str | int | None] = {"from": begin_ms - AHEAD_MS, "to": now_ms + AHEAD_MS}
        document, _ = server.list_all("/v1/gaps", "gaps", entries_max=ENTRIES_MAX, parameters=span)
        gaps = answers.read(document, answers.Gaps).gaps
        latest = answers.read(server.get(f"{path}/latest"), list[answers.Latest])
        for row in latest:
            series = server.get(f"{path}/series/{row.stream}", {**span, "points": 1})
            counts = answers.read(series, answers.Series).counts
            values[row.stream] = sum(sum(column) for column in counts.values())
    return Moment(
        at_s=at_s,
        now_ms=now_ms,
        devices=devices,
        latest=latest,
        gaps=gaps,
        facts=answers.read(server.get("/v1/facts"), answers.Facts),
        values=values,
        # not before the agent runs: to ask is to hold its lock for a moment, which it would not get then
        spool=spooled(rig) if devices else (),
        agent_rss_bytes=agent_rss_bytes,
    )


def spooled(rig: Rig) -> Sequence[Spooled]:
    """What the agent says of its spool; empty if it says nothing yet."""
    asked = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "edge_agent", "status", "--config", str(rig.agent_config), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=STATUS_S_MAX,
        check=False,
    )
    try:
        return msgspec.json.decode(asked.stdout, type=_Status).streams
    except msgspec.MsgspecError:
        return ()


class Report(msgspec.Struct, frozen=True):
    """What the demo came to. ``records_sealed`` and ``records_receipted`` are the device's own figures, the others
    the API's; ``agent_rss_bytes`` is the most that the agent had.
    """

    seconds: float
    stopped_cleanly: bool
    devices: int
    values_stored: int
    records_sealed: int
    records_receipted: int
    records_stored: int
    records_missing: int
    records_duplicate: int
    records_quarantined: int
    gaps: dict[str, int]
    gaps_unexplained: int
    agent_rss_bytes: int


def report(last: Moment, *, agent_rss_bytes_max: int, stopped_cleanly: bool) -> Report:
    """Of the last moment."""
    reasons = Counter(gap.reason for gap in last.gaps)
    return Report(
        seconds=round(last.at_s, 1),
        stopped_cleanly=stopped_cleanly,
        devices=len(last.devices),
        values_stored=sum(last.values.values()),
        records_sealed=sum(stream.last for stream in last.spool),
        records_receipted=sum(stream.receipted for stream in last.spool),
        records_stored=sum(stream.held for stream in last.streams),
        records_missing=sum(stream.missing for stream in last.streams),
        records_duplicate=last.facts.records_duplicate,
        records_quarantined=last.facts.records_quarantined,
        gaps=dict(reasons),
        gaps_unexplained=reasons[UNEXPLAINED],
        agent_rss_bytes=agent_rss_bytes_max,
    )
