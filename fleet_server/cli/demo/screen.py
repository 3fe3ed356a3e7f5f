"""A moment of the demo as a screen, as a line for a log, and the report as a sentence."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from broker_config.ids import DeviceId
from broker_config.text import shown
from fleet_server.cli import answers, tables
from fleet_server.cli.demo.changes import told
from fleet_server.cli.demo.fleet import BOARD_STREAMS, FLEET
from fleet_server.cli.demo.outages import WORDS, Outages
from fleet_server.cli.demo.watch import Moment, Report
from fleet_server.cli.moments import ago

RATE_SPAN_S: Final = 5.0
GAPS_SHOWN_MAX: Final = 4
OLD_MS: Final = 5_000
"""A reading that is older is marked."""
ROWS_OF_ALL: Final = 42
"""A screen of so many rows shows the instruments of every device, a smaller one those of the chosen device."""
MIB: Final = 1024 * 1024
_OF_PHASE: Final = {"completed": "green", "canceled": "bold yellow", "paused": "bold yellow"}
KEYS_SHOWN: Final = (
    "keys: 1-4 choose a device   l cut its link   a kill its agent   i unplug its instruments   b kill the broker"
    "   again: mend   q end"
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the table. ``url``: of the server's pages; ``token_file``: what they ask for; ``now_s``: of
    the clock of the outages.
    """

    site: str
    url: str
    token_file: str
    broker: str
    outages: Outages
    now_s: float
    rows: int
    has_keys: bool


def rate(moments: Sequence[Moment], device: DeviceId | None = None) -> float:
    """Records stored a second, over the last RATE_SPAN_S of *moments*; None is all devices."""
    if len(moments) < 2:
        return 0.0
    last = moments[-1]
    first = next(moment for moment in moments if last.at_s - moment.at_s <= RATE_SPAN_S)
    span_s = last.at_s - first.at_s
    return (_stored(last, device) - _stored(first, device)) / span_s if span_s > 0 else 0.0


def screen(moments: Sequence[Moment], frame: Frame) -> RenderableType:
    """What one sees of the last of *moments*."""
    last = moments[-1]
    facts = last.facts
    broker = f"{frame.broker} broker {'connected' if facts.connected else 'not connected'}"
    parts: list[RenderableType] = [
        Rule(Text(f"fieldfleet demo  {last.at_s:.0f} s"), align="left"),
        Text(
            "instruments -> agents -> spools -> broker with mutual TLS -> batch store -> receipts -> spools",
            style="dim",
        ),
        Text(
            f"{broker}  {rate(moments):.1f} records/s  {_stored(last)} stored  {facts.receipts_sent} receipts"
            f"  {facts.records_duplicate} duplicates  {facts.records_quarantined} quarantined",
            style="green" if facts.connected else "bold yellow",
        ),
        Text(
            f"{last.files_made} files recorded -> sealed and signed by the device -> chunks -> read again from the"
            f" disk -> custody log: {last.files_kept} kept",
            style="green" if last.files_kept else "",
        ),
        *(Text(told(each), style=_OF_PHASE.get(each.phase, "")) for each in last.rollouts),
        Text(""),
        _devices(moments, frame),
        Text(""),
        _readings(last, frame),
        Text(""),
        _gaps(last),
        Text(f"in a browser: {frame.url}/ with the token of {frame.token_file}", style="dim"),
        Text(f"look yourself: fieldfleet devices --site {frame.site}", style="dim"),
        Text(KEYS_SHOWN if frame.has_keys else "Ctrl-C ends everything", style="bold"),
    ]
    return Group(*parts)


def line(moments: Sequence[Moment]) -> str:
    """The same for a log: one line."""
    last = moments[-1]
    devices = "  ".join(f"{each.device} {_state(last, DeviceId(each.device))}" for each in last.devices)
    return (
        f"{last.at_s:5.1f} s  stored {_stored(last)}  receipts {last.facts.receipts_sent}"
        f"  missing {sum(s.missing for s in last.streams)}  gaps {_reasons(last) or 'none'}"
        f"  files {last.files_kept}/{last.files_made}  {rate(moments):.1f} records/s  {devices}"
        + "".join(f"  {told(each)}" for each in last.rollouts)
    )


def closing(report: Report) -> str:
    """What the demo came to, as a sentence."""
    memory = ", ".join(f"{device} {_mib(size)}" for device, size in report.agent_rss_bytes.items())
    return (
        f"{report.values_stored} values of {report.devices} devices in {report.seconds} s:"
        f" {report.records_sealed} records sealed by the devices, {report.records_stored} stored,"
        f" {report.records_receipted} receipted, {report.records_missing} missing,"
        f" {report.records_duplicate} duplicates, {report.gaps_unexplained} unexplained gaps;"
        f" {report.files.made} files recorded, {report.files.verified} kept and verified;"
        + "".join(f" {told(each)};" for each in report.rollouts)
        + f" agents: {memory}"
    )


def _devices(moments: Sequence[Moment], frame: Frame) -> Table:
    last = moments[-1]
    table = _table(
        "", "device", "class", "connected", "reporting", "healthy", "stored", "missing", "records/s", "agent", ""
    )
    for number, member in enumerate(FLEET, start=1):
        found = last.device(member.device)
        chosen = frame.has_keys and member.device == frame.outages.device
        missing = sum(stream.missing for stream in found.streams) if found else 0
        table.add_row(
            Text(f"{'>' if chosen else ' '}{number}", style="bold"),
            Text(member.device, style="bold" if chosen else ""),
            Text(member.device_class),
            _fact(found is not None and found.connected),
            _fact(last.reporting(member.device)),
            _fact(found is not None and found.healthy),
            Text(str(_stored(last, member.device)), justify="right"),
            Text(str(missing), style="bold yellow" if missing else "", justify="right"),
            Text(f"{rate(moments, member.device):.1f}", justify="right"),
            Text(_mib(last.rss_bytes.get(member.device, 0))),
            _remark(found, frame),
        )
    return table


def _remark(found: answers.Device | None, frame: Frame) -> Text:
    """What was taken from a device, or what the API says is wrong with it."""
    device = found.device if found else None
    words = [
        f"{WORDS[outage.kind]}, back in {max(0.0, outage.until_s - frame.now_s):.0f} s"
        for outage in frame.outages.current
        if outage.device in {None, device}
    ]
    if words:
        return Text("; ".join(words), style="bold red")
    return Text(shown("; ".join(found.why) if found else ""), style="yellow")


def _readings(last: Moment, frame: Frame) -> Table:
    table = _table("device", "stream", "newest", "readings")
    chosen = None if frame.rows >= ROWS_OF_ALL else frame.outages.device
    for member in FLEET:
        if chosen not in {None, member.device}:
            continue
        for row in _instrument_rows(last, member.device):
            old = last.now_ms - row.received_ms > OLD_MS
            table.add_row(
                Text(member.device),
                Text(shown(row.stream)),
                Text(ago(row.time_ms, now_ms=last.now_ms), style="bold yellow" if old else ""),
                tables.readings(row.values),
            )
    return table


def _instrument_rows(last: Moment, device: DeviceId) -> Iterator[answers.Latest]:
    return (row for row in last.newest(device) if row.stream not in BOARD_STREAMS)


def _gaps(last: Moment) -> RenderableType:
    if not last.gaps:
        return Text("no gaps", style="green")
    newest = sorted(last.gaps, key=lambda gap: gap.to_ms or last.now_ms)[-GAPS_SHOWN_MAX:]
    return Group(Text(f"gaps: {_reasons(last)}"), tables.gaps(newest))


def _reasons(last: Moment) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(g.reason for g in last.gaps).items()))


def _state(last: Moment, device: DeviceId) -> str:
    found = last.device(device)
    if found is None or not found.connected:
        return "not connected"
    return "reporting" if last.reporting(device) else "connected"


def _stored(last: Moment, device: DeviceId | None = None) -> int:
    return sum(stream.held for each in last.devices if device in {None, each.device} for stream in each.streams)


def _fact(holds: bool) -> Text:
    return Text("yes", style="green") if holds else Text("no", style="bold yellow")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=name != "readings", overflow="ellipsis")
    return table


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes else "not running"
