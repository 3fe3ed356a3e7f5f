"""The server while it runs: telemetry first; what needs to know what it knows is put together once it has shards."""

import asyncio
import gc
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from zoneinfo import ZoneInfo

import structlog
import uvicorn

from fleet_server import alerts as alerting
from fleet_server import parts
from fleet_server import rolling_out as rollouts
from fleet_server.access.visits import Visits
from fleet_server.adapters.sql.assignments import SqlAssignments
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.adapters.sql.overdue import SqlOverdue
from fleet_server.adapters.sql.subscriptions import SqlSubscriptions
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.annotations import FeedAnnotations
from fleet_server.api.app import Ports, create_app
from fleet_server.api.assignments import Assigning
from fleet_server.broker_links import link_settings
from fleet_server.change.rolling import Rolling, Tell
from fleet_server.change.sight import Sight
from fleet_server.changing import Changing
from fleet_server.commanding import Commanding
from fleet_server.config import Config
from fleet_server.custody import Custody
from fleet_server.evidence.overdue import OverdueLooker
from fleet_server.evidence.reconciling import Books
from fleet_server.identities import Identities
from fleet_server.measuring import Measuring
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.happenings import News
from fleet_server.outbound.looking import LookSettings
from fleet_server.outbound.sending import Sender
from fleet_server.outbound.service import Outbound
from fleet_server.outbound.subscriptions import Sort
from fleet_server.outbound.watch import WatchPolicy
from fleet_server.pages.app import Beside, add_pages
from fleet_server.parts import Operators, Secrets, now_ms
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.sinks import Sinks
from fleet_server.registry import readiness
from fleet_server.registry.keeper import Keeper, PromptLabels
from fleet_server.release_chunks import ReleaseChunks
from fleet_server.rolling_out import monotonic_ms, rolling_of
from fleet_server.telemetry.ingest import IngestSettings
from fleet_server.telemetry.service import Service, ServiceSettings
from fleet_server.uploads import Uploads

API_STOP_S: Final = 5.0
API_CONNECTIONS_MAX: Final = 256
API_KEEP_ALIVE_S: Final = 30
PROXY: Final = ["127.0.0.1"]
"""Whose word of who asks is believed: nginx of this machine replaces what a client says of itself."""
GC_ALLOCATIONS: Final = 50_000

log = structlog.get_logger()


class Server:
    """All of it in one process. Each part in a thread of its own that must not hold up a receipt."""

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        store: SqliteStore,
        operators: Operators,
        senders: Callable[[], Mapping[Sort, Sender]],
        listener: socket.socket,
        identities: Identities | None,
        uploads: Uploads | None = None,
    ) -> None:
        """*listener* is the API's; *identities* None: this server signs no devices; *uploads* None: no files."""
        self._config = config
        self._store = store
        self._operators = operators
        self._senders = senders
        self._listener = listener
        self._identities = identities
        self._uploads = uploads
        releases = None if identities is None else identities.releases
        self._release_chunks = ReleaseChunks(config, releases, secrets.security)
        self._trusted = secrets.trusted
        self._security = secrets.security
        self._telemetry = _telemetry(config, secrets, store)
        self._measuring = Measuring(config, now_ms=now_ms)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT.

        Raises:
            FencedError: another server took the shards over.
            StoreError: the batch store takes nothing any more.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        service = self._telemetry
        telemetry = asyncio.create_task(service.run(stop), name="telemetry")
        started = asyncio.create_task(service.started.wait(), name="started")
        await asyncio.wait([telemetry, started], return_when=asyncio.FIRST_COMPLETED)
        if not service.started.is_set():
            started.cancel()
            await telemetry
            return
        await self._serve(telemetry, stop)

    async def _serve(self, telemetry: asyncio.Task[None], stop: asyncio.Event) -> None:
        """The rest, beside telemetry that has begun."""
        config, operators, view = self._config, self._operators, self._telemetry.answers
        keeper = Keeper(view, operators.registry, now_ms=now_ms)
        changing = Changing(config, operators.engine, operators.registry, keeper, view, self._security, now_ms=now_ms)
        bell, subscriptions = Bell(), SqlSubscriptions(operators.engine)
        outbound = self._outbound(bell)

        def told() -> None:
            bell.ring()
            outbound.wake()

        tell = self._tell(told)
        rolling = rolling_of(
            operators.engine,
            operators.registry,
            view,
            changing.ports,
            published=changing.published,
            tell=tell,
            now_ms=now_ms,
        )
        rolling_out = rollouts.running(rolling)
        happened = FeedAnnotations(SqlFeed(operators.engine))
        labels, measuring = PromptLabels(operators.registry, keeper), self._measuring
        sinks = parts.sinks_of(config, self._store, measuring.held, labels, happened)
        sinks.start()
        measuring.fleet(operators.engine, operators.registry, view, labels, changing.twins)
        measuring.server(view, sinks)
        measuring.rollouts(rolling.store)
        alerts = alerting.alerts_of(config, operators.engine, measuring.held, view, labels, told=told, now_ms=now_ms)
        alerting_now = alerting.running(alerts)
        measuring.alerts(alerts)
        if self._identities is not None:
            self._identities.open(operators.engine, operators.registry, view)
        subscriptions.keep_mail(parts.mail_choice(config), now_ms=now_ms())
        custody = self._custody(tell, told, labels)
        signers = self._trusted.signers_json
        sight = Sight(
            operators.registry, view, changing.twins, changing.layers, now_ms=now_ms, monotonic_ms=monotonic_ms
        )
        commanding = Commanding(
            config, operators.engine, view, self._security, signers, fitting=sight.fitting, now_ms=now_ms
        )
        ports = self._ports(bell, subscriptions, outbound, sinks, custody, changing, rolling, commanding)
        api = _api(replace(ports, alerts=alerts), self._beside())
        # a loop of its own: a slow answer must not hold up a receipt
        answering = _started("api", api.run, [self._listener])
        keeping, auditing = threading.Event(), threading.Event()
        kept = _started("keeper", keeper.run, keeping)
        audited = _started("audit", operators.auditor.run, auditing, config.audit.checkpoint_s)
        _started("trust", self._trusted.run, auditing, operators.auditor.record, config.state_dir, now_ms)
        outbound.start()
        # what is there now stays; later garbage is young: looking through all of it costs receipts their promptness
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS)
        if self._identities is not None:
            self._identities.start(operators.auditor.record, self._uploads)
        if self._uploads is not None and custody is not None:
            self._uploads.open(custody.pieces, SqlEnrolments(operators.engine).certificate)
            self._uploads.start()
            custody.start()
        self._release_chunks.start()
        changing.start()
        if config.shards[0] == 0:
            rolling_out.start()
        commanding.start()
        measuring.start()
        alerting_now.start()
        log.info("serving", api=config.api.url, store_epoch=self._telemetry.facts().store_epoch)
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([telemetry, stopping], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(sinks.stop)  # before the lease is dropped, by which it writes
            await telemetry
        finally:
            await asyncio.to_thread(alerting_now.stop)
            await asyncio.to_thread(measuring.stop)
            await asyncio.to_thread(rolling_out.stop)
            await asyncio.to_thread(changing.stop)
            await asyncio.to_thread(self._release_chunks.stop)
            await asyncio.to_thread(commanding.stop)
            if self._uploads is not None and custody is not None:
                await asyncio.to_thread(self._uploads.stop)
                await asyncio.to_thread(custody.stop)
            if self._identities is not None:
                await asyncio.to_thread(self._identities.stop)
            keeping.set()
            await asyncio.to_thread(outbound.stop)
            stopping.cancel()
            api.should_exit = True
            await asyncio.to_thread(kept.join, API_STOP_S)
            await asyncio.to_thread(answering.join, API_STOP_S)
            auditing.set()  # behind the API, so that the last checkpoint covers all that it did
            await asyncio.to_thread(audited.join, API_STOP_S)

    def _outbound(self, bell: Bell) -> Outbound:
        config, operators = self._config, self._operators
        return Outbound(
            self._telemetry.answers,
            operators.registry,
            SqlOutbox(operators.engine, digest_ms=int(1000 * config.mail.digest_s) if config.mail else 0),
            self._senders,
            LookSettings(
                quarantine_bytes_max=config.ingest.quarantine_bytes_max,
                watch=WatchPolicy(settle_ms=int(1000 * config.outbound.settle_s)),
            ),
            bell=bell,
            now_ms=now_ms,
            rng=random.Random(),  # noqa: S311 - jitter
        )

    def _tell(self, told: Callable[[], None]) -> Tell:
        outbox = SqlOutbox(self._operators.engine)

        def tell(news: Sequence[News]) -> None:
            outbox.record(news, {}, {}, now_ms=now_ms())
            told()

        return tell

    def _custody(self, tell: Tell, told: Callable[[], None], labels: LabelsOf) -> Custody | None:
        if self._uploads is None:
            return None
        operators = self._operators
        custody = parts.custody_of(self._config, operators, self._uploads, self._store, self._trusted, tell)
        books = Books(self._telemetry.answers, custody.pieces, SqlAssignments(operators.engine))
        overdue = SqlOverdue(SqlOutbox(operators.engine), now_ms=now_ms, told=told)
        looker = OverdueLooker(books, operators.registry, overdue, now_ms=now_ms)
        custody.also("overdue", looker.run)
        self._measuring.evidence(
            operators.registry,
            labels,
            books,
            self._uploads,
            custody.evidence.custodian,
            operators.auditor,
            lambda: looker.counts,
        )
        return custody

    def _ports(
        self,
        bell: Bell,
        subscriptions: SqlSubscriptions,
        outbound: Outbound,
        sinks: Sinks,
        custody: Custody | None,
        changing: Changing,
        rolling: Rolling,
        commanding: Commanding,
    ) -> Ports:
        operators = self._operators
        return Ports(
            self._telemetry.answers,
            operators.registry,
            operators.kept,
            SqlFeed(operators.engine),
            subscriptions,
            bell,
            outbound.wake,
            sinks,
            operators.people,
            operators.auditor,
            operators.persons,
            Assigning(SqlAssignments(operators.engine), readiness.table_of(self._config.readiness)),
            enrolling=None if self._identities is None else self._identities.enrolling,
            signing_in=operators.signing_in,
            uploads=lambda: None if self._uploads is None else self._uploads.facts(),
            evidence=None if custody is None else custody.evidence,
            timestamps=None if custody is None else custody.timestamps,
            change=changing.ports,
            twin_facts=changing.facts,
            command_facts=commanding.facts,
            rolling=rolling,
            commanding=commanding.ports,
            visits=Visits(operators.people) if operators.signing_in is None else None,
        )

    def _beside(self) -> Beside:
        uploads = self._uploads
        return Beside(
            zone=ZoneInfo(self._config.site.timezone),
            standing=self._measuring.held,
            under_way=tuple if uploads is None else uploads.progress,
        )


def _telemetry(config: Config, secrets: Secrets, store: SqliteStore) -> Service:
    """What takes in, commits and receipts."""
    return Service(
        ServiceSettings(
            shards=config.shards,
            lease_ttl_s=config.lease.ttl_s,
            group_wait_ms=config.ingest.group_wait_ms,
            seal_every_s=config.seal.every_s,
            seal_records_max=config.seal.records_max,
            ingest=IngestSettings(
                group_records_min=config.ingest.group_records_min,
                group_records_max=config.ingest.group_records_max,
                receipt_every=config.ingest.receipt_every,
                receipt_linger_ms=config.ingest.receipt_linger_ms,
                quarantine_bytes_max=config.ingest.quarantine_bytes_max,
            ),
            reconnects_a_second_max=config.broker.reconnects_a_second_max,
        ),
        link_settings(config, secrets.security, work="ingest"),
        store,
        mac_key=secrets.trusted.mac_key,
        newest=secrets.trusted.newest,
        owner=f"{socket.gethostname()}/{os.getpid()}",
        now_ms=now_ms,
        rng=random.Random(),  # noqa: S311 - jitter
    )


def _api(ports: Ports, beside: Beside) -> uvicorn.Server:
    app = create_app(ports)
    add_pages(app, ports, beside)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=True,
            forwarded_allow_ips=PROXY,  # it says who asks, and that it was https
            limit_concurrency=API_CONNECTIONS_MAX,
            timeout_keep_alive=API_KEEP_ALIVE_S,
        )
    )


def _started(name: str, target: Callable[..., None], *arguments: object) -> threading.Thread:
    """A thread of that name, running; it does not keep the process alive."""
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    thread.start()
    return thread
