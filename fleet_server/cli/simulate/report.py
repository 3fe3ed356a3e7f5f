"""What a simulation came to: the JSON of ``--report``, and a sentence."""

import math
from collections.abc import Sequence

import msgspec


class Numbers(msgspec.Struct, frozen=True):
    """Sequence numbers. ``sealed``: given by the devices; ``receipted``: covered by authentic receipts; ``gone``:
    tombstones of a full disk; ``waiting``: held and not receipted at the end. By the API: ``stored``, ``missing``,
    ``quarantined``. ``lost``: what should be stored and is not, by either side's
    account. ``duplicates``: came again though stored; null where the server is not ours.
    """

    sealed: int
    receipted: int
    gone: int
    waiting: int
    stored: int
    missing: int
    quarantined: int
    lost: int
    receipts_refused: int
    duplicates: int | None


class Load(msgspec.Struct, frozen=True):
    """Processor time as a share of one core over the measured span, and most memory; null of what is not ours."""

    server_cpu_share: float | None
    server_rss_bytes_max: int | None
    broker_cpu_share: float | None
    broker_rss_bytes_max: int | None
    own_cpu_share: float


class Storm(msgspec.Struct, frozen=True):
    """After the broker was gone. ``connects_s_peak``: begun within any one second; ``wanted_s_peak``: due in
    one second by the devices' own decision, however late the tool was.
    """

    broker_down_s: float | None
    all_back_s: float | None
    connects_s_peak: int
    sessions_up_s_peak: int
    wanted_s_peak: int


class SessionsReport(msgspec.Struct, frozen=True, tag_field="mode", tag="sessions"):
    """``--mode sessions``. ``connect_rate``: the tool's own bound, 0 for none; ``reconnects_a_second_max``: what the
    server's configuration states, ``spread_s`` what it made of that for its devices. ``begun_late_s_max``: how long a
    connection that was due waited at most for the tool itself; those that wait are begun in one clump.
    """

    broker: str
    devices: int
    seconds: float
    sessions_fit: int
    sessions_held_max: int
    connect_s: float
    connect_rate: int
    reconnects_a_second_max: int
    spread_s: float
    connects_s_peak: int
    begun_late_s_max: float
    connects_failed: dict[str, int]
    faults: dict[str, int]
    storm: Storm | None
    drained: bool
    drain_s: float
    numbers: Numbers
    load: Load
    stopped_cleanly: bool


class IdentitiesReport(msgspec.Struct, frozen=True, tag_field="mode", tag="identities"):
    """``--mode identities``. ``*_ms``: from the first sending of a message to its receipt."""

    broker: str
    identities: int
    seconds: float
    messages_s: float
    values_s: float
    receipt_ms_p50: float | None
    receipt_ms_p99: float | None
    stored_bytes: int | None
    connections: int
    drained: bool
    drain_s: float
    numbers: Numbers
    load: Load
    stopped_cleanly: bool


def percentile(sorted_values: Sequence[float], share: float) -> float | None:
    """The value that *share* of them do not exceed; None of none."""
    if not sorted_values:
        return None
    return sorted_values[max(0, math.ceil(share * len(sorted_values)) - 1)]


def failed(report: SessionsReport | IdentitiesReport) -> bool:
    """Whether the exit code has to say so."""
    return report.numbers.lost > 0 or not report.drained or not report.stopped_cleanly


def closing(report: SessionsReport | IdentitiesReport) -> str:
    """What it came to, in a few lines."""
    numbers, load = report.numbers, report.load
    lines = [
        (
            f"{numbers.sealed:,} numbers sealed, {numbers.receipted:,} receipted, {numbers.gone:,} gone,"
            f" {numbers.stored:,} stored, {numbers.missing:,} missing, {numbers.quarantined:,} quarantined,"
            f" {numbers.lost:,} lost"
        ),
    ]
    if isinstance(report, SessionsReport):
        lines.append(
            f"{report.sessions_held_max:,} sessions held, {report.connects_s_peak} connections begun in one second"
            f" at most (the server states {report.reconnects_a_second_max}), up to"
            f" {report.begun_late_s_max:.1f} s late"
        )
        if report.storm is not None:
            back = "never" if report.storm.all_back_s is None else f"{report.storm.all_back_s:.1f} s"
            lines.append(
                f"after the broker was gone: all back after {back}, at most {report.storm.connects_s_peak}"
                f" connections begun in one second, {report.storm.wanted_s_peak} wanted"
            )
    else:
        lines.append(
            f"{report.messages_s:,.0f} messages/s, {report.values_s:,.0f} values/s; receipt after"
            f" {report.receipt_ms_p50 or 0:.0f} ms (median), {report.receipt_ms_p99 or 0:.0f} ms (99 of 100)"
        )
    if load.server_cpu_share is not None and load.server_rss_bytes_max is not None:
        lines.append(
            f"the server: {100 * load.server_cpu_share:.1f} % of a core, {load.server_rss_bytes_max / 2**20:.0f} MiB"
        )
    if not report.drained:
        lines.append(f"not drained within {report.drain_s:.0f} s: {numbers.waiting:,} numbers wait for a receipt")
    return "\n".join(lines)
