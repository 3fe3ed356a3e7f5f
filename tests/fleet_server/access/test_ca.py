from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_config.ids import COMMON_NAME_CHARS_MAX, SiteId, device_id, server_client_id, server_user
from fleet_server.access import ca

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SITE = SiteId("5e" * 32)
CAR_7 = device_id("car-7")


@pytest.fixture(scope="module")
def device_ca() -> ca.Issued:
    return ca.new_ca("devices", now=NOW)


def certificate(issued: ca.Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate_pem)


def test_a_device_is_signed_by_its_ca_and_named_by_its_id(device_ca: ca.Issued) -> None:
    issued = certificate(ca.issue_device(device_ca, CAR_7, now=NOW))
    issued.verify_directly_issued_by(certificate(device_ca))
    assert [part.value for part in issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["car-7"]
    assert isinstance(issued.public_key(), ec.EllipticCurvePublicKey)


def test_the_servers_subject_is_its_name_at_the_broker(device_ca: ca.Issued) -> None:
    issued = certificate(ca.issue_server(device_ca, SITE, now=NOW))
    assert issued.subject.rfc4514_string() == server_user(SITE)


def test_the_servers_names_do_not_fit_into_a_common_name(device_ca: ca.Issued) -> None:
    for name in (server_user(SITE), server_client_id(SITE)):
        assert len(name) > COMMON_NAME_CHARS_MAX
        with pytest.raises(ValueError, match="length"):
            x509.NameAttribute(NameOID.COMMON_NAME, name)


def test_the_broker_is_named_by_every_host_that_clients_connect_to(device_ca: ca.Issued) -> None:
    issued = certificate(ca.issue_broker(device_ca, ["broker.example", "192.0.2.7", "::1"], now=NOW))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "::1"]


def test_clients_and_broker_cannot_take_each_others_part(device_ca: ca.Issued) -> None:
    usages = [
        list(certificate(issued).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        for issued in (
            ca.issue_device(device_ca, CAR_7, now=NOW),
            ca.issue_server(device_ca, SITE, now=NOW),
            ca.issue_broker(device_ca, ["broker.example"], now=NOW),
        )
    ]
    client, server = [ExtendedKeyUsageOID.CLIENT_AUTH], [ExtendedKeyUsageOID.SERVER_AUTH]
    assert usages == [client, client, server]


def test_validity_begins_ten_minutes_ago_and_never_outlives_the_ca() -> None:
    short = ca.new_ca("short", now=NOW, days=10)
    five, twenty = (certificate(ca.issue_device(short, CAR_7, now=NOW, days=days)) for days in (5, 20))
    assert five.not_valid_before_utc == NOW - timedelta(minutes=10)
    assert five.not_valid_after_utc == NOW + timedelta(days=5)
    assert twenty.not_valid_after_utc == certificate(short).not_valid_after_utc == NOW + timedelta(days=10)


def test_serial_numbers_are_random(device_ca: ca.Issued) -> None:
    serials = {certificate(ca.issue_device(device_ca, CAR_7, now=NOW)).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert 100 < max(serial.bit_length() for serial in serials) <= ca.SERIAL_BITS


def test_a_certificate_points_to_its_cas_key(device_ca: ca.Issued) -> None:
    ski = certificate(device_ca).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issued = certificate(ca.issue_device(device_ca, CAR_7, now=NOW))
    aki = issued.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert aki.key_identifier == ski.digest


def test_what_is_no_ca_signs_nothing(device_ca: ca.Issued) -> None:
    device = ca.issue_device(device_ca, CAR_7, now=NOW)
    other = ca.new_ca("other", now=NOW)
    for wrong in (
        device,
        ca.Issued(device_ca.certificate_pem, other.key_pem),
        ca.Issued(b"", device_ca.key_pem),
        ca.Issued(device_ca.certificate_pem, b"-----BEGIN PRIVATE KEY-----\n"),
    ):
        with pytest.raises(ca.CaError):
            ca.issue_device(wrong, CAR_7, now=NOW)
    with pytest.raises(ca.CaError, match="at least one host"):
        ca.issue_broker(device_ca, [], now=NOW)


def test_a_revocation_list_names_the_revoked(device_ca: ca.Issued) -> None:
    lost, kept = (certificate(ca.issue_device(device_ca, CAR_7, now=NOW)) for _ in range(2))
    listed = x509.load_pem_x509_crl(ca.revocation_list(device_ca, [lost], now=NOW))
    assert listed.is_signature_valid(ca.Ca.load(device_ca).key.public_key())
    assert listed.get_revoked_certificate_by_serial_number(lost.serial_number) is not None
    assert listed.get_revoked_certificate_by_serial_number(kept.serial_number) is None


def test_no_key_shows_in_a_repr(device_ca: ca.Issued) -> None:
    assert "PRIVATE" not in repr(device_ca)
    assert "key" not in repr(ca.Ca.load(device_ca)).lower()


# a root that is offline, an intermediate, and leaves


@pytest.fixture(scope="module")
def root() -> ca.Issued:
    return ca.new_root("root", now=NOW)


@pytest.fixture(scope="module")
def intermediate(root: ca.Issued) -> ca.Issued:
    return ca.new_intermediate(root, "devices", now=NOW)


def test_each_of_a_chain_points_to_the_key_above_it(root: ca.Issued, intermediate: ca.Issued) -> None:
    leaf = certificate(ca.issue_device(intermediate, CAR_7, now=NOW))
    authority = certificate(intermediate)
    authority.verify_directly_issued_by(certificate(root))
    leaf.verify_directly_issued_by(authority)
    for made in (leaf, authority):
        assert made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier is not None
        assert made.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def test_an_intermediate_makes_no_further_authority(root: ca.Issued, intermediate: ca.Issued) -> None:
    def depth(made: ca.Issued) -> int | None:
        return certificate(made).extensions.get_extension_for_class(x509.BasicConstraints).value.path_length

    assert (depth(root), depth(intermediate)) == (1, 0)
    assert certificate(intermediate).not_valid_after_utc < certificate(root).not_valid_after_utc


def test_a_leaf_for_a_key_that_was_made_elsewhere(intermediate: ca.Issued) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    leaf = ca.sign_device(ca.Ca.load(intermediate), CAR_7, key, now=NOW)
    assert leaf.public_key() == key
    assert leaf.subject.rfc4514_string() == "CN=car-7"
    assert leaf.not_valid_after_utc == NOW + timedelta(days=ca.LEAF_DAYS)
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_curves_that_every_broker_knows(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve).public_key()
    assert ca.checked_key(key) == key


def test_long_rsa_keys_are_taken() -> None:
    key = rsa.generate_private_key(65_537, 2_048).public_key()
    assert ca.checked_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65_537, 1_024).public_key(),
        ec.generate_private_key(ec.SECP224R1()).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        dsa.generate_private_key(1_024).public_key(),
        None,
    ],
)
def test_other_keys_are_refused(key: object) -> None:
    with pytest.raises(ca.WeakKeyError, match="expected"):
        ca.checked_key(key)


class InToken(ec.EllipticCurvePrivateKey):
    """A key as a token shows it: it signs, and is never given away."""

    def __init__(self, inside: ec.EllipticCurvePrivateKey) -> None:
        self._inside = inside
        self.signed = 0

    def sign(self, data: object, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        self.signed += 1
        return self._inside.sign(data, signature_algorithm)  # type: ignore[arg-type]

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._inside.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._inside.curve

    @property
    def key_size(self) -> int:
        return self._inside.key_size

    def exchange(self, algorithm: object, peer_public_key: object) -> bytes:
        raise NotImplementedError

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise NotImplementedError

    def private_bytes(self, encoding: object, format: object, encryption_algorithm: object) -> bytes:  # noqa: A002
        raise NotImplementedError

    def __copy__(self) -> "InToken":
        return self

    def __deepcopy__(self, memo: object) -> "InToken":
        return self


def test_the_authoritys_key_need_not_be_in_a_file(intermediate: ca.Issued) -> None:
    loaded = ca.Ca.load(intermediate)
    token = InToken(loaded.key)
    authority = ca.Ca(loaded.certificate, token)
    leaf = ca.sign_device(authority, CAR_7, ec.generate_private_key(ec.SECP256R1()).public_key(), now=NOW)
    leaf.verify_directly_issued_by(loaded.certificate)
    until = NOW + timedelta(days=1)
    crl = ca.sign_revocations(authority, [ca.Revoked(leaf.serial_number, NOW)], updated=NOW, until=until)
    assert x509.load_pem_x509_crl(crl).is_signature_valid(loaded.certificate.public_key())  # type: ignore[arg-type]
    assert token.signed == 2
