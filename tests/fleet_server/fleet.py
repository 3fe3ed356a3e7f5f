"""A fleet without a broker: the real ingest, store and view, fed as a broker would feed them."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Engine

from broker_config import topics
from broker_config.device_classes import known_streams
from broker_config.enrolment import BrokerPlace
from broker_config.ids import DeviceId, SiteId
from broker_config.mac import Purpose
from broker_config.messages import Birth, StreamState, encode
from broker_config.telemetry import (
    CONTENT_JSON,
    GENESIS,
    JOURNAL,
    Batch,
    Clock,
    Event,
    Events,
    Record,
    key_text,
)
from broker_config.telemetry import encode as encode_batch
from fleet_server.access import ca
from fleet_server.access.auditor import Auditor
from fleet_server.access.enroller import Enroller, EnrolmentSettings
from fleet_server.access.keys import MasterKey, derive
from fleet_server.access.persons import SessionRules
from fleet_server.access.revocation import Revoker
from fleet_server.access.signing import Issuer, Policy
from fleet_server.adapters.audit_facts import auditor
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.broker_door import Door, DoorSettings
from fleet_server.adapters.revocation_list import CrlFile
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.alerts import SqlAlerts
from fleet_server.adapters.sql.assignments import SqlAssignments
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.commands import SqlCommands
from fleet_server.adapters.sql.config_layers import SqlLayers
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.kept_answers import SqlKeptAnswers
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.adapters.sql.people import SqlPeople
from fleet_server.adapters.sql.persons import SqlPersons
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.adapters.sql.subscriptions import SqlSubscriptions
from fleet_server.adapters.sql.twins import SqlTwins
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.alerting.engine import Alerts, Settings
from fleet_server.alerting.rules import RULE
from fleet_server.api.app import Enrolling, Ports
from fleet_server.api.assignments import Assigning
from fleet_server.api.commands import Commanding
from fleet_server.api.evidence import Evidence
from fleet_server.api.twins import Change
from fleet_server.change.composing import Composer
from fleet_server.change.facts import CommandFacts, TwinFacts
from fleet_server.change.rolling import Rolling
from fleet_server.change.sight import Sight
from fleet_server.changing import circumstances_of
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.happenings import News
from fleet_server.outbound.watch import Told
from fleet_server.projection.projector import Projector, ProjectorSettings
from fleet_server.projection.sinks import Sinks
from fleet_server.projection.target import Target
from fleet_server.registry import readiness
from fleet_server.registry.keeper import Keeper, PromptLabels
from fleet_server.rolling_out import rolling_of
from fleet_server.standing.held import Held
from fleet_server.standing.presence import PresenceLook
from fleet_server.telemetry.answers import Answers
from fleet_server.telemetry.ingest import Ingest, IngestSettings
from fleet_server.telemetry.view import IngestFacts
from tests.fleet_server.access.drafts import SIGNER, SITE
from tests.fleet_server.evidence.rig import Custody
from tests.orders import ROOTS, SERVER, FixedKey, RealSigner
from tests.orders import SITE as ORDERS_SITE

T0: Final = 1_767_254_400_000
"""2026-01-01T08:00:00Z."""
NOW: Final = T0 + 600_000
HOUR_MS: Final = 3_600_000
LIFE: Final = "9f0c2b1a77d3e458"
BOOT: Final = "5c1d7a90be2f4436"
TOKEN: Final = "ff_" + "t" * 43
CAR: Final = DeviceId("car-7")
ROOM: Final = DeviceId("room-1")
SINK: Final = "influx"


class Arrival(NamedTuple):
    """A PUBLISH as the codec would hand it over."""

    topic: str
    payload: bytes
    content_type: str | None = None
    user_properties: list[tuple[str, str]] = []  # noqa: RUF012 - never changed
    packet_id: int | None = 1
    retain: bool = False
    duplicate: bool = False


class Fleet:
    """A server's ingest, store and view, without a broker."""

    def __init__(self, path: Path) -> None:
        self.now_ms = NOW
        self.connected = True
        master = MasterKey(b"\1" * 32)
        self.store = SqliteStore(path, now_ms=T0)
        self._token = self.store.take_lease("test", first=0, last=255, now_ms=T0, ttl_ms=10_000)
        self._ingest = Ingest(
            IngestSettings(
                group_records_max=500, receipt_every=10, receipt_linger_ms=300, quarantine_bytes_max=1_000_000
            ),
            known=known_streams(),
            mac_key=lambda purpose, device, _kid: derive(master, Purpose(purpose), device),
            sealed_crc=self.store.sealed_crc,
            restored=self.store.restore(),
        )
        self.view = Answers(
            self._ingest,
            self.store,
            now_ms=lambda: self.now_ms,
            facts=self._facts,
            replay=self._replay,
            grace_ms=30_000,
        )
        engine = database.connect(database.sqlite_url(path.with_name("operators.db")))
        database.migrate(engine)
        self.registry = SqlRegistry(engine)
        self.assignments = SqlAssignments(engine)
        self.auditor = Auditor(SqlAudit(engine), SIGNER, SITE, now_ms=lambda: NOW)
        self.auditor.start()
        self.people = SqlPeople(engine, persons=True)
        self.persons = SqlPersons(engine, SessionRules(whole_ms=12 * HOUR_MS, idle_ms=HOUR_MS))
        self.people.ensure_first(TOKEN, now_ms=T0)
        self.keeper = Keeper(self.view, self.registry, now_ms=lambda: NOW)
        self.outbox, self.bell = SqlOutbox(engine), Bell()
        change = self._change(engine)
        self.standing = Held()
        self.alerts = self._alerts(engine)
        self.ports = Ports(
            self.view,
            self.registry,
            SqlKeptAnswers(engine),
            SqlFeed(engine),
            SqlSubscriptions(engine),
            self.bell,
            lambda: None,
            Sinks(self.store.feed, [self._sink()]),
            self.people,
            self.auditor,
            self.persons,
            Assigning(self.assignments, readiness.DEFAULTS),
            enrolling=self._enrolling(path.parent, engine, master),
            evidence=self._evidence(path.parent, engine),
            change=change,
            twin_facts=lambda: TwinFacts(connected=True, orders_due=3, counts={"ordered": 5}),
            command_facts=lambda: CommandFacts(connected=True, devices_waiting=2, counts={"said": 7}),
            rolling=self._rolling(engine, change),
            commanding=self._commanding(engine, change),
            alerts=self.alerts,
        )

    def _alerts(self, engine: Engine) -> Alerts:
        """Nobody looks but who says so."""
        told = SqlAlerts(SqlOutbox(engine), now_ms=lambda: self.now_ms, told=self.bell.ring)
        settings = Settings(RULE, settle_s=0.0)
        return Alerts(self.standing, self.view, self.registry, told, settings, now_ms=lambda: self.now_ms)

    def _commanding(self, engine: Engine, change: Change) -> Commanding:
        """Without a broker: what is to be sent is in the store."""
        self.engine, self.commands = engine, SqlCommands(engine)
        self.woken = 0
        self.signer = RealSigner(Issuer(FixedKey(SERVER), Policy(ORDERS_SITE), last=0, reserve=lambda _counter: None))

        def wake() -> None:
            self.woken += 1

        sight = Sight(
            self.registry,
            self.view,
            change.twins,
            change.layers,
            now_ms=lambda: NOW,
            monotonic_ms=lambda: self.now_ms,
        )
        return Commanding(self.commands, wake, lambda: ROOTS, self.signer, sight.fitting)

    def _change(self, engine: Engine) -> Change:
        """Without a broker: who is told what is in ``published``."""
        self.published: list[Mapping[str, int]] = []
        self.news: list[News] = []
        self.twins, self.layers = SqlTwins(engine), SqlLayers(engine)
        self.composer = Composer(
            self.twins, self.layers, self.registry, published=self.published.append, now_ms=lambda: NOW
        )
        self.registry.when_placed(self.composer.moved)
        return Change(self.twins, self.layers, self.composer, circumstances_of(self.registry, self.assignments))

    def _rolling(self, engine: Engine, change: Change) -> Rolling:
        """Which looks at nothing by itself."""
        self.rolling = rolling_of(
            engine,
            self.registry,
            self.view,
            change,
            published=self.published.append,
            tell=self.news.extend,
            now_ms=lambda: NOW,
        )
        return self.rolling

    def _evidence(self, directory: Path, engine: Engine) -> Evidence:
        """Of a folder of contents."""
        self.custody = Custody(engine, directory, self.auditor)
        return self.custody.ports()

    def _enrolling(self, directory: Path, engine: Engine, master: MasterKey) -> Enrolling:
        """With an authority in files, and a broker that nobody has started."""
        now = datetime.fromtimestamp(NOW / 1000, UTC)
        root = ca.new_root("root", now=now)
        authority = ca.new_intermediate(root, "devices", now=now)
        (directory / "device-ca.crt").write_bytes(authority.certificate_pem + root.certificate_pem)
        (directory / "device-ca.key").write_bytes(authority.key_pem)
        keys = FileKeys(directory / "device-ca.crt", directory / "device-ca.key")
        nobody = directory / "none"
        door = Door(DoorSettings("127.0.0.1", 1, 1, nobody, nobody, nobody, (), None, nobody))
        store = SqlEnrolments(engine)
        settings = EnrolmentSettings(
            broker=BrokerPlace("fleet.example", 8883),
            url="https://fleet.example:8471",
            server_ca_pem="",
            signers=lambda: "",
        )

        def class_of(device: str) -> str | None:
            found = self.registry.device(device)
            return None if found is None or found.registered_ms is None else found.registration.device_class

        enroller = Enroller(settings, keys, store, class_of, lambda: master, now_ms=lambda: NOW)
        crl = CrlFile(directory / "device-ca.crl", keys, None)
        revoker = Revoker(keys, store, crl, door, lambda _: False, now_ms=lambda: NOW)
        audited = auditor(store, self.view, keys, crl, directory, SiteId("5e" * 32), now_ms=lambda: NOW)
        return Enrolling(enroller, store, revoker, audited)

    def _sink(self) -> Projector:
        """One that is configured and never runs."""
        self.store.feed.add_sink(SINK)
        return Projector(
            ProjectorSettings(SINK, 1_000, 30),
            self.store.feed,
            self.registry,
            None,
            new_target=never,
            now_ms=lambda: NOW,
            rng=random.Random(1),
        )

    def arrive(self, *arrivals: Arrival, at_ms: int = NOW, looking: bool = True) -> None:
        """Take and commit; *looking*: the registry hears of it."""
        for arrival in arrivals:
            self._ingest.take(arrival, at_ms)
        closed = self._ingest.close(at_ms, receipts_max=100)
        if closed is not None and closed.group:
            self.store.commit(closed.group, token=self._token)
        if looking:
            self.keeper.look()
        self.outbox.record((), {}, {name: self._told(name) for name in self.view.names()}, now_ms=at_ms)

    def _told(self, device: str) -> Told:
        seen = self.view.presence_of(device)
        assert seen is not None
        return Told(seen.connected, not seen.overdue, not seen.faults)

    def _facts(self) -> IngestFacts:
        counters = self._ingest.counters
        return IngestFacts(
            store_epoch=self._ingest.store_epoch,
            connected=self.connected,
            records_stored=counters.records_stored,
            records_duplicate=counters.records_duplicate,
            records_quarantined=counters.records_quarantined,
            messages_dropped=counters.messages_dropped,
            receipts_sent=counters.receipts_sent,
            commits=1,
            commit_failures=0,
            quarantine_bytes=self._ingest.quarantine_bytes,
            unsealed_records=0,
        )

    def _replay(self, row_id: int) -> str:
        rows = self.store.quarantine(after_id=row_id - 1, rows_max=1)
        if not rows or rows[0].id != row_id:
            raise KeyError(row_id)
        return self._ingest.readmit(rows[0], NOW)


def presence_of(fleet: Fleet, held: Held | None = None) -> Held:
    """Of every device, measured now; *held*: where it goes beside what is there."""
    held = Held() if held is None else held
    labels = PromptLabels(fleet.registry, fleet.keeper)
    for portion in PresenceLook(fleet.view, labels).look(fleet.now_ms):
        held.put(portion)
    return held


def never() -> Target:
    """No projector runs here."""
    raise AssertionError


def record(device: DeviceId, sealed: Record, *, last: int | None = None) -> Arrival:
    """What an agent publishes."""
    payload, content_type = encode_batch(sealed)
    channel = topics.Up.EVENT if isinstance(sealed, Events) else topics.Up.TELEMETRY
    properties = [("key", key_text(sealed.stream, sealed.life, sealed.seq)), ("last", str(last or sealed.seq))]
    return Arrival(topics.up(device, channel), payload, content_type, properties)


def cpu(seq: int, *, t0: int, rows: int = 5) -> Batch:
    """A batch of cpu, a row a second; the load is not known."""
    values: list[list[float | None]] = [[float(10 * seq + at), None] for at in range(rows)]
    dt = [1000 * at for at in range(rows)]
    fields = ("cpu_pct", "load_1m")
    return Batch(1, "cpu", LIFE, seq, BOOT, t0, t0 - T0 + 60_000, Clock("ntp", 0, 5), fields, dt, values)


def journal(seq: int, *, t0: int, events: list[Event]) -> Events:
    """A batch of the journal, all at once."""
    mono = t0 - T0 + 60_000
    clock = Clock("ntp", 0, 5)
    return Events(1, JOURNAL, LIFE, seq, BOOT, t0, mono, clock, GENESIS, [0] * len(events), events)


def birth(device: DeviceId) -> Arrival:
    """An agent connects."""
    streams = (StreamState("cpu", LIFE, 1, 4, every_ms=1_000), StreamState(JOURNAL, LIFE, 1, 1))
    message = Birth(1, "0" * 16, BOOT, 1000, 30, "0.1.0", "host", "host", 0, 5000, streams)
    return Arrival(topics.up(device, topics.Up.STATUS), encode(message))


def told(path: Path) -> Fleet:
    """Two devices: car-7 with records 1, 2 and 4 of cpu, a journal, and two messages in quarantine; room-1."""
    fleet = Fleet(path)
    fleet.arrive(
        birth(CAR),
        record(CAR, cpu(1, t0=T0)),
        record(CAR, cpu(2, t0=T0 + 5_000)),
        record(CAR, cpu(4, t0=T0 + 15_000)),
        record(
            CAR,
            journal(
                1,
                t0=T0,
                events=[
                    Event("agent.start", {"clean": True}),
                    *(Event("link.up", {"attempts": n}) for n in range(4)),
                ],
            ),
        ),
        Arrival(
            topics.up(CAR, topics.Up.TELEMETRY), b"<script>", CONTENT_JSON, [("key", f"cpu/{LIFE}/9"), ("last", "9")]
        ),
        Arrival(topics.up(CAR, topics.Up.TELEMETRY), b"\xff\xfe", CONTENT_JSON),
        record(ROOM, cpu(1, t0=T0)),
    )
    return fleet
