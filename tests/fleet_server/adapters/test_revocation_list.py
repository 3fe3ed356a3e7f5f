"""The list of revoked devices only grows, is always the newest that a broker has seen, and never runs out unseen."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fleet_server.access import ca
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.revocation_list import KEPT, CrlFile

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def crl(tmp_path: Path) -> CrlFile:
    root = ca.new_root("root", now=NOW)
    authority = ca.new_intermediate(root, "devices", now=NOW)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem + root.certificate_pem)
    (tmp_path / "ca.key").write_bytes(authority.key_pem)
    (tmp_path / "root.crl").write_bytes(ca.revocation_list(root, [], now=NOW, days=ca.ROOT_CRL_DAYS))
    return CrlFile(
        tmp_path / "device-ca.crl", FileKeys(tmp_path / "ca.crt", tmp_path / "ca.key"), tmp_path / "root.crl"
    )


def lists(tmp_path: Path) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----\n"
    parts = (tmp_path / "device-ca.crl").read_bytes().split(end)
    return [x509.load_pem_x509_crl(part + end) for part in parts if part]


def test_the_authoritys_list_comes_first_and_the_roots_behind(crl: CrlFile, tmp_path: Path) -> None:
    crl.publish([ca.Revoked(7, NOW)], now=NOW)
    own, roots = lists(tmp_path)
    assert (own.issuer.rfc4514_string(), roots.issuer.rfc4514_string()) == ("CN=devices", "CN=root")
    assert [each.serial_number for each in own] == [7]
    assert own.next_update_utc == crl.until() == NOW + timedelta(days=ca.CRL_DAYS)


def test_each_list_is_later_than_the_one_before_even_within_a_second(crl: CrlFile, tmp_path: Path) -> None:
    updated = []
    for _ in range(3):
        crl.publish([], now=NOW)
        updated.append(lists(tmp_path)[0].last_update_utc)
    assert updated == sorted(set(updated))


def test_what_was_revoked_stays_so_when_the_database_has_forgotten_it(crl: CrlFile, tmp_path: Path) -> None:
    crl.publish([ca.Revoked(7, NOW)], now=NOW)
    crl.publish([ca.Revoked(8, NOW)], now=NOW + timedelta(days=1))
    assert [each.serial_number for each in lists(tmp_path)[0]] == [7, 8]
    assert [crl.has(serial) for serial in (7, 8, 9)] == [True, True, False]
    crl.publish([], now=NOW + KEPT)
    assert [each.serial_number for each in lists(tmp_path)[0]] == []


def test_a_file_that_is_no_list_is_not_written_over(crl: CrlFile, tmp_path: Path) -> None:
    (tmp_path / "device-ca.crl").write_bytes(b"something else")
    with pytest.raises(ca.CaError, match="expected a list"):
        crl.publish([], now=NOW)
    assert (tmp_path / "device-ca.crl").read_bytes() == b"something else"
