"""A moment of the demo as a screen, as a line for a log, and the last one as a sentence."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from broker_config.text import shown
from fleet_server.cli import tables
from fleet_server.cli.demo.rig import Rig
from fleet_server.cli.demo.watch import Moment, Report
from fleet_server.cli.moments import ago

RATE_SPAN_S: Final = 10.0
GAPS_SHOWN_MAX: Final = 6
MIB: Final = 1024 * 1024


def rates(moments: Sequence[Moment]) -> tuple[float, float]:
    """Records and values stored a second, over the last RATE_SPAN_S of *moments*."""
    if len(moments) < 2:
        return 0.0, 0.0
    last = moments[-1]
    first = next(moment for moment in moments if last.at_s - moment.at_s <= RATE_SPAN_S)
    span_s = last.at_s - first.at_s
    if span_s <= 0:
        return 0.0, 0.0
    records = last.facts.records_stored - first.facts.records_stored
    values = sum(last.values.values()) - sum(first.values.values())
    return records / span_s, values / span_s


def screen(moments: Sequence[Moment], rig: Rig) -> RenderableType:
    """What one sees of the last of *moments*."""
    last = moments[-1]
    records_s, values_s = rates(moments)
    receipted = {stream.stream: stream.receipted for stream in last.spool}
    newest = {row.stream: row for row in last.latest}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("stream", "stored", "receipted", "missing", "values", "newest", "readings"):
        table.add_column(name, justify="right" if name in {"stored", "receipted", "missing", "values"} else "left")
    for stream in last.streams:
        row = newest.get(stream.stream)
        table.add_row(
            Text(shown(stream.stream)),
            str(stream.held),
            str(receipted.get(stream.stream, "")),
            Text(str(stream.missing), style="bold yellow" if stream.missing else ""),
            str(last.values.get(stream.stream, "")),
            ago(row.time_ms, now_ms=last.now_ms) if row else "",
            tables.readings(row.values) if row else Text("what happened on the device", style="dim"),
        )
    return Group(
        Rule(Text(f"fieldfleet demo  {last.at_s:.0f} s"), align="left"),
        Text(
            f"{rig.device} -> sensors -> spool -> Mosquitto with mutual TLS -> batch store -> receipt -> {rig.device}"
        ),
        _health(last),
        Text(""),
        table,
        Text(""),
        Text(
            f"{records_s:.1f} records/s  {values_s:.0f} values/s  {last.facts.receipts_sent} receipts"
            f"  {last.facts.records_duplicate} duplicates  {last.facts.records_quarantined} quarantined"
        ),
        _gaps(last),
        Text(""),
        Text(f"look yourself: fieldfleet devices --site {rig.directory}    Ctrl-C ends everything", style="dim"),
    )


def line(moments: Sequence[Moment]) -> str:
    """The same for a log: one line."""
    last = moments[-1]
    records_s, values_s = rates(moments)
    readings = "  ".join(f"{row.stream}: {tables.readings(row.values)}" for row in last.latest)
    return (
        f"{last.at_s:5.1f} s  stored {sum(s.held for s in last.streams)}  receipted {_receipted(last)}"
        f"  missing {sum(s.missing for s in last.streams)}  gaps {_reasons(last) or 'none'}"
        f"  {records_s:.1f} records/s  {values_s:.0f} values/s  agent {_mib(last.agent_rss_bytes)}  {readings}"
    )


def closing(report: Report) -> str:
    """What the demo came to, as a sentence."""
    return (
        f"{report.values_stored} values of this machine's own readings in {report.seconds} s:"
        f" {report.records_sealed} records sealed by the device, {report.records_stored} stored,"
        f" {report.records_receipted} receipted, {report.records_missing} missing,"
        f" {report.records_duplicate} duplicates; the agent took {_mib(report.agent_rss_bytes)}"
    )


def _health(last: Moment) -> Text:
    device = next(iter(last.devices), None)
    broker = "broker connected" if last.facts.connected else "broker not connected"
    if device is None:
        return Text(f"{broker}  waiting for the device", style="yellow")
    state = "device connected" if device.connected else "device not connected"
    good = last.facts.connected and device.connected
    return Text(f"{broker}  {state}  agent {_mib(last.agent_rss_bytes)}", style="green" if good else "yellow")


def _gaps(last: Moment) -> RenderableType:
    if not last.gaps:
        return Text("no gaps", style="green")
    parts: list[RenderableType] = [Text(f"gaps: {_reasons(last)}"), tables.gaps(last.gaps[-GAPS_SHOWN_MAX:])]
    return Group(*parts)


def _reasons(last: Moment) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(g.reason for g in last.gaps).items()))


def _receipted(last: Moment) -> int:
    return sum(stream.receipted for stream in last.spool)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB"
