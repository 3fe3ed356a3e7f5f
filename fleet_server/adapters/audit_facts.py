"""Gathers what :mod:`fleet_server.access.device_audit` looks at: store, presence, authority, the broker's files."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from broker_config.ids import SiteId
from broker_config.render import mosquitto
from fleet_server.access.ca import BACKDATED, Keys
from fleet_server.access.device_audit import Broker, Connection, Facts, Finding, FormerAuthority, audit
from fleet_server.access.enrolment_store import Enrolments
from fleet_server.access.revocation import RevocationList
from fleet_server.telemetry.view import TelemetryView


def auditor(
    store: Enrolments,
    view: TelemetryView,
    keys: Keys,
    crl: RevocationList,
    broker_directory: Path,
    site: SiteId,
    *,
    now_ms: Callable[[], int],
) -> Callable[[], list[Finding]]:
    """What makes an audit of this moment each time it is called. Raises StoreError, CaError."""

    def audited() -> list[Finding]:
        at_ms = now_ms()
        until = crl.until()
        facts = Facts(
            now_ms=at_ms,
            certificates=store.counting(now_ms=at_ms),
            connections=[
                Connection(each.device, is_connected(view, each.device), each.flaps) for each in view.devices()
            ],
            authorities={above.subject.rfc4514_string(): _ms(above.not_valid_after_utc) for above in keys.chain()},
            list_until_ms=None if until is None else _ms(until),
            broker=_broker(broker_directory, site),
            former=_former(keys, crl),
            rolled_ms=_ms(keys.authority().certificate.not_valid_before_utc + BACKDATED),
        )
        return audit(facts)

    return audited


def is_connected(view: TelemetryView, device: str) -> bool:
    """Whether nobody has said that its last connection ended: *connected* alone says so some seconds later."""
    found = view.presence_of(device)
    return found is not None and found.connected and found.ended_ms is None


def _former(keys: Keys, crl: RevocationList) -> list[FormerAuthority]:
    ends = crl.ends()
    found = []
    for each in sorted(keys.former(), key=lambda former: former.certificate.not_valid_before_utc):
        name = each.certificate.subject.rfc4514_string()
        until = None if each.ca is not None else ends.get(name)
        lost_ms = 0 if until is None else _ms(until)  # without a list its devices are refused already
        found.append(FormerAuthority(name, None if each.ca is not None else lost_ms))
    return found


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _broker(directory: Path, site: SiteId) -> Broker:
    acl = directory / mosquitto.ACL_FILE
    rendered = mosquitto.render(mosquitto.MosquittoSite(site=site))
    return Broker(
        config=_text(directory / mosquitto.CONFIG_FILE),
        acl=_text(acl),
        acl_rendered=rendered[mosquitto.ACL_FILE],
        acl_for_all=acl.is_file() and bool(acl.stat().st_mode & 0o077),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
