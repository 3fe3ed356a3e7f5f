"""Files of devices, from recorded to verified, and where they are kept. Pure."""

from dataclasses import dataclass

from fleet_server.evidence.facts import EvidenceFacts
from fleet_server.evidence.pieces import CustodyFacts
from fleet_server.standing.measures import EVIDENCE
from fleet_server.standing.recordings import Lateness
from fleet_server.standing.sample import Sample, sampled


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known at a moment; None: not yet. ``overdue``: recordings of all devices; ``log_good``: the custody
    log is what was signed.
    """

    at_ms: int
    free_bytes: int
    log_good: bool
    custody: CustodyFacts | None = None
    uploads: EvidenceFacts | None = None
    lateness: Lateness | None = None
    overdue: int | None = None
    space_lasts_s: float | None = None


def sample(seen: Seen) -> Sample:
    """Of the site."""
    custody, uploads, late = seen.custody, seen.uploads, seen.lateness
    return sampled(
        EVIDENCE,
        seen.at_ms,
        {
            "pieces": None if custody is None else custody.totals.pieces,
            "bytes": None if custody is None else custody.totals.bytes_held,
            "free_bytes": seen.free_bytes,
            "space_lasts_s": seen.space_lasts_s,
            "open_uploads": None if uploads is None else uploads.open_uploads,
            "stale_uploads": None if uploads is None else uploads.stale_uploads,
            "unreplicated": None if uploads is None else uploads.unreplicated,
            "overdue": seen.overdue,
            "lateness_p50_s": None if late is None else late.p50_s,
            "lateness_p90_s": None if late is None else late.p90_s,
            "lateness_p99_s": None if late is None else late.p99_s,
            "damaged": None if custody is None else custody.totals.damaged,
            "scrub_age_s": _age_s(custody, seen.at_ms),
            "log_good": seen.log_good,
            "deletions_waiting": None if custody is None else custody.deletions_waiting,
        },
    )


def _age_s(custody: CustodyFacts | None, at_ms: int) -> float | None:
    """None: there was no scrub."""
    return None if custody is None or not custody.scrub_ms else max(0, at_ms - custody.scrub_ms) / 1000
