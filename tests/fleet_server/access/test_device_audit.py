"""Each check finds the violation that is seeded, and nothing in a fleet that is well."""

from dataclasses import replace

import pytest

from broker_config.ids import SiteId
from broker_config.render.mosquitto import ACL_FILE, CONFIG_FILE, MosquittoSite, render
from fleet_server.access.device_audit import Broker, Check, Connection, Facts, FormerAuthority, audit
from fleet_server.access.enrolment import DAY_MS, Certificate
from fleet_server.access.states import State

NOW = 1_767_254_400_000
FILES = render(MosquittoSite(site=SiteId("5e" * 32), crl_file="device-ca.crl"))
BROKER = Broker(FILES[CONFIG_FILE], FILES[ACL_FILE], FILES[ACL_FILE], acl_for_all=False)
CAR = Certificate("1", "car-7", "f1", "k1", NOW, NOW + 30 * DAY_MS, key_kind="P-256")
BUS = Certificate("2", "bus-1", "f2", "k2", NOW, NOW + 20 * DAY_MS, key_kind="RSA")
WELL = Facts(
    now_ms=NOW,
    certificates=[CAR, BUS],
    connections=[Connection("car-7", connected=True, flaps=3), Connection("bus-1", connected=False, flaps=0)],
    authorities={"devices": NOW + 1_000 * DAY_MS},
    list_until_ms=NOW + 20 * DAY_MS,
    broker=BROKER,
)


def config(old: str, new: str) -> Facts:
    text = FILES[CONFIG_FILE]
    assert old in text
    return replace(WELL, broker=replace(BROKER, config=text.replace(old, new, 1)))


def test_a_fleet_that_is_well() -> None:
    assert audit(WELL) == []


@pytest.mark.parametrize(
    ("facts", "check", "subject"),
    [
        (replace(WELL, certificates=[CAR, replace(BUS, key_digest="k1")]), Check.SHARED_KEY, "bus-1, car-7"),
        (replace(WELL, certificates=[CAR, replace(BUS, key_kind="RSA-1024")]), Check.WEAK_KEY, "bus-1"),
        (replace(WELL, certificates=[CAR, replace(BUS, key_kind="")]), Check.WEAK_KEY, "bus-1"),
        (
            replace(WELL, certificates=[CAR, replace(BUS, not_after_ms=NOW + 6 * DAY_MS)]),
            Check.CERTIFICATE_EXPIRES,
            "bus-1",
        ),
        (
            replace(WELL, certificates=[CAR, replace(BUS, not_after_ms=NOW - DAY_MS)]),
            Check.CERTIFICATE_EXPIRES,
            "bus-1",
        ),
        (replace(WELL, authorities={"devices": NOW + 100 * DAY_MS}), Check.AUTHORITY_EXPIRES, "devices"),
        (replace(WELL, former=[FormerAuthority("before")], rolled_ms=NOW), Check.FORMER_AUTHORITY, "before"),
        (replace(WELL, list_until_ms=NOW + 2 * DAY_MS), Check.LIST_EXPIRES, "the list of revoked devices"),
        (replace(WELL, list_until_ms=None), Check.LIST_EXPIRES, "the list of revoked devices"),
        (replace(WELL, certificates=[replace(CAR, state=State.REVOKED), BUS]), Check.REVOKED_CONNECTED, "car-7"),
        (
            replace(WELL, connections=[Connection("car-7", connected=True, flaps=40)]),
            Check.CONFLICTING_IDS,
            "car-7",
        ),
        (replace(WELL, broker=replace(BROKER, acl_for_all=True)), Check.POLICY, "acl"),
        (replace(WELL, broker=replace(BROKER, acl=FILES[ACL_FILE] + "topic readwrite #\n")), Check.POLICY, "acl"),
        (replace(WELL, broker=replace(BROKER, acl=None)), Check.POLICY, "acl"),
        (replace(WELL, broker=replace(BROKER, config=None)), Check.POLICY, "mosquitto.conf"),
        (config("allow_anonymous false", "allow_anonymous true"), Check.POLICY, "mosquitto.conf"),
        (config("acl_file ", "# acl_file "), Check.POLICY, "mosquitto.conf"),
        (config("crlfile ", "# crlfile "), Check.POLICY, "mosquitto.conf"),
        (config("use_username_as_clientid true\n", ""), Check.POLICY, "mosquitto.conf"),
        (config("# Bounds", "listener 1883"), Check.POLICY, "mosquitto.conf"),
        (config("log_dest stderr", "log_dest none"), Check.LOGGING_OFF, "mosquitto.conf"),
        (config("log_dest stderr", "log_dest stderr\nlog_type none"), Check.LOGGING_OFF, "mosquitto.conf"),
    ],
)
def test_what_is_seeded_is_found_and_nothing_else(facts: Facts, check: Check, subject: str) -> None:
    assert [(finding.check, finding.subject) for finding in audit(facts)] == [(check, subject)]


def test_a_device_that_was_revoked_and_enrolled_anew_is_well() -> None:
    old = replace(CAR, serial="0", state=State.REVOKED, key_digest="k0")
    assert audit(replace(WELL, certificates=[old, CAR, BUS])) == []


@pytest.mark.parametrize(
    ("rolled_ms", "words"),
    [
        (NOW, "2 devices may be under it, the last for 30 days"),
        (
            NOW - DAY_MS + 1,
            "2 devices may be under it, the last for 30 days",
        ),  # until the server's restart
        (NOW - DAY_MS, "every device has renewed, and it counts still"),
    ],
)
def test_who_may_be_under_a_former_authority_is_counted(rolled_ms: int, words: str) -> None:
    (finding,) = audit(replace(WELL, former=[FormerAuthority("before")], rolled_ms=rolled_ms))
    assert finding.detail == words


def test_a_list_that_nobody_can_sign_again_is_told_before_it_runs_out() -> None:
    former = [FormerAuthority("before", list_until_ms=NOW + 6 * DAY_MS)]
    found = audit(replace(WELL, former=former, rolled_ms=NOW))
    assert [each.check for each in found] == [Check.FORMER_AUTHORITY, Check.LIST_EXPIRES]
    assert found[1].detail == "its key is gone, and its list is good for 6 days"
