"""What ``fleet-server run`` is made of: each part made from its table of the configuration, or why it cannot be."""

import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import structlog
from sqlalchemy import URL, Engine

from broker_config.ids import SiteId
from broker_config.signing import Kind
from fleet_server import uploads
from fleet_server.access.auditor import Auditor
from fleet_server.access.ca import CaError
from fleet_server.access.keys import BadMasterKeyError
from fleet_server.access.notes import NoteError, Signer
from fleet_server.access.people import NodeGrant, PeopleError
from fleet_server.access.persons import SessionRules
from fleet_server.access.sign_in import Policy
from fleet_server.access.sign_ins import SignIns
from fleet_server.adapters import mqtt
from fleet_server.adapters.mail import MailSender, MailSettings
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.adapters.sql.kept_answers import SqlKeptAnswers
from fleet_server.adapters.sql.people import SqlPeople
from fleet_server.adapters.sql.persons import SqlPersons
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.adapters.trusted import Trusted
from fleet_server.adapters.webhook import WebhookSender
from fleet_server.api.cookies import Cookies
from fleet_server.api.sign_in import SigningIn
from fleet_server.config import LATE, Config, ConfigError, Mail
from fleet_server.custody import Custody
from fleet_server.evidence.custodian import Tell
from fleet_server.identities import Identities, made_from
from fleet_server.outbound.sending import Sender
from fleet_server.outbound.subscriptions import Choice, Sort
from fleet_server.projection.annotations import Happened
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.late import SHARD_D
from fleet_server.projection.projector import Projector, ProjectorSettings
from fleet_server.projection.sinks import Sinks
from fleet_server.projection.target import Target
from fleet_server.projection.tiers import TierProjector
from fleet_server.standing.sample import Following
from fleet_server.telemetry.store import StoreError
from fleet_server.uploads import Uploads

STORE_FILE: Final = "telemetry.db"
DATABASE_FILE: Final = "operators.db"
INFLUX_SINK: Final = "influx"

log = structlog.get_logger()


class PartError(Exception):
    """A part cannot be had now, though the configuration may be right: a port is taken, a database away."""


class SettingError(PartError):
    """The configuration, or a file that it names, cannot be used."""


class Operators(NamedTuple):
    """The operators' database, and what stands on it."""

    engine: Engine
    registry: SqlRegistry
    kept: SqlKeptAnswers
    people: SqlPeople
    auditor: Auditor
    persons: SqlPersons
    signing_in: SigningIn | None


def now_ms() -> int:
    """The server's clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


class Secrets(NamedTuple):
    """What is read before anything is opened: the master keys and signers, the first token, the link's TLS."""

    trusted: Trusted
    token: str
    security: ssl.SSLContext


def secrets_of(config: Config) -> Secrets:
    """Raises SettingError."""
    broker = config.broker
    try:
        return Secrets(
            Trusted(config.mac.master_key_file, None if config.enrolment is None else config.enrolment.signers_file),
            config.api.token_file.read_text(encoding="ascii").strip(),
            mqtt.security(broker.ca_file, broker.cert_file, broker.key_file),
        )
    except (OSError, ssl.SSLError, BadMasterKeyError, UnicodeDecodeError) as error:
        raise SettingError(str(error)) from error


def batch_store(config: Config) -> SqliteStore:
    """The batch store in the state's directory, made if it is not there. Raises PartError."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return SqliteStore(config.state_dir / STORE_FILE, now_ms=now_ms())
    except StoreError as error:
        raise PartError(str(error)) from error


def operators(config: Config, token: str) -> Operators:
    """What operators said, and who they are; *token* is the first administrator's. Raises PartError."""
    engine, registry = database_of(config)
    persons, signing_in = _persons(config, engine)
    return Operators(
        engine,
        registry,
        SqlKeptAnswers(engine),
        _people(engine, token, persons=signing_in is not None),
        _auditor(config, engine),
        persons,
        signing_in,
    )


def operators_url(config: Config) -> URL:
    """Where operators' data is. Raises DatabaseError, OSError, UnicodeDecodeError."""
    table = config.database
    password = table.password_file.read_text(encoding="utf-8").strip() if table.password_file else None
    return database.checked_url(table.url or database.sqlite_url(config.state_dir / DATABASE_FILE), password)


def database_of(config: Config) -> tuple[Engine, SqlRegistry]:
    """The operators' database, brought to this version's shape. Raises PartError."""
    try:
        engine = database.connect(operators_url(config))
        database.migrate(engine)
        return engine, SqlRegistry(engine)
    except (database.UnavailableError, StoreError) as error:
        raise PartError(f"database: {error}") from error
    except (database.DatabaseError, OSError, UnicodeDecodeError) as error:
        raise SettingError(f"database: {error}") from error


def _people(engine: Engine, token: str, *, persons: bool) -> SqlPeople:
    """Who may ask; the token that ``init`` wrote is the first administrator's. *persons*: they can sign in."""
    people = SqlPeople(engine, persons=persons)
    try:
        if people.ensure_first(token, now_ms=now_ms()):
            log.info("the token of the token file administers the fleet")
    except PeopleError as error:
        raise SettingError(f"api.token_file: {error}") from error
    except StoreError as error:
        raise PartError(f"database: {error}") from error
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
        raise SettingError(f"oidc: {error}") from error
    persons = SqlPersons(engine, SessionRules(int(3_600_000 * oidc.session_h), int(60_000 * oidc.idle_min)))
    provider = OidcProvider(
        OidcSettings(policy, oidc.redirect_url, oidc.scopes, secret, security, signed_out_url=oidc.signed_out_url)
    )
    return persons, SigningIn(SignIns(provider, policy, persons), Cookies.of(oidc.redirect_url), oidc.landing)


def _auditor(config: Config, engine: Engine) -> Auditor:
    """The audit log, looked at and ready, or known to be broken."""
    assert config.audit.key_file is not None
    try:
        signer = Signer.parse(config.audit.key_file.read_text(encoding="ascii"))
        auditor = Auditor(SqlAudit(engine), signer, SiteId(config.site_id), now_ms=now_ms)
        auditor.start()
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise SettingError(f"audit.key_file: {error}") from error
    except StoreError as error:
        raise PartError(f"database: {error}") from error
    fault = auditor.facts().fault
    if fault:
        log.critical("every change is refused: the audit log is not the one that was signed", why=fault)
    return auditor


def sinks_of(config: Config, store: SqliteStore, standing: Following, labels: LabelsOf, happened: Happened) -> Sinks:
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

    def into(bucket: InfluxSettings) -> Callable[[], Target]:
        return lambda: InfluxTarget(bucket)

    late = replace(settings, bucket=f"{influx.bucket}_{LATE}", retention_d=0, shard_d=SHARD_D)
    projector = Projector(
        ProjectorSettings(INFLUX_SINK, influx.points_max, influx.retention_d, influx.series_max),
        store.feed,
        labels,
        standing,
        new_target=into(settings),
        new_late=into(late) if influx.late_kept else None,
        happened=happened,
        now_ms=now_ms,
        rng=random.Random(),  # noqa: S311 - jitter
    )
    tiers = [
        TierProjector(
            ProjectorSettings(f"{INFLUX_SINK}-{tier.name}", influx.points_max, tier.retention_d, influx.series_max),
            store.feed,
            labels,
            standing,
            store,
            every_ms=60_000 * tier.every_min,
            new_target=into(replace(settings, bucket=f"{influx.bucket}_{tier.name}", retention_d=tier.retention_d)),
            now_ms=now_ms,
            rng=random.Random(),  # noqa: S311 - jitter
        )
        for tier in influx.tiers_kept
    ]
    return Sinks(store.feed, (projector, *tiers))


def senders_of(config: Config) -> Callable[[], Mapping[Sort, Sender]]:
    """What sends webhooks and mail; made in the loop that uses it. Raises SettingError."""
    try:
        trusted = ssl.create_default_context(cafile=config.outbound.ca_file)
        mail = None if config.mail is None else _mail(config.mail)
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        raise SettingError(f"outbound: {error}") from error

    def senders() -> Mapping[Sort, Sender]:
        made: dict[Sort, Sender] = {Sort.WEBHOOK: WebhookSender(site=config.site_id, security=trusted)}
        if mail is not None:
            made[Sort.MAIL] = MailSender(mail, site=config.site_id, security=trusted)
        return made

    return senders


def _mail(table: Mail) -> MailSettings:
    password = table.password_file.read_text(encoding="utf-8").strip() if table.password_file else ""
    return MailSettings(table.host, table.port, table.tls, table.sender, table.to, table.user, password)


def mail_choice(config: Config) -> Choice | None:
    """What mail tells of; None if the site sends none."""
    table = config.mail
    return None if table is None else Choice(frozenset(table.kinds), table.severity, table.org)


def listener_of(config: Config) -> socket.socket:
    """The API's, taken before anything else is: a server that nobody can ask is not to run. Raises PartError."""
    host, port = config.api.host, config.api.port
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise PartError(f"api: {host}:{port}: {error.strerror}; give another [api] port") from error


def uploads_of(config: Config, secrets: Secrets) -> Uploads | None:
    """What takes files of devices; None if this server takes none. Raises PartError."""
    try:
        return uploads.made_from(config, secrets.security, now_ms=now_ms)
    except (OSError, ConfigError) as error:
        raise PartError(f"evidence: {error}") from error


def custody_of(
    config: Config, operators: Operators, uploads_: Uploads, store: SqliteStore, trusted: Trusted, tell: Tell
) -> Custody:
    """What is done with files that have arrived. Raises PartError."""
    assert config.evidence is not None
    copies = [each for each in (uploads_.content, uploads_.replica) if each is not None]
    engine, auditor, roots = operators.engine, operators.auditor, uploads_.roots
    try:
        return Custody(
            config.evidence,
            engine,
            auditor,
            copies,
            store,
            roots=roots,
            signer=uploads_.signer,
            receipt_life_ms=uploads_.receipt_life_ms,
            signers=lambda: trusted.signers_of(Kind.EVIDENCE_RECEIPT),
            tell=tell,
            now_ms=now_ms,
        )
    except (OSError, ValueError) as error:
        raise SettingError(f"evidence.tsa_ca_file: {error}") from error


def identities_of(config: Config, trusted: Trusted) -> Identities | None:
    """What gives devices their identities; None if this server signs none. Raises PartError."""
    try:
        return made_from(config, trusted, now_ms=now_ms)
    except (CaError, OSError, UnicodeDecodeError) as error:
        raise PartError(f"enrolment: {error}") from error
