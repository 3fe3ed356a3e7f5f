"""The server's configuration: ``fleet-server.toml`` as one frozen tree, or every fault in it at once.

Paths in the file are relative to the file, and absolute once parsed. Secrets are paths of files that only
their owner may read.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args
from urllib.parse import urljoin, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct, field

from broker_config import device_classes, limits, signing
from broker_config.ids import BadIdError, SiteId, shard
from broker_config.text import shown
from fleet_server.access.key_uri import KeyUri, KeyUriError
from fleet_server.access.roles import Role
from fleet_server.alerting.rules import RULE
from fleet_server.evidence.retention import CHANGE_DELAY_D, DELETION_DELAY_D, DELETIONS_A_DAY_MAX
from fleet_server.outbound.happenings import Kind, Severity
from fleet_server.registry.readiness import Thresholds

Port: TypeAlias = Annotated[int, Meta(ge=1, le=65_535)]
Host: TypeAlias = Annotated[str, Meta(min_length=1, max_length=253)]
SiteIdField: TypeAlias = Annotated[SiteId, Meta(pattern="^[0-9a-f]{64}$")]

MailAddress: TypeAlias = Annotated[
    str, Meta(max_length=254, pattern=r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")
]
"""No quotes, no names, no line end: what goes into a header must not be able to end it."""

MAIL_RECIPIENTS_MAX: Final = 20

OidcWord: TypeAlias = Annotated[str, Meta(pattern=r"^[!-~]{1,256}\Z")]

SESSION_H_MAX: Final = 168.0
IDLE_MIN_MIN: Final = 5.0
"""When a session was last used is noted within a minute, so that much less would not be what it says."""
GROUPS_MAX: Final = 256
SIGN_IN_CALLBACK: Final = "/v1/sign-in/callback"
SIGN_OUT_CALLBACK: Final = "/v1/sign-out/callback"

InfluxName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]

CONFIG_BYTES_MAX: Final = 64 * limits.KIB
API_PORT: Final = 8470
FORMER_CAS_DIRECTORY: Final = "former-device-cas"


class ConfigError(Exception):
    """The configuration cannot be used; ``faults`` says everything that is wrong, a line each."""

    def __init__(self, source: str, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))
        self.faults = faults


class Shards(NamedTuple):
    """The shards that this server owns, both ends included, 0 to 255."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: object) -> "Shards":
        """Read ``00-ff`` (or one shard, ``7a``). Raises BadIdError."""
        low, _, high = text.partition("-") if isinstance(text, str) else ("", "", "")
        try:
            first, last = int(shard(low), 16), int(shard(high or low), 16)
        except BadIdError as error:
            raise BadIdError("expected two hex digits or a range like 00-ff") from error
        if first > last:
            raise BadIdError("expected the lower shard first")
        return cls(first, last)


class Broker(Struct, frozen=True):
    """The server's listener of the broker, and what proves each to the other.

    ``reconnects_a_second_max``: what the broker's machine takes when all devices come back at once.
    ``reload_pid_file``, ``reload_command``: how it is told that the list of revoked devices is another.
    """

    host: Host
    port: Port
    ca_file: Path
    cert_file: Path
    key_file: Path
    reload_pid_file: Path | None = None
    reload_command: tuple[str, ...] = ()
    keep_alive_s: Annotated[int, Meta(ge=1, le=limits.KEEP_ALIVE_S_MAX)] = limits.KEEP_ALIVE_S
    reconnects_a_second_max: Annotated[int, Meta(ge=1, le=100_000)] = limits.RECONNECTS_A_SECOND_MAX


class Mac(Struct, frozen=True):
    """What every device's receipt and time keys are derived from."""

    master_key_file: Path


class Signer(Struct, frozen=True):
    """Where the signer is asked; and, of the signer's own: its key, what it counts by, and its policy. The server
    that faces the broker reads none of those. ``key_uri``: of a key in a token, instead of ``key_file``.
    ``client_uids``: who else than its own user may ask it.
    """

    socket_file: Path | None = None
    key_file: Path | None = None
    key_uri: KeyUri | None = None
    counter_file: Path | None = None
    lifetime_s_max: Annotated[int, Meta(ge=1, le=signing.LIFETIME_MS_MAX // 1000)] = signing.LIFETIME_MS_MAX // 1000
    client_uids: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=16)] = ()

    @property
    def lifetime_ms_max(self) -> int:
        """``lifetime_s_max``, as orders count it."""
        return 1000 * self.lifetime_s_max


class DeviceCa(Struct, frozen=True):
    """What the server signs devices with: ``cert_file`` has the authority first, the root last. Its key is in
    ``key_file``, which may also name one in a token; or in the token that ``key_uri`` names: one of the two.

    ``former_directory``: those that signed before, see ``fleet-server roll-ca``; None: ``former-device-cas`` beside
    ``cert_file``. ``crl_file``: where the broker reads whom to refuse; ``root_crl_file``: what the root says of its
    authorities, put behind it. ``leaf_d``: how long a device's certificate is good. ``grace_d``: how long after that
    it still renews. ``renew_unknown``: after a restore from a backup, for as long as a certificate lives: that what
    this authority signed renews though the database does not know of it, unless the list of revoked devices does.
    ``benches_dir``: certificates that ``add-device`` made, for when they are to be revoked; None: whoever revokes has
    to bring them.
    """

    cert_file: Path
    crl_file: Path
    key_file: Path | None = None
    key_uri: KeyUri | None = None
    former_directory: Path | None = None
    root_crl_file: Path | None = None
    leaf_d: Annotated[float, Meta(gt=0, le=825)] = 30.0
    grace_d: Annotated[float, Meta(ge=0, le=825)] = 60.0
    renew_unknown: bool = False
    benches_dir: Path | None = None

    @property
    def key(self) -> Path | KeyUri:
        """Where the key is; a parsed configuration says one place."""
        key = self.key_file or self.key_uri
        assert key is not None
        return key

    @property
    def formers(self) -> Path:
        """The directory of those that signed before."""
        return self.former_directory or self.cert_file.with_name(FORMER_CAS_DIRECTORY)


class EnrolmentTable(Struct, frozen=True):
    """The listener where devices get their certificates, and what they are told there; needs ``[device_ca]``.

    ``signers_file``: whose signatures a device obeys; None: it is told nobody's.
    """

    host: Host
    port: Port
    cert_file: Path
    key_file: Path
    server_ca_file: Path
    broker_host: Host
    broker_port: Port
    signers_file: Path | None = None

    @property
    def url(self) -> str:
        """Where a device finds it."""
        name = f"[{self.broker_host}]" if ":" in self.broker_host else self.broker_host
        return f"https://{name}:{self.port}"


class ReleasesTable(Struct, frozen=True):
    """Images for devices, given on the enrolment listener; no such table, none are. Needs ``[enrolment]``.

    ``key_file``: what this server signs snapshots and timestamps with; None: somebody else runs
    ``fleet-server releases refresh``.
    """

    directory: Path
    key_file: Path | None = None


class S3(Struct, frozen=True):
    """A bucket for second copies of evidence; it must lock objects. ``credentials_file``: two lines, the access key
    and the secret key. ``lock_d``: days for which nobody can delete a copy; devices' recordings are kept for half a
    year at least.
    """

    endpoint: Annotated[str, Meta(max_length=512)]
    bucket: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")]
    credentials_file: Path
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}\Z")] = "us-east-1"
    prefix: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_.-]{1,64}/){0,8}\Z")] = ""
    lock_d: Annotated[float, Meta(ge=1, le=36_500)] = 183.0
    ca_file: Path | None = None


class Evidence(Struct, frozen=True):
    """Where files of devices go; no such table, none are taken. Needs ``[device_ca]`` and ``[signer]``.

    ``directory``: what is on its way and what is kept, on one file system. ``replica``: a second copy of what is
    kept, on another disk, or ``s3``, in a bucket; devices then hold a file until that is there. ``disk_share_max``:
    of the disk that may be full before offers are turned away for now. ``site_bytes_s_max``: of all uploads
    together; 0 is no bound. ``incoming_keep_d``: after so long without anything new an upload is told of; it stays.

    ``deletion_delay_d``: from when a deletion is asked for until it may be done; ``deletions_a_day_max``: of all
    pieces. ``retention_delay_d``: from the agreement to a change of retention until it counts. ``scrub_hour``: of the
    machine's local day, when everything is read again, at ``scrub_bytes_s_max``. ``tsa_url``: an authority that
    stamps the audit log's checkpoints (RFC 3161), none if empty; ``tsa_ca_file``: whose signatures count, without it
    they are kept unchecked.
    """

    directory: Path
    replica: Path | None = None
    s3: S3 | None = None
    disk_share_max: Annotated[float, Meta(gt=0, lt=1)] = 0.9
    device_bytes_a_day_max: Annotated[int, Meta(ge=1)] = 256 * limits.KIB**3
    site_bytes_s_max: Annotated[int, Meta(ge=0)] = 0
    incoming_keep_d: Annotated[float, Meta(gt=0, le=3_650)] = 30.0
    deletion_delay_d: Annotated[float, Meta(ge=1, le=3_650)] = float(DELETION_DELAY_D)
    deletions_a_day_max: Annotated[int, Meta(ge=1, le=100_000)] = DELETIONS_A_DAY_MAX
    retention_delay_d: Annotated[float, Meta(ge=1, le=3_650)] = float(CHANGE_DELAY_D)
    scrub_hour: Annotated[int, Meta(ge=0, le=23)] = 2
    scrub_bytes_s_max: Annotated[int, Meta(ge=limits.KIB**2)] = 64 * limits.KIB**2
    tsa_url: Annotated[str, Meta(max_length=512)] = ""
    tsa_ca_file: Path | None = None
    timestamp_every_s: Annotated[float, Meta(ge=60, le=604_800)] = 3_600.0


class Lease(Struct, frozen=True):
    """How long another server waits before it takes the shards of one that fell silent."""

    ttl_s: Annotated[float, Meta(gt=0, le=600)] = 10.0


class Ingest(Struct, frozen=True):
    """How records are grouped into a commit, and commits into receipts."""

    group_records_min: Annotated[int, Meta(ge=1)] = 500
    group_records_max: Annotated[int, Meta(ge=1, lt=limits.SERVER_INFLIGHT_MESSAGES_MAX // 2)] = 3_000
    group_wait_ms: Annotated[int, Meta(ge=0, le=10_000)] = 20
    receipt_every: Annotated[int, Meta(ge=1, le=limits.UNRECEIPTED_BATCHES_MAX)] = 10
    receipt_linger_ms: Annotated[int, Meta(ge=0, le=10_000)] = 300
    quarantine_bytes_max: Annotated[int, Meta(ge=0)] = 64 * limits.KIB * limits.KIB


class Seal(Struct, frozen=True):
    """How often, and how much at once, commits are moved into columns."""

    every_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    records_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000


class Api(Struct, frozen=True):
    """Where the API listens: loopback only, because it speaks plain HTTP. ``token_file`` guards it."""

    token_file: Path
    host: Host = "127.0.0.1"
    port: Port = API_PORT

    @property
    def url(self) -> str:
        """Where a client finds it, without a path."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Database(Struct, frozen=True):
    """Where operators' data is: SQLite in ``state_dir`` if ``url`` is empty, else such as
    ``postgresql+psycopg://fleet@db/fleet`` with the password in a file.
    """

    url: str = ""
    password_file: Path | None = None


class Audit(Struct, frozen=True):
    """What signs the audit log, and how long an entry waits for that."""

    key_file: Path | None = None
    checkpoint_s: Annotated[float, Meta(gt=0, le=3_600)] = 60.0


class Tls(StrEnum):
    """How the way to a mail server is protected; ``none`` only to one on this machine."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class Outbound(Struct, frozen=True):
    """What the server tells by itself. ``ca_file``: who vouches for receivers and the mail server, instead of those
    whom this machine trusts. ``settle_s``: after it has lost the broker, how long the server judges no device.
    """

    ca_file: Path | None = None
    settle_s: Annotated[float, Meta(ge=0, le=3_600)] = 90.0


class Alerts(Struct, frozen=True):
    """What the server tells of what is wrong for a while. ``off``: rules that are not asked here; ``patience``: how
    much of each rule's times is waited for, less than 1 for drills; ``look_s``: between two looks.
    """

    off: tuple[str, ...] = ()
    patience: Annotated[float, Meta(ge=0, le=10)] = 1.0
    look_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0


class Mail(Struct, frozen=True):
    """Where mail goes, and of what. ``digest_s``: what happens within this time goes in one mail."""

    host: Host
    sender: MailAddress = field(name="from")
    to: Annotated[tuple[MailAddress, ...], Meta(min_length=1, max_length=MAIL_RECIPIENTS_MAX)]
    port: Port = 587
    tls: Tls = Tls.STARTTLS
    user: Annotated[str, Meta(max_length=256)] = ""
    password_file: Path | None = None
    kinds: tuple[Kind, ...] = ()
    severity: Severity = Severity.WARNING
    org: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9/-]{0,511})?\Z")] = ""
    digest_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0


LATE: Final = "late"
"""Behind a bucket's name: the one for what is too old or too far ahead."""


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """Means of *every_min* minutes each, kept for *retention_d* days (0 is for ever), in the bucket that is called as
    the other with this name behind.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9]{1,16}\Z")]
    every_min: Literal[1, 2, 5, 10, 15, 20, 30, 60]
    retention_d: Annotated[int, Meta(ge=0, le=36_500)]


TIERS_MAX: Final = 4
USUAL_TIERS: Final = (Tier("5m", 5, 366), Tier("1h", 60, 1_827))


class Influx(Struct, frozen=True):
    """A time-series server that the batch store is projected to, for dashboards; no such table, no projection.

    ``flavour``: ``v2`` writes to ``/api/v2/write`` (InfluxDB 2 and 3, VictoriaMetrics), ``v1`` to ``/write``
    (InfluxDB 1; ``bucket`` is its database, the token file holds ``user:password``). ``retention_d``: 0 is for ever.
    ``manage``: the server makes the buckets, sets their retention and maps them for InfluxQL; else somebody has.
    ``tiers``: the same, coarser and for longer, in buckets called after this one, such as ``fieldfleet_5m``.
    ``late``: what is too old or too far ahead when it comes goes to ``fieldfleet_late``. Unless they are said, both
    are as usual where ``manage`` is set, and not there where it is not. ``series_max``: new series beyond that are
    left out.
    Plain HTTP goes to loopback only, unless ``allow_plain``: a token is in it.
    """

    url: Annotated[str, Meta(max_length=512)]
    retention_d: Annotated[int, Meta(ge=0, le=36_500)]
    flavour: Annotated[str, Meta(pattern=r"^v[12]\Z")] = "v2"
    org: InfluxName = "fieldfleet"
    bucket: InfluxName = "fieldfleet"
    token_file: Path | None = None
    ca_file: Path | None = None
    manage: bool = True
    allow_plain: bool = False
    gzip: bool = False
    points_max: Annotated[int, Meta(ge=limits.BATCH_ROWS_MAX, le=100_000)] = 5_000
    tiers: Annotated[tuple[Tier, ...], Meta(max_length=TIERS_MAX)] | None = None
    late: bool | None = None
    series_max: Annotated[int, Meta(ge=100, le=10_000_000)] = 200_000

    @property
    def tiers_kept(self) -> tuple[Tier, ...]:
        """As they are said, or the usual ones."""
        if self.tiers is not None:
            return self.tiers
        return USUAL_TIERS if self.manage else ()

    @property
    def late_kept(self) -> bool:
        """Whether there is a bucket for what is late."""
        return self.manage if self.late is None else self.late


class Measuring(Struct, frozen=True):
    """How often the server measures how the fleet stands: *pace* times as often as the table of measures says.
    ``shift_h``: how long whoever is given a device has it.
    """

    pace: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    shift_h: Annotated[float, Meta(gt=0, le=72)] = 12.0


class GroupGrant(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is in *group* at the provider has *role* at *node* and below; no node is everywhere."""

    group: Annotated[str, Meta(min_length=1, max_length=256)]
    role: Role
    node: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")] | None = None


class Oidc(Struct, frozen=True):
    """The provider of OpenID Connect with which people sign in; no such table, tokens only.

    ``issuer``: https, or http on this machine. ``redirect_url``: where browsers find this API's
    ``/v1/sign-in/callback``; its scheme decides whether cookies are for https only. ``require_acr``: one of these;
    ``require_amr``: all of these: so is a second factor enforced. ``landing``: where a browser goes once signed in.
    ``signed_out_url``: where browsers find ``/v1/sign-out/callback``, if the provider knows that it may send them
    there; one that does not know would refuse the sign-out.
    """

    issuer: Annotated[str, Meta(max_length=512)]
    client_id: Annotated[str, Meta(min_length=1, max_length=256)]
    redirect_url: Annotated[str, Meta(max_length=512)]
    signed_out_url: Annotated[str, Meta(max_length=512)] = ""
    client_secret_file: Path | None = None
    ca_file: Path | None = None
    scopes: Annotated[tuple[OidcWord, ...], Meta(min_length=1, max_length=16)] = ("openid", "profile", "email")
    name_claim: OidcWord = "name"
    groups_claim: OidcWord = "groups"
    require_acr: Annotated[tuple[OidcWord, ...], Meta(max_length=16)] = ()
    require_amr: Annotated[tuple[OidcWord, ...], Meta(max_length=16)] = ()
    session_h: Annotated[float, Meta(gt=0, le=SESSION_H_MAX)] = 12.0
    idle_min: Annotated[float, Meta(ge=IDLE_MIN_MIN, le=60 * SESSION_H_MAX)] = 60.0
    landing: Annotated[str, Meta(pattern=r"^/([A-Za-z0-9._~-][A-Za-z0-9._~/-]*)?\Z", max_length=256)] = "/"
    groups: Annotated[tuple[GroupGrant, ...], Meta(max_length=GROUPS_MAX)] = ()


class Place(Struct, frozen=True):
    """Where the site is. ``timezone``: by its IANA name; times on pages are of this zone."""

    timezone: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_+/-]{1,64}\Z")] = "UTC"


class Config(Struct, frozen=True):
    """All of ``fleet-server.toml``. ``mail``: None if none is sent. ``readiness``: of each device class, what is
    asked before one is given out, instead of the default; what its table leaves out is not asked.
    """

    site_id: SiteIdField
    state_dir: Path
    broker: Broker
    mac: Mac
    api: Api
    shards: Shards = Shards(0, 255)
    signer: Signer = Signer()
    lease: Lease = Lease()
    ingest: Ingest = Ingest()
    seal: Seal = Seal()
    database: Database = Database()
    audit: Audit = Audit()
    outbound: Outbound = Outbound()
    mail: Mail | None = None
    influx: Influx | None = None
    device_ca: DeviceCa | None = None
    enrolment: EnrolmentTable | None = None
    releases: ReleasesTable | None = None
    oidc: Oidc | None = None
    evidence: Evidence | None = None
    readiness: dict[str, Thresholds] = {}
    measuring: Measuring = Measuring()
    alerts: Alerts = Alerts()
    site: Place = Place()


T = TypeVar("T", bound=Struct)


def parse(text: str, *, base: Path, source: str = "fleet-server.toml") -> Config:
    """Read the text of a configuration whose relative paths begin at *base*.

    Raises:
        ConfigError: with every fault, not just the first.
    """
    config = read_tables(text, Config, base=base, source=source)
    faults = [] if config.mail is None else _mail_faults(config.mail)
    unknown = [name for name in config.alerts.off if name not in RULE]
    if unknown:
        faults.append(f"alerts.off: expected some of {', '.join(RULE)}, got {shown(', '.join(unknown))}")
    if not _is_loopback(config.api.host):
        faults.append(f"api.host: expected a loopback address such as 127.0.0.1, got {shown(config.api.host)!r}")
    if config.influx is not None:
        faults += _influx_faults(config.influx)
    if config.enrolment is not None and config.device_ca is None:
        faults.append("device_ca: missing; enrolment signs with it")
    if config.releases is not None and config.enrolment is None:
        faults.append("enrolment: missing; releases are given on its listener")
    if config.evidence is not None and config.device_ca is None:
        faults.append("device_ca: missing; evidence is checked with it")
    if config.evidence is not None and config.signer.socket_file is None:
        faults.append("signer.socket_file: missing; receipts of evidence are signed there")
    if config.evidence is not None and config.evidence.tsa_url:
        faults += _tsa_faults(config.evidence.tsa_url)
    if config.evidence is not None and config.evidence.s3 is not None:
        faults += _s3_faults(config.evidence)
    if config.oidc is not None:
        faults += _oidc_faults(config.oidc)
    if not _is_zone(config.site.timezone):
        faults.append(
            f"site.timezone: expected an IANA name such as Asia/Shanghai, got {shown(config.site.timezone)!r}"
        )
    known = device_classes.names()
    faults += [
        f"readiness.{shown(name)}: unknown; expected one of {', '.join(known)}"
        for name in config.readiness
        if name not in known
    ]
    if config.device_ca is not None and (config.device_ca.key_file is None) == (config.device_ca.key_uri is None):
        faults.append("device_ca: expected one of key_file and key_uri")
    if config.signer.key_file is not None and config.signer.key_uri is not None:
        faults.append("signer: expected one of key_file and key_uri")
    if faults:
        raise ConfigError(source, tuple(faults))
    return config


def _influx_faults(influx: Influx) -> list[str]:
    """What is wrong with its URL, and with its tiers."""
    return [*_tier_faults(influx), *_influx_url_faults(influx)]


def _tier_faults(influx: Influx) -> list[str]:
    names = [tier.name for tier in influx.tiers_kept]
    if len({*names, LATE}) == len(names) + 1:
        return []
    return [f"influx.tiers: expected different names, and none called {LATE}, got {', '.join(names)}"]


def _influx_url_faults(influx: Influx) -> list[str]:
    got = shown(influx.url)
    try:
        parts = urlsplit(influx.url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return [f"influx.url: expected a URL such as http://127.0.0.1:8086, got {got!r}"]
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        return [f"influx.url: expected a URL such as http://127.0.0.1:8086, got {got!r}"]
    if parts.username is not None or parts.password is not None:
        return ["influx.url: expected no user in it; give influx.token_file"]
    if parts.scheme == "http" and not _is_loopback(host) and not influx.allow_plain:
        return [
            f"influx.url: expected https, or influx.allow_plain = true, for a host that is not this one, got {got!r}"
        ]
    return []


def _tsa_faults(url: str) -> list[str]:
    """Plain HTTP is well: what comes is signed, and what goes is a hash."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        good = False
    return [] if good else [f"evidence.tsa_url: expected such as https://tsa.example/tsr, got {shown(url)!r}"]


def _s3_faults(evidence: Evidence) -> list[str]:
    assert evidence.s3 is not None
    faults = []
    if evidence.replica is not None:
        faults.append("evidence: expected one of replica and s3")
    url = evidence.s3.endpoint
    if not is_secure_url(url) or urlsplit(url).path.strip("/") or urlsplit(url).query:
        faults.append(
            f"evidence.s3.endpoint: expected https://HOST, or http on this machine, and no path, got {shown(url)!r}"
        )
    return faults


def _oidc_faults(oidc: Oidc) -> list[str]:
    faults = []
    if not is_secure_url(oidc.issuer) or urlsplit(oidc.issuer).query:
        faults.append(f"oidc.issuer: expected https, or http on this machine, got {shown(oidc.issuer)!r}")
    if not is_secure_url(oidc.redirect_url) or urlsplit(oidc.redirect_url).path != SIGN_IN_CALLBACK:
        faults.append(
            f"oidc.redirect_url: expected https://HOST{SIGN_IN_CALLBACK}, or http on this machine, "
            f"got {shown(oidc.redirect_url)!r}"
        )
    signed_out_url = urljoin(oidc.redirect_url, SIGN_OUT_CALLBACK)
    if oidc.signed_out_url not in {"", signed_out_url}:
        faults.append(f"oidc.signed_out_url: expected {shown(signed_out_url)}, got {shown(oidc.signed_out_url)!r}")
    if "openid" not in oidc.scopes:
        faults.append(f"oidc.scopes: expected openid among them, got {shown(' '.join(oidc.scopes))!r}")
    return faults


def is_secure_url(url: str) -> bool:
    """Whether it is https, or http to this machine, with no user and no fragment in it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def read_tables(text: str, kind: type[T], *, base: Path, source: str) -> T:
    """Read TOML as *kind*: a tree of frozen structs, whose ``Path`` fields begin at *base* if relative.

    Raises:
        ConfigError: with every fault; an unknown name is one.
    """
    try:
        raw: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, (f"not TOML: {error}",)) from error
    faults: list[str] = []
    tables = _table(raw, kind, "", base, faults)
    if tables is None:
        raise ConfigError(source, tuple(faults))
    return tables


def load(path: Path) -> Config:
    """Read a configuration file, and check that the files it names are there and its secrets are secret.

    Raises:
        ConfigError: with every fault.
    """
    config = parse(read_text(path), base=path.resolve().parent, source=str(path))
    faults = [
        *_unreadable("broker.ca_file", config.broker.ca_file),
        *_unreadable("broker.cert_file", config.broker.cert_file),
        *not_secret("broker.key_file", config.broker.key_file),
        *not_secret("mac.master_key_file", config.mac.master_key_file),
        *not_secret("api.token_file", config.api.token_file),
        *(not_secret("database.password_file", file) if (file := config.database.password_file) else ()),
        *(not_secret("audit.key_file", key) if (key := config.audit.key_file) else (_no_audit_key(path),)),
        *(_unreadable("outbound.ca_file", file) if (file := config.outbound.ca_file) else ()),
        *(
            not_secret("mail.password_file", config.mail.password_file)
            if config.mail is not None and config.mail.password_file is not None
            else ()
        ),
    ]
    if config.influx is not None and config.influx.token_file is not None:
        faults += not_secret("influx.token_file", config.influx.token_file)
    if config.influx is not None and config.influx.ca_file is not None:
        faults += _unreadable("influx.ca_file", config.influx.ca_file)
    if config.device_ca is not None:
        faults += _unreadable("device_ca.cert_file", config.device_ca.cert_file)
        own = () if config.device_ca.key_file is None else (config.device_ca.key_file,)
        for file in (*own, *sorted(config.device_ca.formers.glob("*.key"))):
            faults += not_secret("device_ca.key_file", file)
    if config.enrolment is not None:
        faults += _unreadable("enrolment.cert_file", config.enrolment.cert_file)
        faults += not_secret("enrolment.key_file", config.enrolment.key_file)
        faults += _unreadable("enrolment.server_ca_file", config.enrolment.server_ca_file)
    if config.releases is not None and config.releases.key_file is not None:
        faults += not_secret("releases.key_file", config.releases.key_file)
    if config.evidence is not None and config.evidence.tsa_ca_file is not None:
        faults += _unreadable("evidence.tsa_ca_file", config.evidence.tsa_ca_file)
    if config.evidence is not None and (s3 := config.evidence.s3) is not None:
        faults += not_secret("evidence.s3.credentials_file", s3.credentials_file)
        faults += [] if s3.ca_file is None else _unreadable("evidence.s3.ca_file", s3.ca_file)
    if config.oidc is not None and config.oidc.client_secret_file is not None:
        faults += not_secret("oidc.client_secret_file", config.oidc.client_secret_file)
    if config.oidc is not None and config.oidc.ca_file is not None:
        faults += _unreadable("oidc.ca_file", config.oidc.ca_file)
    if faults:
        raise ConfigError(str(path), tuple(faults))
    return config


def _no_audit_key(path: Path) -> str:
    return f"audit.key_file: missing; make the key with: fleet-server make-audit-key --config {path}"


class SignerPlace(NamedTuple):
    """All that the signer is told."""

    site: SiteId
    socket_file: Path
    key: Path | KeyUri
    counter_file: Path
    lifetime_ms_max: int
    client_uids: frozenset[int]


def load_signer(path: Path) -> SignerPlace:
    """Read what the signer needs; nothing else of the file has to be there for it. Raises ConfigError."""
    config = parse(read_text(path), base=path.resolve().parent, source=str(path))
    table = config.signer
    key = table.key_file or table.key_uri
    if table.socket_file is None or key is None or table.counter_file is None:
        raise ConfigError(str(path), ("signer: expected socket_file, counter_file, and key_file or key_uri",))
    faults = not_secret("signer.key_file", key) if isinstance(key, Path) else []
    if faults:
        raise ConfigError(str(path), tuple(faults))
    return SignerPlace(
        config.site_id,
        table.socket_file,
        key,
        table.counter_file,
        table.lifetime_ms_max,
        frozenset(table.client_uids),
    )


def load_socket(path: Path) -> Path:
    """Where the signer is asked. Raises ConfigError: it is nowhere."""
    config = parse(read_text(path), base=path.resolve().parent, source=str(path))
    if config.signer.socket_file is None:
        raise ConfigError(str(path), ("signer: expected socket_file",))
    return config.signer.socket_file


def read_text(path: Path) -> str:
    """A configuration file's text. Raises ConfigError: not there, not UTF-8, or too large to be one."""
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), (f"cannot be read: {error}",)) from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError(str(path), (f"expected at most {CONFIG_BYTES_MAX} bytes",))
    return text


def _table(raw: Mapping[str, object], kind: type[T], at: str, base: Path, faults: list[str]) -> T | None:
    """One table of the file as *kind*; None if it had a fault, which is in *faults* then."""
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    before = len(faults)
    faults.extend(f"{at}{shown(name)}: unknown; expected one of {', '.join(fields)}" for name in raw.keys() - fields)
    values: dict[str, object] = {}
    for name, each in fields.items():
        if name not in raw:
            if each.required:
                faults.append(f"{at}{name}: missing")
            continue
        try:
            values[each.name] = _value(raw[name], each.type, f"{at}{name}", base, faults)
        except KeyUriError as error:
            faults.append(f"{at}{name}: {error}")  # and not what it got: a PIN may be in it
        except (msgspec.ValidationError, BadIdError) as error:
            text = str(error)
            faults.append(f"{at}{name}: {text[:1].lower()}{text[1:]}, got {shown(raw[name])!r}")
    return kind(**values) if len(faults) == before else None


def _value(raw: object, kind: object, at: str, base: Path, faults: list[str]) -> object:
    options = get_args(kind)
    if NoneType in options:  # TOML has no null: what may be absent is there now
        (kind,) = (option for option in options if option is not NoneType)
    if kind is Path:
        return base / msgspec.convert(raw, Annotated[str, Meta(min_length=1)])
    if kind is KeyUri:
        return KeyUri.parse(msgspec.convert(raw, str))
    if kind is Shards:
        return Shards.parse(raw)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _table(msgspec.convert(raw, dict[str, object]), kind, f"{at}.", base, faults)
    return msgspec.convert(raw, kind)


def _mail_faults(mail: Mail) -> list[str]:
    faults = []
    if mail.tls is Tls.NONE and not _is_loopback(mail.host):
        faults.append(f"mail.tls: expected starttls or tls to another machine, got {mail.tls.value!r}")
    if bool(mail.user) != (mail.password_file is not None):
        faults.append("mail.password_file: expected user and password_file together")
    return faults


def _is_zone(name: str) -> bool:
    try:
        return ZoneInfo(name).key == name
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory of zones
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unreadable(name: str, path: Path) -> list[str]:
    try:
        with path.open("rb"):
            return []
    except OSError as error:
        return [f"{name}: expected a readable file, got {error.strerror}: {path}"]


def not_secret(name: str, path: Path) -> list[str]:
    """What is wrong with the file of a secret; empty if nothing is."""
    unreadable = _unreadable(name, path)
    if not unreadable and path.stat().st_mode & 0o077:
        return [f"{name}: expected a file that only its owner may read (chmod 600), got {path}"]
    return unreadable
