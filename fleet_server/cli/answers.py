"""What the commands read of the API's answers. What they do not show they do not read."""

from typing import TypeVar

import msgspec
from msgspec import Struct

from fleet_server.cli.server import CommandError, Exit, Json


class Stream(Struct, frozen=True):
    """See the API's ``Stream``."""

    stream: str
    life: str
    last: int
    held: int
    missing: int
    quarantined: int
    gone: int


class Device(Struct, frozen=True):
    """See the API's ``Device``."""

    device: str
    device_class: str
    agent: str
    connected: bool
    reporting: bool
    healthy: bool
    flaps: int
    why: list[str]
    last_status_ms: int | None
    last_record_ms: int | None
    streams: list[Stream]
    org: str | None = None
    unit: str | None = None


class Claim(Struct, frozen=True):
    """See the API's ``Claim``."""

    claim: str
    device: str
    made_by: str
    expires_at: str | None
    redeemed_ms: int | None
    good: bool


class MadeClaim(Claim, frozen=True):
    """See the API's ``MadeClaim``."""

    code: str
    qr: str
    command: str


class Claims(Struct, frozen=True):
    """A list of them."""

    claims: list[Claim]


class MadeClaims(Struct, frozen=True):
    """A list of them."""

    claims: list[MadeClaim]


class Certificate(Struct, frozen=True):
    """See the API's ``Certificate``."""

    serial: str
    state: str
    issued_at: str | None
    not_after_at: str | None
    reason: str | None


class Certificates(Struct, frozen=True):
    """A list of them."""

    certificates: list[Certificate]


class Finding(Struct, frozen=True):
    """See the API's ``Finding``."""

    check: str
    subject: str
    detail: str
    todo: str


class Audit(Struct, frozen=True):
    """See the API's ``Audit``."""

    checks: list[str]
    findings: list[Finding]


class RevocationStep(Struct, frozen=True):
    """See the API's ``RevocationStep``."""

    what: str
    done: bool
    at_s: float
    detail: str


class Revocation(Struct, frozen=True):
    """See the API's ``Revocation``."""

    out: bool
    seconds: float
    steps: list[RevocationStep]


class Imported(Struct, frozen=True):
    """See the API's ``Imported``."""

    created: int
    changed: int
    unchanged: int


class AuditEntry(Struct, frozen=True):
    """See the API's ``AuditEntry``."""

    log: int
    index: int
    at_ms: int
    phase: str
    actor: str
    source: str
    action: str
    subject: str
    outcome: str
    count: int


class AuditEntries(Struct, frozen=True):
    """See the API's ``AuditPage``."""

    entries: list[AuditEntry]


class Consistency(Struct, frozen=True):
    """See the API's ``ConsistencyProof``."""

    hashes: list[str]


class FleetRow(Struct, frozen=True):
    """See the API's ``FleetRow``."""

    org: str | None
    name: str
    kind: str | None
    devices: int
    connected: int
    reporting: int
    healthy: int


class FleetClass(Struct, frozen=True):
    """See the API's ``FleetClass``."""

    device_class: str
    devices: int
    connected: int
    reporting: int
    healthy: int


class Fleet(Struct, frozen=True):
    """See the API's ``FleetSummary``."""

    devices: int
    connected: int
    reporting: int
    healthy: int
    places: list[FleetRow]
    classes: list[FleetClass]


class Happening(Struct, frozen=True):
    """See the API's ``Happening``."""

    id: int
    time_ms: int
    kind: str
    severity: str
    device: str
    org: str
    text: str


class Webhook(Struct, frozen=True):
    """See the API's ``Webhook``."""

    id: str
    url: str
    kinds: list[str]
    severity: str
    org: str | None
    note: str
    enabled: bool
    disabled_why: str


class WebhookList(Struct, frozen=True):
    """A page's."""

    webhooks: list[Webhook]


class Delivery(Struct, frozen=True):
    """See the API's ``Delivery``."""

    happening: int
    state: str
    attempts: int
    status: int
    error: str


class DeliveryList(Struct, frozen=True):
    """A page's."""

    deliveries: list[Delivery]


class Grant(Struct, frozen=True):
    """See the API's ``Grant``."""

    role: str
    node: str | None


class Token(Struct, frozen=True):
    """See the API's ``Token``."""

    token: str
    name: str
    grants: list[Grant]
    made_by: str
    pending: bool
    expires_ms: int | None
    used_ms: int | None
    revoked_ms: int | None


class TokenMade(Struct, frozen=True):
    """See the API's ``TokenMade``."""

    secret: str
    pending: bool


class Tokens(Struct, frozen=True):
    """See the API's ``TokenPage``."""

    tokens: list[Token]


class GivenGrant(Grant, frozen=True):
    """See the API's ``GivenGrant``."""

    by: str


class Person(Struct, frozen=True):
    """See the API's ``Person``."""

    person: str
    name: str
    email: str
    grants: list[GivenGrant]
    proposed: list[Grant] | None
    proposed_by: str | None
    revision: int
    last_ms: int
    disabled_ms: int | None


class People(Struct, frozen=True):
    """See the API's ``PersonPage``."""

    people: list[Person]


class Me(Struct, frozen=True):
    """See the API's ``Me``."""

    token: str | None
    name: str
    permissions: dict[str, list[str]]
    person: str | None = None


class Latest(Struct, frozen=True):
    """See the API's ``Latest``."""

    device: str
    stream: str
    time_ms: int
    received_ms: int
    values: dict[str, float | None]


class Series(Struct, frozen=True):
    """See the API's ``Series``."""

    device: str
    stream: str
    from_ms: int
    to_ms: int
    bucket_ms: int
    rows_total: int
    times_ms: list[int]
    columns: dict[str, list[float | None]]
    counts: dict[str, list[int]]


class Gap(Struct, frozen=True):
    """See the API's ``Gap``."""

    device: str
    stream: str
    reason: str
    first_seq: int | None
    last_seq: int | None
    from_ms: int | None
    to_ms: int | None
    open: bool
    detail: str


class Event(Struct, frozen=True):
    """See the API's ``Event``."""

    time_ms: int
    kind: str
    data: dict[str, float | bool | str | None]


class Quarantined(Struct, frozen=True):
    """See the API's ``Quarantined``."""

    id: int
    received_ms: int
    device: str
    channel: str
    key: str | None
    reason: str
    detail: str
    content_type: str
    payload_bytes: int
    replayed_ms: int | None


class Facts(Struct, frozen=True):
    """See the API's ``Facts``."""

    connected: bool
    records_stored: int
    records_duplicate: int
    records_quarantined: int
    receipts_sent: int


class Devices(Struct, frozen=True):
    """A list of them."""

    devices: list[Device]


class LatestList(Struct, frozen=True):
    """A list of them."""

    latest: list[Latest]


class Gaps(Struct, frozen=True):
    """A list of them."""

    gaps: list[Gap]


class Events(Struct, frozen=True):
    """A list of them."""

    events: list[Event]


class QuarantineList(Struct, frozen=True):
    """A list of them."""

    quarantined: list[Quarantined]


T = TypeVar("T")


def read(document: Json, kind: type[T]) -> T:
    """An answer as *kind*. Raises CommandError: the server is of another version."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise CommandError(
            Exit.PROBLEM,
            f"the server's answer is not what this command knows: {error}",
            hint="are server and command of the same version? --json shows the answer as it is",
        ) from error
