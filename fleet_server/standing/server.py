"""How the fleet server itself is doing. Pure."""

from dataclasses import dataclass
from typing import Final

from fleet_server.projection.view import SinkStatus
from fleet_server.standing.measures import SERVER
from fleet_server.standing.sample import Sample, sampled
from fleet_server.telemetry.view import IngestFacts

_SECOND_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the server at a moment; ``ca_end_ms``, ``sink``: None, there is none. ``releases_end_ms``: of
    what persons signed, and of what the server signed. ``takes``: the store took what it was last given, as far as
    was seen by then.
    """

    at_ms: int
    ingest: IngestFacts
    quarantine_bytes_max: int
    disk_free_bytes: int | None = None
    ca_end_ms: int | None = None
    sink: SinkStatus | None = None
    releases_end_ms: tuple[int | None, int | None] = (None, None)
    takes: bool = True


def takes(now: IngestFacts, before: Seen | None) -> bool:
    """It took something since, or refused nothing; if neither was tried it is as it was."""
    if before is None or now.commits > before.ingest.commits:
        return True
    return before.takes and now.commit_failures == before.ingest.commit_failures


def sample(now: Seen, before: Seen | None) -> Sample:
    """*before*: the look before this one; without it rates are not known."""
    facts, sink = now.ingest, now.sink
    return sampled(
        SERVER,
        now.at_ms,
        {
            "broker_connected": facts.connected,
            "store_takes": now.takes,
            "ingest": _rate("records_stored", now, before),
            "duplicates": _rate("records_duplicate", now, before),
            "receipt_age_ms": facts.receipt_age_ms,
            "commit_ms": _commit_ms(now, before),
            "queue_records": facts.queue_records,
            "queue_share": facts.queue_share,
            "quarantine_bytes": facts.quarantine_bytes,
            "quarantine_share": facts.quarantine_bytes / now.quarantine_bytes_max
            if now.quarantine_bytes_max
            else None,
            "unsealed_records": facts.unsealed_records,
            "sink_behind_s": None if sink is None else sink.oldest_age_ms / _SECOND_MS,
            "series": None if sink is None else sink.series,
            "series_share": None if sink is None else sink.series / sink.series_max,
            "ca_s": _left_s(now.ca_end_ms, now),
            "releases_s": _left_s(now.releases_end_ms[0], now),
            "releases_fresh_s": _left_s(now.releases_end_ms[1], now),
            "disk_free_bytes": now.disk_free_bytes,
        },
    )


def _left_s(end_ms: int | None, now: Seen) -> float | None:
    return None if end_ms is None else (end_ms - now.at_ms) / _SECOND_MS


def _rate(counter: str, now: Seen, before: Seen | None) -> float | None:
    if before is None or now.at_ms <= before.at_ms:
        return None
    more: int = getattr(now.ingest, counter) - getattr(before.ingest, counter)
    return max(0, more) * _SECOND_MS / (now.at_ms - before.at_ms)


def _commit_ms(now: Seen, before: Seen | None) -> float | None:
    """None: there was none."""
    if before is None or now.ingest.commits <= before.ingest.commits:
        return None
    return (now.ingest.commits_ms - before.ingest.commits_ms) / (now.ingest.commits - before.ingest.commits)
