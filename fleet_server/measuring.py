"""Wires how the fleet stands: what is asked of each part, made into samples, in a thread of its own.

All of it is read as everybody's; who shows it to people scopes it.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from cryptography import x509
from sqlalchemy import Engine

from fleet_server.access.states import State
from fleet_server.adapters.sql.assignments import SqlAssignments
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.change.store import TwinStore
from fleet_server.config import Config
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.view import SinkView
from fleet_server.registry import readiness
from fleet_server.registry.store import Registry
from fleet_server.standing import server
from fleet_server.standing.fitness import FitnessLook
from fleet_server.standing.held import Held
from fleet_server.standing.looking import Looker, Source
from fleet_server.standing.measures import PRESENCE, READINESS, SERVER
from fleet_server.standing.presence import PresenceLook
from fleet_server.standing.sample import Sample
from fleet_server.telemetry.view import TelemetryView
from fleet_server.threads import Resumed

HOUR_MS: Final = 3_600_000


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


class ServerLook:
    """At this server, its disk, and its authority."""

    def __init__(self, config: Config, view: TelemetryView, sinks: SinkView) -> None:
        self._config = config
        self._view = view
        self._sinks = sinks
        self._before: server.Seen | None = None

    def look(self, at_ms: int) -> Iterator[Sequence[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        config = self._config
        now = server.Seen(
            at_ms,
            self._view.facts(),
            config.ingest.quarantine_bytes_max,
            disk_free_bytes=shutil.disk_usage(config.state_dir).free,
            ca_end_ms=_authority_end_ms(config),
            sink=next(iter(self._sinks.sinks()), None),
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
