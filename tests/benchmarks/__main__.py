"""``python -m tests.benchmarks``: every figure that the README names, as ratios within one run.

Example: python -m tests.benchmarks --messages 60000 --rounds 3 --report bench.report.json
"""

import argparse
import json
import platform
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.benchmarks import agent, ingest, projection
from tests.servers import program

DEVICES = 1_000
FULL_ROWS = 60
TABLE_CHARS = 140


def main() -> None:
    """Run, print tables, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=60_000, help="single samples a drain (full batches: a sixth)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--burst", type=int, default=10, help="batches of a device in a row (1: every device in turn)"
    )
    parser.add_argument("--agent-seconds", type=float, default=60.0, help="0 leaves the agent out")
    parser.add_argument("--projected-minutes", type=int, default=10, help="0 leaves the projection out")
    parser.add_argument("--report", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    console = Console(width=TABLE_CHARS)
    report: dict[str, object] = {"python": platform.python_version(), "telegraf": _telegraf()}
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch:
        for name, rows, count in (
            ("single samples", 1, chosen.messages),
            (f"full batches ({FULL_ROWS} x 8)", FULL_ROWS, chosen.messages // 6),
        ):
            rounds = ingest.run(
                Path(scratch) / "ingest",
                rows=rows,
                devices=DEVICES,
                burst=chosen.burst,
                count=count,
                rounds=chosen.rounds,
            )
            report[name] = [[asdict(rate) | {"messages_s": rate.messages_s} for rate in one] for one in rounds]
            console.print(_table(name, rounds))
        if chosen.agent_seconds:
            cost = agent.run(Path(scratch) / "agent", seconds=chosen.agent_seconds)
            report["agent"] = asdict(cost)
            console.print(
                f"agent, four host streams over TLS, {cost.seconds:.0f} s: RSS {cost.rss_bytes / 2**20:.1f} MiB"
                f" (PSS {cost.pss_bytes / 2**20:.1f}), {100 * cost.core_share:.2f} % of a core,"
                f" {cost.written_bytes_a_day / 2**20:.0f} MiB written a day"
            )
        if chosen.projected_minutes and program("victoria-metrics") is None:
            console.print("no victoria-metrics on this machine: no projection")
        elif chosen.projected_minutes:
            for title, paces in projection.both(Path(scratch) / "projection", minutes=chosen.projected_minutes):
                report[f"projection, {title}"] = [asdict(pace) | {"values_s": pace.values_s} for pace in paces]
                console.print(projection.table(title, paces))
    console.print(f"Telegraf: {report['telegraf']}")
    if chosen.report:
        chosen.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _table(name: str, rounds: list[list[ingest.Rate]]) -> Table:
    table = Table(
        title=f"{name}: backlog of {rounds[0][0].messages:,} messages from {DEVICES:,} devices, QoS 1, mutual TLS,"
        f" the server's listener of Mosquitto; median of {len(rounds)} rounds"
    )
    for heading in (
        "consumer",
        "messages/s",
        "M values/s",
        "of the null subscriber",
        "CPU us/message",
        "receipts",
        "B/value",
    ):
        table.add_column(heading, justify="left" if heading == "consumer" else "right")
    for place, first in enumerate(rounds[0]):
        rates = [one[place] for one in rounds]
        ratio = median(one[place].messages_s / one[0].messages_s for one in rounds)
        table.add_row(
            first.consumer,
            f"{median(rate.messages_s for rate in rates):,.0f}",
            f"{median(rate.values_s for rate in rates) / 1e6:.2f}",
            f"{ratio:.2f}",
            f"{median(rate.cpu_us for rate in rates):.1f}",
            f"{first.receipts or '-'}",
            f"{first.bytes_a_value:.2f}" if first.bytes_a_value else "-",
        )
    return table


def _telegraf() -> str:
    if shutil.which("telegraf") is None:
        return "not on the path: not compared"
    return "on the path, and the comparison is not written yet"


if __name__ == "__main__":
    main()
