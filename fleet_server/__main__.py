"""``fleet-server``: wires the store, the broker link and the API to the telemetry service, and runs them."""

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, NamedTuple, NoReturn

import structlog
import typer
import uvicorn
import uvloop
from sqlalchemy import Engine

from broker_config.ids import DeviceId, SiteId, server_client_id
from broker_config.mac import MacKey, Purpose
from broker_config.text import shown
from fleet_server.access.auditor import BEGIN, Auditor, own_fact
from fleet_server.access.ca import CaError
from fleet_server.access.keys import BadMasterKeyError, MasterKey, derive
from fleet_server.access.notes import NoteError, Signer
from fleet_server.access.people import NodeGrant, PeopleError
from fleet_server.access.persons import SessionRules
from fleet_server.access.sign_in import Policy
from fleet_server.access.sign_ins import SignIns
from fleet_server.adapters import mqtt
from fleet_server.adapters.mail import MailSender, MailSettings
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.kept_answers import SqlKeptAnswers
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.adapters.sql.people import SqlPeople
from fleet_server.adapters.sql.persons import SqlPersons
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.adapters.sql.subscriptions import SqlSubscriptions
from fleet_server.adapters.sqlite_backup import backup as copy
from fleet_server.adapters.sqlite_backup import copy_back
from fleet_server.adapters.sqlite_store import SqliteStore, restore_backup, set_aside
from fleet_server.adapters.webhook import WebhookSender
from fleet_server.api.app import Ports, create_app
from fleet_server.api.cookies import Cookies
from fleet_server.api.sign_in import SigningIn
from fleet_server.cli import countersign_commands, moments
from fleet_server.cli.signer_commands import add_signer_commands
from fleet_server.cli.site_commands import add_commands
from fleet_server.config import Config, ConfigError, Mail, load
from fleet_server.identities import Identities, made_from
from fleet_server.outbound.bell import Bell
from fleet_server.outbound.looking import LookSettings
from fleet_server.outbound.sending import Sender
from fleet_server.outbound.service import Outbound
from fleet_server.outbound.subscriptions import Choice, Sort
from fleet_server.outbound.watch import WatchPolicy
from fleet_server.projection.feed import UnknownSinkError
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.projector import Projector, ProjectorSettings
from fleet_server.projection.sinks import Sinks
from fleet_server.projection.target import Target
from fleet_server.registry.keeper import Keeper, PromptLabels
from fleet_server.telemetry.ingest import IngestSettings
from fleet_server.telemetry.service import Service, ServiceSettings
from fleet_server.telemetry.store import FencedError, StoreError
from fleet_server.telemetry.view import TelemetryView

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2
EXIT_FENCED: Final = 4
STORE_FILE: Final = "telemetry.db"
DATABASE_FILE: Final = "operators.db"
INFLUX_SINK: Final = "influx"
API_STOP_S: Final = 5.0
API_CONNECTIONS_MAX: Final = 256
API_KEEP_ALIVE_S: Final = 30
GC_ALLOCATIONS: Final = 50_000
RESTORED: Final = "restored from a backup"

log = structlog.get_logger()
app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
add_commands(app)
add_signer_commands(app)
countersign_commands.add_commands(app)

ConfigFile = Annotated[Path, typer.Option("--config", help="the server's fleet-server.toml")]


def now_ms() -> int:
    """The server's clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


@app.command(epilog="Example: fleet-server run --config site/server/fleet-server.toml")
def run(config: ConfigFile) -> None:
    """Take in, keep and receipt what devices report, and answer the API. Stops cleanly on SIGTERM.

    Exit codes: 0 stopped, 1 failed, 2 the configuration is wrong, 4 another server took the shards over.
    """
    _log_to_stderr()
    settings = _loaded(config)
    try:
        master = MasterKey.parse(settings.mac.master_key_file.read_text(encoding="ascii"))
        token = settings.api.token_file.read_text(encoding="ascii").strip()
        security = mqtt.security(settings.broker.ca_file, settings.broker.cert_file, settings.broker.key_file)
    except (OSError, ssl.SSLError, BadMasterKeyError, UnicodeDecodeError) as error:
        _fail(str(error), EXIT_CONFIG)
    listener = _listener(settings)
    identities = _identities(settings, master)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        store = SqliteStore(settings.state_dir / STORE_FILE, now_ms=now_ms())
    except StoreError as error:
        _fail(str(error), EXIT_FAILED)
    engine, registry = _registry(settings)
    persons, signing_in = _persons(settings, engine)
    ports = _Operators(
        engine,
        registry,
        SqlKeptAnswers(engine),
        _people(engine, token, persons=signing_in is not None),
        _auditor(settings, engine),
        persons,
        signing_in,
    )
    senders = _senders(settings)
    try:
        uvloop.run(_run(settings, master, security, store, listener, ports, senders, identities))
    except FencedError as error:
        log.critical("fenced", error=str(error))
        raise typer.Exit(EXIT_FENCED) from error
    except StoreError as error:
        log.critical("the store failed", error=shown(error))
        raise typer.Exit(EXIT_FAILED) from error
    finally:
        store.close()
        engine.dispose()


class _Operators(NamedTuple):
    """The operators' database, and what stands on it."""

    engine: Engine
    registry: SqlRegistry
    kept: SqlKeptAnswers
    people: SqlPeople
    auditor: Auditor
    persons: SqlPersons
    signing_in: SigningIn | None


def _people(engine: Engine, token: str, *, persons: bool) -> SqlPeople:
    """Who may ask; the token that ``init`` wrote is the first administrator's. *persons*: they can sign in."""
    people = SqlPeople(engine, persons=persons)
    try:
        if people.ensure_first(token, now_ms=now_ms()):
            log.info("the token of the token file administers the fleet")
    except PeopleError as error:
        _fail(f"api.token_file: {error}", EXIT_CONFIG)
    except StoreError as error:
        _fail(f"database: {error}", EXIT_FAILED)
    return people


def _persons(config: Config, engine: Engine) -> tuple[SqlPersons, SigningIn | None]:
    """Who signs in, and how, if the configuration says so. The provider is not asked before somebody does."""
    oidc = config.oidc
    if oidc is None:
        return SqlPersons(engine, SessionRules(0, 0)), None
    from fleet_server.adapters.oidc import OidcProvider, OidcSettings  # noqa: PLC0415 - a library only if wanted

    policy = Policy(
        issuer=oidc.issuer,
        client_id=oidc.client_id,
        name_claim=oidc.name_claim,
        groups_claim=oidc.groups_claim,
        acr=frozenset(oidc.require_acr),
        amr=frozenset(oidc.require_amr),
        groups=tuple((each.group, NodeGrant(each.role, each.node)) for each in oidc.groups),
    )
    try:
        secret = oidc.client_secret_file.read_text(encoding="utf-8").strip() if oidc.client_secret_file else ""
        security = ssl.create_default_context(cafile=oidc.ca_file) if oidc.issuer.startswith("https:") else None
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        _fail(f"oidc: {error}", EXIT_CONFIG)
    persons = SqlPersons(engine, SessionRules(int(3_600_000 * oidc.session_h), int(60_000 * oidc.idle_min)))
    provider = OidcProvider(OidcSettings(policy, oidc.redirect_url, oidc.scopes, secret, security))
    return persons, SigningIn(SignIns(provider, policy, persons), Cookies.of(oidc.redirect_url), oidc.landing)


def _registry(config: Config) -> tuple[Engine, SqlRegistry]:
    """The operators' database, brought to this version's shape."""
    table = config.database
    try:
        password = table.password_file.read_text(encoding="utf-8").strip() if table.password_file else None
        url = database.checked_url(table.url or database.sqlite_url(config.state_dir / DATABASE_FILE), password)
        engine = database.connect(url)
        database.migrate(engine)
        return engine, SqlRegistry(engine)
    except (database.UnavailableError, StoreError) as error:
        _fail(f"database: {error}", EXIT_FAILED)
    except (database.DatabaseError, OSError, UnicodeDecodeError) as error:
        _fail(f"database: {error}", EXIT_CONFIG)


def _auditor(config: Config, engine: Engine) -> Auditor:
    """The audit log, looked at and ready, or known to be broken."""
    assert config.audit.key_file is not None
    try:
        signer = Signer.parse(config.audit.key_file.read_text(encoding="ascii"))
        auditor = Auditor(SqlAudit(engine), signer, SiteId(config.site_id), now_ms=now_ms)
        auditor.start()
    except (OSError, UnicodeDecodeError, NoteError) as error:
        _fail(f"audit.key_file: {error}", EXIT_CONFIG)
    except StoreError as error:
        _fail(f"database: {error}", EXIT_FAILED)
    fault = auditor.facts().fault
    if fault:
        log.critical("every change is refused: the audit log is not the one that was signed", why=fault)
    return auditor


async def _run(
    config: Config,
    master: MasterKey,
    security: ssl.SSLContext,
    store: SqliteStore,
    listener: socket.socket,
    operators: _Operators,
    senders: Callable[[], Mapping[Sort, Sender]],
    identities: Identities | None,
) -> None:
    def mac_key(purpose: Purpose, device: DeviceId) -> MacKey:
        return derive(master, purpose, device)

    first, last = config.shards
    service = Service(
        ServiceSettings(
            shards=(first, last),
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
        mqtt.LinkSettings(
            host=config.broker.host,
            port=config.broker.port,
            client_id=server_client_id(SiteId(config.site_id), f"{first:02x}-{last:02x}"),
            keep_alive_s=config.broker.keep_alive_s,
            security=security,
        ),
        store,
        mac_key=mac_key,
        owner=f"{socket.gethostname()}/{os.getpid()}",
        now_ms=now_ms,
        rng=random.Random(),  # noqa: S311 - jitter
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    telemetry = asyncio.create_task(service.run(stop), name="telemetry")
    started = asyncio.create_task(service.started.wait(), name="started")
    await asyncio.wait([telemetry, started], return_when=asyncio.FIRST_COMPLETED)
    if not service.started.is_set():
        started.cancel()
        await telemetry
        return
    keeper = Keeper(service.answers, operators.registry, now_ms=now_ms)
    sinks = _sinks(config, store, service.answers, PromptLabels(operators.registry, keeper))
    sinks.start()
    if identities is not None:
        identities.open(operators.engine, operators.registry, service.answers)
    bell, subscriptions = Bell(), SqlSubscriptions(operators.engine)
    subscriptions.keep_mail(_mail_choice(config), now_ms=now_ms())
    outbound = Outbound(
        service.answers,
        operators.registry,
        SqlOutbox(operators.engine, digest_ms=int(1000 * config.mail.digest_s) if config.mail else 0),
        senders,
        LookSettings(
            quarantine_bytes_max=config.ingest.quarantine_bytes_max,
            watch=WatchPolicy(settle_ms=int(1000 * config.outbound.settle_s)),
        ),
        bell=bell,
        now_ms=now_ms,
        rng=random.Random(),  # noqa: S311 - jitter
    )
    ports = Ports(
        service.answers,
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
        enrolling=None if identities is None else identities.enrolling,
        signing_in=operators.signing_in,
    )
    # a loop of its own: a slow answer must not hold up a receipt
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(ports),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=API_CONNECTIONS_MAX,
            timeout_keep_alive=API_KEEP_ALIVE_S,
        )
    )
    api = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api", daemon=True)
    api.start()
    keeping = threading.Event()
    kept = threading.Thread(target=keeper.run, args=(keeping,), name="keeper", daemon=True)
    kept.start()
    auditing = threading.Event()
    checkpoint_s = config.audit.checkpoint_s
    audited = threading.Thread(target=operators.auditor.run, args=(auditing, checkpoint_s), name="audit", daemon=True)
    audited.start()
    outbound.start()
    # what is there now stays; later garbage is young, and looking through all of it costs receipts their promptness
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    if identities is not None:
        identities.start()
    log.info("serving", api=config.api.url, store_epoch=service.facts().store_epoch)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([telemetry, stopping], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(sinks.stop)  # before the lease is dropped, by which it writes
        await telemetry
    finally:
        if identities is not None:
            await asyncio.to_thread(identities.stop)
        keeping.set()
        await asyncio.to_thread(outbound.stop)
        stopping.cancel()
        server.should_exit = True
        await asyncio.to_thread(kept.join, API_STOP_S)
        await asyncio.to_thread(api.join, API_STOP_S)
        auditing.set()  # behind the API, so that the last checkpoint covers all that it did
        await asyncio.to_thread(audited.join, API_STOP_S)


def _sinks(config: Config, store: SqliteStore, view: TelemetryView, labels: LabelsOf) -> Sinks:
    """What the batch store is projected to."""
    influx = config.influx
    if influx is None:
        return Sinks(store.feed, ())
    from fleet_server.adapters.influx import InfluxSettings, InfluxTarget  # noqa: PLC0415 - 30 MB, only if wanted

    token = influx.token_file.read_text(encoding="utf-8").strip() if influx.token_file else ""
    secure = influx.url.startswith("https:")
    settings = InfluxSettings(
        url=influx.url,
        flavour=influx.flavour,
        org=influx.org,
        bucket=influx.bucket,
        token=token,
        retention_d=influx.retention_d,
        manage=influx.manage,
        gzip=influx.gzip,
        security=ssl.create_default_context(cafile=influx.ca_file) if secure else None,
    )

    def target() -> Target:
        return InfluxTarget(settings)

    projector = Projector(
        ProjectorSettings(INFLUX_SINK, influx.points_max, influx.retention_d, influx.presence_every_s),
        store.feed,
        labels,
        view,
        new_target=target,
        now_ms=now_ms,
        rng=random.Random(),  # noqa: S311 - jitter
    )
    return Sinks(store.feed, (projector,))


@app.command(epilog="Example: fleet-server rebuild --config site/server/fleet-server.toml --from -7d")
def rebuild(
    config: ConfigFile,
    since: Annotated[str, typer.Option("--from", help="such as -90s, -15m, -1h, -7d, or RFC 3339")],
    sink: Annotated[str, typer.Option(help="which projection")] = INFLUX_SINK,
) -> None:
    """Have a projection written again from the batch store. One that runs begins at once."""
    settings, at_ms = _loaded(config), now_ms()
    path = settings.state_dir / STORE_FILE
    if not path.is_file():
        _fail(f"{path}: no such file", EXIT_FAILED)
    try:
        from_ms = moments.parse(since, now_ms=at_ms)
        store = SqliteStore(path, now_ms=at_ms)
        places = store.feed.mark_stale(sink, from_ms=from_ms, now_ms=at_ms)
        store.close()
    except (StoreError, UnknownSinkError, ValueError) as error:
        _fail(str(error), EXIT_FAILED)
    print(f"{sink}: {places} hours of streams will be written again")


@app.command(epilog="Example: fleet-server backup --config site/server/fleet-server.toml telemetry.backup")
def backup(config: ConfigFile, to: Annotated[Path, typer.Argument(help="a file that is not there yet")]) -> None:
    """Copy the store, consistent and durable, while the server runs; beside it, as TO.operators, what operators said.

    Operators' data in PostgreSQL is copied by PostgreSQL's own means.
    """
    settings = _loaded(config)
    operators = settings.state_dir / DATABASE_FILE
    try:
        store = SqliteStore(settings.state_dir / STORE_FILE, now_ms=now_ms())
        store.backup(to)
        store.close()
        if not settings.database.url and operators.exists():
            copy(operators, _beside(to))
    except StoreError as error:
        _fail(str(error), EXIT_FAILED)
    for path in (to, _beside(to)):
        if path.exists():
            print(f"{path}: {path.stat().st_size} bytes")
    if settings.database.url:
        print("operators' data is in PostgreSQL: copy it with pg_dump")


@app.command(epilog="Example: fleet-server restore --config site/server/fleet-server.toml telemetry.backup")
def restore(config: ConfigFile, source: Annotated[Path, typer.Argument(help="what backup wrote")]) -> None:
    """Put a backup in the store's place and begin a new store epoch, so that devices offer again what it lacks.

    What operators said comes back from SOURCE.operators if it is there, and a new audit log begins. The server must
    be stopped; what was there is kept beside it. After PostgreSQL was restored: fleet-server begin-audit-log.
    """
    settings = _loaded(config)
    path, operators = settings.state_dir / STORE_FILE, settings.state_dir / DATABASE_FILE
    if not source.is_file():
        _fail(f"{source}: no such file", EXIT_FAILED)
    try:
        aside = set_aside(path, now_ms=now_ms())
        epoch = restore_backup(source, path, now_ms=now_ms())
        if not settings.database.url and _beside(source).is_file():
            set_aside(operators, now_ms=now_ms())
            copy_back(_beside(source), operators)
            _begin_log(settings, RESTORED)  # the old one goes on elsewhere, as its witnesses saw
    except StoreError as error:
        _fail(str(error), EXIT_FAILED)
    kept = f"; the store that was there is {aside.name} now" if aside is not None else ""
    print(f"restored; store epoch {epoch}{kept}")
    if settings.device_ca is not None:
        print("devices that renewed since the backup: let them, with renew_unknown = true in [device_ca] for a month")


@app.command(
    "begin-audit-log",
    epilog='Example: fleet-server begin-audit-log --config site/server/fleet-server.toml --why "see case 12"',
)
def begin_audit_log(
    config: ConfigFile, why: Annotated[str, typer.Option(help="What was found; the new log's first entry says it.")]
) -> None:
    """Begin a new audit log, because the one there is not what was signed; that one stays as it is.

    Every witness refuses the new log until somebody there has been told of it, too. The server may run.
    """
    try:
        number = _begin_log(_loaded(config), why)
    except StoreError as error:
        _fail(f"database: {error}", EXIT_FAILED)
    print(f"audit log {number} has begun; the ones before it: fieldfleet audit export --log NUMBER")


def _begin_log(config: Config, why: str) -> int:
    engine, _ = _registry(config)
    try:
        return SqlAudit(engine).begin(own_fact(BEGIN, why, at_ms=now_ms())).log
    finally:
        engine.dispose()


def _senders(config: Config) -> Callable[[], Mapping[Sort, Sender]]:
    """What sends webhooks and mail; made in the loop that uses it."""
    try:
        trusted = ssl.create_default_context(cafile=config.outbound.ca_file)
        mail = None if config.mail is None else _mail(config.mail)
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        _fail(f"outbound: {error}", EXIT_CONFIG)

    def senders() -> Mapping[Sort, Sender]:
        made: dict[Sort, Sender] = {Sort.WEBHOOK: WebhookSender(site=config.site_id, security=trusted)}
        if mail is not None:
            made[Sort.MAIL] = MailSender(mail, site=config.site_id, security=trusted)
        return made

    return senders


def _mail(table: Mail) -> MailSettings:
    password = table.password_file.read_text(encoding="utf-8").strip() if table.password_file else ""
    return MailSettings(table.host, table.port, table.tls, table.sender, table.to, table.user, password)


def _mail_choice(config: Config) -> Choice | None:
    table = config.mail
    return None if table is None else Choice(frozenset(table.kinds), table.severity, table.org)


def _beside(backup_file: Path) -> Path:
    """Where the copy of the operators' database is."""
    return backup_file.with_name(backup_file.name + ".operators")


def _listener(config: Config) -> socket.socket:
    """The API's, taken before anything else is: a server that nobody can ask is not to run."""
    host, port = config.api.host, config.api.port
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        _fail(f"api: {host}:{port}: {error.strerror}; give another [api] port", EXIT_FAILED)


def _identities(config: Config, master: MasterKey) -> Identities | None:
    """What gives devices their identities; None if this server signs none."""
    try:
        return made_from(config, master, now_ms=now_ms)
    except (CaError, OSError, UnicodeDecodeError) as error:
        _fail(f"enrolment: {error}", EXIT_FAILED)


def _loaded(path: Path) -> Config:
    try:
        return load(path)
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)


def _fail(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    raise typer.Exit(code)


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
