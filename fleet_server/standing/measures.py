"""Measures of the server's own: names, units and words, in one table, for dashboards, alerts and pages.

Of a *device* a measure has the tags ``device``, ``device_class``, ``org``; of a *node*, of what is at this node of
the organisation itself, not of what is below it, ``org``; of the *site* none. A field is a float always, its unit as
SenML names it; what is not known has no value. Words are English, and keys of the catalogue of texts.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

YES_NO: Final = "/"
COUNT: Final = "count"
BYTES: Final = "B"
SECONDS: Final = "s"
MILLISECONDS: Final = "ms"
PER_SECOND: Final = "1/s"
BYTES_PER_SECOND: Final = "B/s"


class Of(StrEnum):
    """What a measure is of."""

    DEVICE = "device"
    NODE = "node"
    SITE = "site"


@dataclass(frozen=True, slots=True)
class Field:
    """``unit``: as SenML names it; ``/`` is 0 or 1, or a share between them where *share*."""

    name: str
    unit: str
    description: str
    share: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """``every_s``: between two points."""

    name: str
    of: Of
    every_s: int
    description: str
    fields: tuple[Field, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of its fields, in their order."""
        return tuple(field.name for field in self.fields)


PRESENCE: Final = Measure(
    "presence",
    Of.DEVICE,
    30,
    "What the server knows of each device",
    (
        Field("connected", YES_NO, "1 while it is connected"),
        Field("reporting", YES_NO, "1 while every stream with a cadence keeps it"),
        Field("healthy", YES_NO, "1 while its journal says nothing is wrong"),
        Field("flaps", COUNT, "connections made within the last hour beside the one it has"),
        Field("held", COUNT, "numbers stored"),
        Field("missing", COUNT, "numbers that are not stored"),
        Field("quarantined", COUNT, "numbers in quarantine"),
        Field("gaps_unexplained", COUNT, "gaps of the last day without a reason"),
        Field("gaps_explained", COUNT, "gaps of the last day with a reason"),
        Field("gaps_lost", COUNT, "gaps of the last day of what was receipted: an alarm"),
    ),
)
READINESS: Final = Measure(
    "readiness",
    Of.DEVICE,
    60,
    "Whether a device is fit for the next shift",
    (
        Field("ready", YES_NO, "1 while nothing speaks against giving it out"),
        Field("battery_ok", YES_NO, "1 while the battery is as full as its class asks for"),
        Field("space_ok", YES_NO, "1 while there is as much room as its class asks for"),
        Field("agent_ok", YES_NO, "1 while its agent is as new as its class asks for"),
        Field("self_test_ok", YES_NO, "1 while its last self-test passed, and is recent"),
        Field("given_out", YES_NO, "1 while somebody has it"),
        Field("in_effect", YES_NO, "1 while what it reports is what is desired"),
        Field("battery_lasts_s", SECONDS, "until the battery is empty, as it went lately"),
        Field("space_lasts_s", SECONDS, "until there is no room, as it went lately"),
        Field("shift_left_s", SECONDS, "of the shift for which it was given out, by how long one is"),
        Field("certificate_s", SECONDS, "until its certificate ends"),
        Field("clock_off_ms", MILLISECONDS, "of the times it gives against the server's, as last measured"),
        Field("clock_unc_ms", MILLISECONDS, "how far its clock may be off, as it says"),
    ),
)
RECORDINGS: Final = Measure(
    "recordings",
    Of.DEVICE,
    300,
    "Recordings of the last day in the device's journal, against verified files",
    (
        Field("expected", COUNT, "recordings that its journal tells of"),
        Field("verified", COUNT, "of them, whole and verified"),
        Field("overdue", COUNT, "recordings of the last week that are not here a day later"),
        Field("lateness_s", SECONDS, "from the end of a recording until it was verified, the median"),
    ),
)
UPLOADS: Final = Measure(
    "uploads",
    Of.DEVICE,
    30,
    "Files on their way from a device; only while there are some",
    (
        Field("files", COUNT, "files on their way"),
        Field("left_bytes", BYTES, "what is still to come of them"),
        Field("goodput", BYTES_PER_SECOND, "of the last minute, made durable"),
        Field("finish_s", SECONDS, "until all is here, at this rate"),
    ),
)
INTERVIEWS: Final = Measure(
    "interviews",
    Of.DEVICE,
    60,
    "Interviews of the last day in a room, and what was recorded of them",
    (
        Field("sessions", COUNT, "interviews that began in the last day"),
        Field("under_way", YES_NO, "1 while one goes on"),
        Field("covered", YES_NO, "share of the time of those that ended that was recorded", share=True),
        Field("gaps", COUNT, "gaps in their recordings, but for what is still to come"),
        Field("gap_s", SECONDS, "how long these are together"),
        Field("gaps_unexplained", COUNT, "of them, those without a reason"),
    ),
)
COVERAGE: Final = Measure(
    "coverage",
    Of.NODE,
    60,
    "Officers with a working body camera",
    (
        Field("officers", COUNT, "officers who have been given anything"),
        Field("covered", COUNT, "of them, those with a body camera that works"),
        Field("cameras", COUNT, "body cameras at this node"),
        Field("spare", COUNT, "of them, ready and given to nobody"),
    ),
)
ALERTS: Final = Measure(
    "alerts",
    Of.NODE,
    30,
    "Alerts that are open, by the organisation node they belong to",
    (
        Field("alarms", COUNT, "open alerts that are alarms"),
        Field("warnings", COUNT, "open alerts that are warnings"),
    ),
)
ROLLOUTS: Final = Measure(
    "rollouts",
    Of.SITE,
    30,
    "Rollouts that have not ended",
    (
        Field("under_way", COUNT, "rollouts that give devices their turn"),
        Field("paused", COUNT, "rollouts that are paused"),
        Field("waiting", COUNT, "devices that still wait for their turn"),
        Field("changing", COUNT, "devices that are at it"),
        Field("done", COUNT, "devices that have the change"),
        Field("failed", COUNT, "devices on which it did not go well"),
    ),
)
EVIDENCE: Final = Measure(
    "evidence",
    Of.SITE,
    60,
    "Files of devices, from recorded to verified, and where they are kept",
    (
        Field("pieces", COUNT, "pieces of evidence that are kept"),
        Field("bytes", BYTES, "their sizes together"),
        Field("free_bytes", BYTES, "left where they are kept"),
        Field("space_lasts_s", SECONDS, "until there is no room, as the last week went"),
        Field("open_uploads", COUNT, "files on their way"),
        Field("stale_uploads", COUNT, "of them, those that nobody continues"),
        Field("unreplicated", COUNT, "pieces whose second copy is still to be made"),
        Field("overdue", COUNT, "recordings that are not here a day later"),
        Field("lateness_p50_s", SECONDS, "from recorded to verified, half of the last day's"),
        Field("lateness_p90_s", SECONDS, "from recorded to verified, nine of ten of the last day's"),
        Field("lateness_p99_s", SECONDS, "from recorded to verified, 99 of 100 of the last day's"),
        Field("damaged", COUNT, "pieces that the last scrub found something of"),
        Field("scrub_age_s", SECONDS, "since the last scrub ended"),
        Field("log_good", YES_NO, "1 while the custody log is what was signed"),
        Field("deletions_waiting", COUNT, "deletions that were asked for and may still be done"),
    ),
)
SERVER: Final = Measure(
    "server",
    Of.SITE,
    30,
    "The fleet server itself",
    (
        Field("broker_connected", YES_NO, "1 while it is connected to the broker"),
        Field("store_takes", YES_NO, "1 while the batch store takes commits"),
        Field("ingest", PER_SECOND, "records committed"),
        Field("duplicates", PER_SECOND, "records that came again though stored"),
        Field(
            "receipt_age_ms", MILLISECONDS, "from a record's arrival to its receipt, the oldest of the last interval"
        ),
        Field("commit_ms", MILLISECONDS, "a transaction of the batch store, the mean of the last interval"),
        Field("queue_records", COUNT, "records that wait for a commit"),
        Field("queue_share", YES_NO, "share of what may wait", share=True),
        Field("quarantine_bytes", BYTES, "payloads in quarantine"),
        Field("quarantine_share", YES_NO, "share of what quarantine may hold", share=True),
        Field("unsealed_records", COUNT, "records stored and not yet in columns"),
        Field("sink_behind_s", SECONDS, "for how long the oldest point waits for the time-series server"),
        Field("series", COUNT, "series in the time-series server"),
        Field("series_share", YES_NO, "share of the budget of series", share=True),
        Field("ca_s", SECONDS, "until the devices' authority ends"),
        Field("releases_s", SECONDS, "until persons have to sign releases anew"),
        Field("releases_fresh_s", SECONDS, "until the server's own signature of releases ends"),
        Field("disk_free_bytes", BYTES, "left where the batch store is"),
    ),
)

MEASURES: Final = (
    PRESENCE, READINESS, RECORDINGS, UPLOADS, INTERVIEWS, COVERAGE, ALERTS, ROLLOUTS, EVIDENCE, SERVER
)  # fmt: skip
BY_NAME: Final = {measure.name: measure for measure in MEASURES}

HAPPENING: Final = "happening"
"""Annotations: what :mod:`fleet_server.outbound.happenings` tells. Tags as of a device, as far as there are any;
fields are strings: ``kind``, ``severity``, and the words as ``text_en`` and ``text_zh_hans``.
"""
HAPPENING_FIELDS: Final = ("kind", "severity", "text_en", "text_zh_hans")
