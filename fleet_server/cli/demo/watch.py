"""What the API and the devices' own spools say of the demo, as one value a moment, and the report of the last one."""

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broker_config.ids import DeviceId
from fleet_server.cli import answers
from fleet_server.cli.demo.changes import Rollout
from fleet_server.cli.demo.fleet import BOARD_STREAMS
from fleet_server.cli.demo.rig import Rig
from fleet_server.cli.server import Json, Server

STATUS_S_MAX: Final = 10.0
AHEAD_MS: Final = 60_000
"""The device's clock may be a little ahead of ours."""
ENTRIES_MAX: Final = 10_000
SUFFIXES: Final = frozenset({".mp4", ".log"})
UNEXPLAINED: Final = "unexplained"
REPORTING_MS: Final = 5_000
"""A device whose instruments said nothing for so long does not report."""


class Spooled(msgspec.Struct, frozen=True):
    """A stream as the device's spool has it: numbers given, and how many of them are receipted."""

    stream: str
    last: int
    receipted: int


class _Status(msgspec.Struct, frozen=True):
    """What is read of ``edge-agent status --json``."""

    streams: list[Spooled]


class Files(msgspec.Struct, frozen=True):
    """Files that recorders made, and those of them that the server keeps, byte for byte. ``unlike``: what it keeps
    and nobody made.
    """

    made: int = 0
    verified: int = 0
    bytes_verified: int = 0
    unlike: int = 0


class _Kept(msgspec.Struct, frozen=True):
    name: str
    sha256: str
    size: int


class _Pieces(msgspec.Struct, frozen=True):
    pieces: list[_Kept]


@dataclass(frozen=True, slots=True)
class Moment:
    """The demo *at_s* after its begin, at *now_ms*. ``rss_bytes``: of each device's agent, 0 if it does not run."""

    at_s: float
    now_ms: int
    devices: Sequence[answers.Device]
    latest: Sequence[answers.Latest]
    gaps: Sequence[answers.Gap]
    facts: answers.Facts
    rss_bytes: Mapping[DeviceId, int]
    files_made: int = 0
    files_kept: int = 0
    rollouts: Sequence[Rollout] = ()

    def device(self, device: DeviceId) -> answers.Device | None:
        """None: never heard of."""
        return next((each for each in self.devices if each.device == device), None)

    def newest(self, device: DeviceId) -> list[answers.Latest]:
        """Of each of its streams, by name."""
        return [row for row in self.latest if row.device == device]

    def reporting(self, device: DeviceId) -> bool:
        """What the API says of it, and that its instruments, not only its board, have lately said something."""
        found = self.device(device)
        return found is not None and found.reporting and any(map(self._is_news, self.newest(device)))

    def _is_news(self, row: answers.Latest) -> bool:
        return (
            row.stream not in BOARD_STREAMS
            and self.now_ms - row.received_ms <= REPORTING_MS
            and any(value is not None for value in row.values.values())
        )

    @property
    def reporting_count(self) -> int:
        """Devices that report."""
        return sum(self.reporting(DeviceId(each.device)) for each in self.devices)

    @property
    def streams(self) -> list[answers.Stream]:
        """Of all devices."""
        return [stream for device in self.devices for stream in device.streams]


def moment(
    server: Server,
    *,
    at_s: float,
    now_ms: int,
    begin_ms: int,
    rss_bytes: Mapping[DeviceId, int],
    files_made: int = 0,
) -> Moment:
    """Ask the API.

    Raises:
        CommandError: it does not answer, or does not know what it should.
    """
    return Moment(
        at_s=at_s,
        now_ms=now_ms,
        devices=answers.read(_all(server, "devices"), answers.Devices).devices,
        latest=answers.read(_all(server, "latest"), answers.LatestList).latest,
        gaps=answers.read(
            _all(server, "gaps", {"from": begin_ms - AHEAD_MS, "to": now_ms + AHEAD_MS}), answers.Gaps
        ).gaps,
        facts=answers.read(server.get("/v1/facts"), answers.Facts),
        rss_bytes=rss_bytes,
        files_made=files_made,
        files_kept=len(_kept(server)),
    )


def values_stored(server: Server, last: Moment, *, begin_ms: int) -> dict[str, int]:
    """Values of each device since *begin_ms*. A request for each stream, so not at every moment."""
    span = {"from": begin_ms - AHEAD_MS, "to": last.now_ms + AHEAD_MS, "points": 1}
    values = {device.device: 0 for device in last.devices}
    for row in last.latest:
        found = answers.read(server.get(f"/v1/devices/{row.device}/series/{row.stream}", span), answers.Series)
        values[row.device] += sum(sum(column) for column in found.counts.values())
    return values


def made(rig: Rig) -> list[Path]:
    """Files that are whole."""
    folders = [rig.files(device) for device in rig.recording]
    return [path for folder in folders for path in folder.glob("*") if path.suffix in SUFFIXES]


def files(rig: Rig, server: Server) -> Files:
    """Compare them, by their bytes, with what the API says is kept."""
    # by name too: played video repeats itself, and the same bytes under another name are another file
    own = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in made(rig)]
    kept = {(piece.name, piece.sha256): piece.size for piece in _kept(server)}
    found = [each for each in own if each in kept]
    return Files(len(own), len(found), sum(kept[each] for each in found), len(kept.keys() - set(own)))


def _kept(server: Server) -> list[_Kept]:
    document, _ = server.list_all("/v1/evidence/pieces", "pieces", entries_max=ENTRIES_MAX)
    return answers.read(document, _Pieces).pieces


def spooled(rig: Rig) -> dict[DeviceId, Sequence[Spooled]]:
    """What each device says of its spool; empty if it says nothing. Not while its agent runs or starts: to ask is to
    hold its lock for a moment.
    """
    asked = {device: _ask_spool(rig, device) for device in rig.devices}
    return {device: _answered(process) for device, process in asked.items()}


def _all(server: Server, name: str, parameters: Mapping[str, int] | None = None) -> Json:
    document, _ = server.list_all(f"/v1/{name}", name, entries_max=ENTRIES_MAX, parameters=dict(parameters or {}))
    return document


def _ask_spool(rig: Rig, device: DeviceId) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "edge_agent", "status", "--config", str(rig.agent_config(device)), "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _answered(process: subprocess.Popen[bytes]) -> Sequence[Spooled]:
    with process:
        try:
            output, _ = process.communicate(timeout=STATUS_S_MAX)
            return msgspec.json.decode(output, type=_Status).streams
        except subprocess.TimeoutExpired:
            process.kill()
        except msgspec.MsgspecError:
            pass
    return ()


class DeviceReport(msgspec.Struct, frozen=True):
    """One device. ``agent_rss_bytes`` is the most that its agent had."""

    device: str
    device_class: str
    connected: bool
    reporting: bool
    healthy: bool
    why: list[str]
    values_stored: int
    records_sealed: int
    records_receipted: int
    records_stored: int
    agent_rss_bytes: int


class Report(msgspec.Struct, frozen=True):
    """What the demo came to. ``records_sealed`` and ``records_receipted`` are the devices' own figures after the
    drain, the others the API's; who is connected, reporting and healthy is as just before it. ``all_reporting_s``:
    from the command's start until every device reported, null if that never was.
    """

    broker: str
    seconds: float
    all_reporting_s: float | None
    drain_s: float
    stopped_cleanly: bool
    devices: int
    devices_connected: int
    devices_reporting: int
    devices_healthy: int
    values_stored: int
    records_sealed: int
    records_receipted: int
    records_stored: int
    records_missing: int
    records_duplicate: int
    records_quarantined: int
    gaps: dict[str, int]
    gaps_unexplained: int
    files: Files
    rollouts: list[Rollout]
    agent_rss_bytes: dict[str, int]
    fleet: list[DeviceReport]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a report is made of: the last moment that all ran, and what was there after the drain."""

    running: Moment
    drained: Moment
    spooled: Mapping[DeviceId, Sequence[Spooled]]
    values: Mapping[str, int]
    rss_bytes_max: Mapping[DeviceId, int]
    all_reporting_s: float | None
    drain_s: float
    files: Files


def report(outcome: Outcome, *, broker: str, stopped_cleanly: bool) -> Report:
    """Of what it came to."""
    drained = outcome.drained
    reasons = Counter(gap.reason for gap in drained.gaps)
    fleet = [_device_report(outcome, device) for device in drained.devices]
    return Report(
        broker=broker,
        seconds=round(outcome.running.at_s, 1),
        all_reporting_s=outcome.all_reporting_s and round(outcome.all_reporting_s, 1),
        drain_s=round(outcome.drain_s, 1),
        stopped_cleanly=stopped_cleanly,
        devices=len(fleet),
        devices_connected=sum(each.connected for each in fleet),
        devices_reporting=sum(each.reporting for each in fleet),
        devices_healthy=sum(each.healthy for each in fleet),
        values_stored=sum(each.values_stored for each in fleet),
        records_sealed=sum(each.records_sealed for each in fleet),
        records_receipted=sum(each.records_receipted for each in fleet),
        records_stored=sum(stream.held for stream in drained.streams),
        records_missing=sum(stream.missing for stream in drained.streams),
        records_duplicate=drained.facts.records_duplicate,
        records_quarantined=sum(stream.quarantined for stream in drained.streams),
        gaps=dict(reasons),
        gaps_unexplained=reasons[UNEXPLAINED],
        files=outcome.files,
        rollouts=list(outcome.running.rollouts),
        agent_rss_bytes={each.device: each.agent_rss_bytes for each in fleet},
        fleet=fleet,
    )


def _device_report(outcome: Outcome, found: answers.Device) -> DeviceReport:
    device = DeviceId(found.device)
    before = outcome.running.device(device)
    spool = outcome.spooled.get(device, ())
    return DeviceReport(
        device=device,
        device_class=found.device_class,
        connected=before is not None and before.connected,
        reporting=outcome.running.reporting(device),
        healthy=before is not None and before.healthy,
        why=before.why if before is not None else [],
        values_stored=outcome.values.get(device, 0),
        records_sealed=sum(stream.last for stream in spool),
        records_receipted=sum(stream.receipted for stream in spool),
        records_stored=sum(stream.held for stream in found.streams),
        agent_rss_bytes=outcome.rss_bytes_max.get(device, 0),
    )
