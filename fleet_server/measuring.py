"""Wires how the fleet stands: what is asked of each part, made into samples, in a thread of its own.

All of it is read as everybody's; who shows it to people scopes it.
"""

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from cryptography import x509
from sqlalchemy import Engine

from broker_config import device_classes
from fleet_server.access.auditor import Auditor
from fleet_server.access.states import State
from fleet_server.adapters.sql.assignments import SqlAssignments
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.alerting.view import AlertsView
from fleet_server.change.rollout_store import RolloutStore
from fleet_server.change.store import TwinStore
from fleet_server.config import Config
from fleet_server.evidence.custodian import Custodian
from fleet_server.evidence.reconciling import Books
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.view import SinkView
from fleet_server.registry import readiness
from fleet_server.registry.store import Registry
from fleet_server.releasing import ReleaseEnds
from fleet_server.standing import evidence, server
from fleet_server.standing.alerts import AlertsLook
from fleet_server.standing.coverage import CoverageLook
from fleet_server.standing.fitness import FitnessLook
from fleet_server.standing.forecast import READINGS_MAX, Readings
from fleet_server.standing.held import Held
from fleet_server.standing.interviews import InterviewsLook
from fleet_server.standing.looking import Looker, Source
from fleet_server.standing.measures import (
    ALERTS,
    COVERAGE,
    EVIDENCE,
    INTERVIEWS,
    PRESENCE,
    READINESS,
    RECORDINGS,
    ROLLOUTS,
    SERVER,
    UPLOADS,
)
from fleet_server.standing.presence import PresenceLook
from fleet_server.standing.recordings import RecordingsLook
from fleet_server.standing.rollouts import RolloutsLook
from fleet_server.standing.sample import Sample
from fleet_server.standing.uploads import UploadsLook
from fleet_server.telemetry.view import TelemetryView
from fleet_server.threads import Resumed
from fleet_server.uploads import Uploads

HOUR_MS: Final = 3_600_000
COVERAGE_WAIT_S: Final = 30.0
"""By then every camera was looked at once."""
WEEK_MS: Final = 7 * 24 * HOUR_MS


class Measuring:
    """Made, told of what there is, started, stopped, in this order. ``held``: the ports Standing and Following."""

    def __init__(self, config: Config, *, now_ms: Callable[[], int]) -> None:
        self._config = config
        self._now_ms = now_ms
        self._sources: list[Source] = []
        self.held = Held(pace=config.measuring.pace)
        self._thread = Resumed("standing", self._run)

    def fleet(
        self, engine: Engine, registry: Registry, view: TelemetryView, labels: LabelsOf, twins: TwinStore
    ) -> None:
        """Measures of devices."""
        config = self._config
        enrolments = SqlEnrolments(engine)
        fitness = FitnessLook(
            registry,
            view,
            labels,
            SqlAssignments(engine),
            twins,
            lambda: _certificate_ends(enrolments, self._now_ms()),
            table=readiness.table_of(config.readiness),
            shift_ms=int(config.measuring.shift_h * HOUR_MS),
        )
        self._sources += [
            Source(PRESENCE, PresenceLook(view, labels).look),
            Source(READINESS, fitness.look),
            Source(COVERAGE, CoverageLook(self.held.samples, SqlAssignments(engine)).look, wait_s=COVERAGE_WAIT_S),
        ]

    def rollouts(self, store: RolloutStore) -> None:
        """Measures of rollouts."""
        self._sources.append(Source(ROLLOUTS, RolloutsLook(store).look))

    def alerts(self, view: AlertsView) -> None:
        """How many are open."""
        self._sources.append(Source(ALERTS, AlertsLook(view).look))

    def evidence(
        self,
        registry: Registry,
        labels: LabelsOf,
        books: Books,
        uploads: Uploads,
        custodian: Custodian,
        auditor: Auditor,
        overdue: Callable[[], Mapping[str, int] | None],
    ) -> None:
        """Measures of files, and of what devices recorded."""
        classes = frozenset(name for name in device_classes.names() if device_classes.load(name).files)
        recordings = RecordingsLook(registry, books, labels, overdue, classes=classes)
        whole = EvidenceLook(uploads, custodian, auditor, recordings, overdue)
        self._sources += [
            Source(RECORDINGS, recordings.look),
            Source(UPLOADS, UploadsLook(uploads.progress, labels).look),
            Source(INTERVIEWS, InterviewsLook(registry, books, labels).look),
            Source(EVIDENCE, whole.look),
        ]

    def server(self, view: TelemetryView, sinks: SinkView) -> None:
        """Measures of the server itself."""
        self._sources.append(Source(SERVER, ServerLook(self._config, view, sinks).look))

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def stop(self) -> None:
        """In order."""
        self._thread.stop()

    def _run(self, stop: threading.Event) -> None:
        pace = self._config.measuring.pace
        Looker(self._sources, self.held, now_ms=self._now_ms, monotonic_s=time.monotonic, pace=pace).run(stop)


class EvidenceLook:
    """At what is kept and where."""

    def __init__(
        self,
        uploads: Uploads,
        custodian: Custodian,
        auditor: Auditor,
        recordings: RecordingsLook,
        overdue: Callable[[], Mapping[str, int] | None],
    ) -> None:
        self._uploads = uploads
        self._custodian = custodian
        self._auditor = auditor
        self._recordings = recordings
        self._overdue = overdue
        self._free = Readings(math.inf, spacing_ms_max=WEEK_MS // READINGS_MAX)

    def look(self, at_ms: int) -> Iterator[Sequence[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        overdue, free_bytes = self._overdue(), self._uploads.free_bytes
        self._free.add(at_ms, free_bytes)
        seen = evidence.Seen(
            at_ms,
            free_bytes,
            not self._auditor.facts().fault,
            self._custodian.facts,
            self._uploads.facts(),
            self._recordings.lateness(),
            None if overdue is None else sum(overdue.values()),
            self._free.lasts_s(),
        )
        yield [evidence.sample(seen)]


class ServerLook:
    """At this server, its disk, and its authority."""

    def __init__(self, config: Config, view: TelemetryView, sinks: SinkView) -> None:
        self._config = config
        self._view = view
        self._sinks = sinks
        self._before: server.Seen | None = None
        self._release_ends = None if config.releases is None else ReleaseEnds(config.releases)

    def look(self, at_ms: int) -> Iterator[Sequence[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        config, facts = self._config, self._view.facts()
        now = server.Seen(
            at_ms,
            facts,
            config.ingest.quarantine_bytes_max,
            disk_free_bytes=shutil.disk_usage(config.state_dir).free,
            ca_end_ms=_authority_end_ms(config),
            sink=next(iter(self._sinks.sinks()), None),
            releases_end_ms=(None, None) if self._release_ends is None else self._release_ends.look(),
            takes=server.takes(facts, self._before),
        )
        found = server.sample(now, self._before)
        self._before = now
        yield [found]


def _authority_end_ms(config: Config) -> int | None:
    """Of whoever signs devices' certificates now; None: nobody here."""
    if config.device_ca is None:
        return None
    certificate = x509.load_pem_x509_certificate(config.device_ca.cert_file.read_bytes())
    return int(certificate.not_valid_after_utc.timestamp() * 1000)


def _certificate_ends(enrolments: SqlEnrolments, now_ms: int) -> Mapping[str, int]:
    """When the newest good certificate of each device ends."""
    found: dict[str, int] = {}
    for each in enrolments.counting(now_ms=now_ms):
        if each.state is State.ACTIVE:
            found[each.device] = max(each.not_after_ms, found.get(each.device, 0))
    return found
