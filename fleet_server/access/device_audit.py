"""What is wrong with the identities of a fleet, or soon will be. Pure: facts in, findings out.

The checks are those of AWS Device Defender that apply here. What the server refuses from the beginning, such as a
weak key, is looked for all the same, because a database can come from elsewhere.

Source: https://docs.aws.amazon.com/iot-device-defender/latest/devguide/device-defender-audit-checks.html
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet_server.access.enrolment import DAY_MS, KEY_KINDS, Certificate
from fleet_server.access.states import State

LEAF_DAYS_LEFT_MIN: Final = 7
"""A device renews ten days before the end: one that has less has not been able to."""
CA_DAYS_LEFT_MIN: Final = 180
CRL_DAYS_LEFT_MIN: Final = 7
RESTART_MS_MAX: Final = DAY_MS
"""After a rollover, until the server is started again: for so long it may sign with the authority before."""
FLAPS_MIN: Final = 10
"""Connections within an hour beside the one it has: two that share a name evict each other for ever."""

REQUIRED: Final[Mapping[str, str]] = {
    "allow_anonymous": "false",
    "require_certificate": "true",
    "use_identity_as_username": "true",
    "use_username_as_clientid": "true",
    "use_subject_as_username": "true",
}
"""What each such line of the broker's configuration must say."""
NAMED: Final = ("acl_file", "crlfile")
"""Settings without which the broker lets in, or lets do, what it must not."""
SILENT: Final = frozenset({("log_dest", "none"), ("log_type", "none")})


class Check(StrEnum):
    """What a finding is of."""

    SHARED_KEY = "shared-key"
    WEAK_KEY = "weak-key"
    CERTIFICATE_EXPIRES = "certificate-expires"
    AUTHORITY_EXPIRES = "authority-expires"
    FORMER_AUTHORITY = "former-authority"
    LIST_EXPIRES = "revocation-list-expires"
    REVOKED_CONNECTED = "revoked-and-connected"
    CONFLICTING_IDS = "conflicting-client-ids"
    POLICY = "over-permissive-policy"
    LOGGING_OFF = "logging-off"


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject``: a device, a file, an authority. ``todo``: what makes it right."""

    check: Check
    subject: str
    detail: str
    todo: str


@dataclass(frozen=True, slots=True)
class Connection:
    """What presence says of a device."""

    device: str
    connected: bool
    flaps: int


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker's files as they are, beside what is rendered. None: the server cannot read it."""

    config: str | None
    acl: str | None
    acl_rendered: str
    acl_for_all: bool


@dataclass(frozen=True, slots=True)
class FormerAuthority:
    """One that signs nobody any more. ``list_until_ms``: of a list that nobody can sign again; None: we can."""

    name: str
    list_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is looked at. ``authorities``: name -> its end, ms; ``list_until_ms``: None if there is no list."""

    now_ms: int
    certificates: Sequence[Certificate]
    connections: Sequence[Connection]
    authorities: Mapping[str, int]
    list_until_ms: int | None
    broker: Broker
    former: Sequence[FormerAuthority] = ()
    """Oldest first."""
    rolled_ms: int = 0
    """When the authority was made that signs now."""


def audit(facts: Facts) -> list[Finding]:
    """Every finding, by check and subject."""
    found = [
        *_keys(facts.certificates),
        *_ends(facts),
        *_former(facts),
        *_connections(facts),
        *_config(facts.broker),
        *_acl(facts.broker),
    ]
    return sorted(found, key=lambda finding: (list(Check).index(finding.check), finding.subject))


def _keys(certificates: Sequence[Certificate]) -> Iterator[Finding]:
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for each in certificates:
        if each.state is State.ACTIVE:
            holders[each.key_digest].add(each.device)
            if each.key_kind not in KEY_KINDS:
                detail = f"its key is {each.key_kind or 'of a sort that is not known'}"
                yield Finding(Check.WEAK_KEY, each.device, detail, f"revoke {each.device}, and enrol it again")
    for devices in holders.values():
        if len(devices) > 1:
            names = ", ".join(sorted(devices))
            yield Finding(Check.SHARED_KEY, names, "they have one key", "revoke each, and enrol each again")


def _ends(facts: Facts) -> Iterator[Finding]:
    last: dict[str, int] = {}
    for each in facts.certificates:
        if each.state is State.ACTIVE:
            last[each.device] = max(each.not_after_ms, last.get(each.device, 0))
    for device, end_ms in last.items():
        days = _days(end_ms, facts.now_ms)
        if days < LEAF_DAYS_LEFT_MIN:
            detail = f"its certificate {'expired' if days < 0 else 'expires in'} {abs(days)} days{_ago(days)}"
            yield Finding(Check.CERTIFICATE_EXPIRES, device, detail, "see why it does not renew: edge-agent renew")
    for name, end_ms in facts.authorities.items():
        days = _days(end_ms, facts.now_ms)
        if days < CA_DAYS_LEFT_MIN:
            detail = f"it expires in {days} days, and with it all that it signed"
            yield Finding(Check.AUTHORITY_EXPIRES, name, detail, "fleet-server roll-ca, where the root's key is")
    until_ms = facts.list_until_ms
    if until_ms is None or _days(until_ms, facts.now_ms) < CRL_DAYS_LEFT_MIN:
        detail = "there is none" if until_ms is None else f"it is good for {_days(until_ms, facts.now_ms)} days"
        todo = "see the server's log; a broker refuses every device once its list is too old"
        yield Finding(Check.LIST_EXPIRES, "the list of revoked devices", detail, todo)


def _former(facts: Facts) -> Iterator[Finding]:
    """Who signed a certificate is told by when it was made: in doubt it was the one before."""
    newest: dict[str, Certificate] = {}
    for each in facts.certificates:
        if each.state is State.ACTIVE and each.issued_ms >= newest.get(each.device, each).issued_ms:
            newest[each.device] = each
    limit_ms = facts.rolled_ms + RESTART_MS_MAX
    ends = [each.not_after_ms for each in newest.values() if each.issued_ms < limit_ms]
    for former in facts.former:
        name = former.name
        if ends:
            days = max(0, _days(max(ends), facts.now_ms))
            detail = f"{len(ends)} devices may be under it, the last for {days} days"
            yield Finding(Check.FORMER_AUTHORITY, name, detail, "let them renew; then: fleet-server retire-ca")
        else:
            detail = "every device has renewed, and it counts still"
            yield Finding(Check.FORMER_AUTHORITY, name, detail, "fleet-server retire-ca")
        until_ms = former.list_until_ms
        if until_ms is not None and _days(until_ms, facts.now_ms) < CRL_DAYS_LEFT_MIN:
            detail = f"its key is gone, and its list is good for {_days(until_ms, facts.now_ms)} days"
            todo = "have its devices renew before: a broker refuses them all then"
            yield Finding(Check.LIST_EXPIRES, name, detail, todo)


def _connections(facts: Facts) -> Iterator[Finding]:
    states: defaultdict[str, set[State]] = defaultdict(set)
    for each in facts.certificates:
        states[each.device].add(each.state)
    for seen in facts.connections:
        held = states[seen.device]
        if seen.connected and State.REVOKED in held and State.ACTIVE not in held:
            todo = f"fieldfleet revoke {seen.device}, until it says that the device is out"
            yield Finding(Check.REVOKED_CONNECTED, seen.device, "it is revoked, and connected", todo)
        if seen.flaps >= FLAPS_MIN:
            detail = f"{seen.flaps} connections within an hour: two devices may have its identity"
            todo = f"look for a copy; then revoke {seen.device}, and enrol it again"
            yield Finding(Check.CONFLICTING_IDS, seen.device, detail, todo)


def _config(broker: Broker) -> Iterator[Finding]:
    name = "mosquitto.conf"
    if broker.config is None:
        yield Finding(Check.POLICY, name, "it cannot be read", "let the server read it, or look yourself")
        return
    settings = [tuple(line.split(None, 1)) for line in broker.config.splitlines() if not line.startswith("#")]
    pairs = [(line[0], line[1].strip()) for line in settings if len(line) == 2]
    values = Counter(pairs)
    for setting, wanted in REQUIRED.items():
        wrong = [value for key, value in values if key == setting and value != wanted]
        if wrong or (setting, wanted) not in values:
            detail = f"{setting} is {wrong[0] if wrong else 'not there'}, expected {wanted}"
            yield Finding(Check.POLICY, name, detail, "render it again")
    for setting in NAMED:
        if all(key != setting for key, _ in values):
            yield Finding(Check.POLICY, name, f"{setting} is not there", "render it again")
    listeners = sum(1 for key, _ in pairs if key == "listener")
    guarded = sum(1 for key, value in pairs if (key, value) == ("require_certificate", "true"))
    if listeners > guarded:
        detail = f"{listeners} listeners, of which {guarded} ask for a certificate"
        yield Finding(Check.POLICY, name, detail, "render it again")
    if SILENT & set(values) or all(key != "log_dest" for key, _ in values):
        yield Finding(Check.LOGGING_OFF, name, "the broker logs nothing that anybody keeps", "log_dest stderr")


def _acl(broker: Broker) -> Iterator[Finding]:
    if broker.acl is None:
        yield Finding(Check.POLICY, "acl", "it cannot be read", "let the server read it, or look yourself")
        return
    if broker.acl_for_all:
        yield Finding(Check.POLICY, "acl", "others than its owner may read or write it", "chmod 600")
    for line in _rules(broker.acl) - _rules(broker.acl_rendered):
        yield Finding(Check.POLICY, "acl", f"it has a line of its own: {line}", "take it out, or render it again")


def _rules(acl: str) -> set[str]:
    return {" ".join(line.split()) for line in acl.splitlines() if line.strip() and not line.startswith("#")}


def _days(end_ms: int, now_ms: int) -> int:
    return (end_ms - now_ms) // DAY_MS


def _ago(days: int) -> str:
    return " ago" if days < 0 else ""
