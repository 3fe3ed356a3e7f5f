"""The site's certificate authorities, and what they sign: values in, PEM out, the time as an argument.

The device CA signs devices and nothing else. The server CA signs the fleet server's client certificate and the
broker's own. So a device's certificate is worth nothing on the server's listener, nor a server's on the devices'.

For devices there are two: a root whose key is offline, and an intermediate that the root has signed and the server
works with. Sites made before have one that signed itself, which does as well for everything here. After a rollover
there are former intermediates too: they sign nobody any more, but their lists of the revoked.
"""

import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_config.ids import SERVER_COMMON_NAME, SERVER_ORGANISATION, DeviceId, SiteId

SERIAL_BITS: Final = 128
BACKDATED: Final = timedelta(minutes=10)
"""A certificate is valid from a little earlier, for clocks that are behind."""
CA_DAYS: Final = 3_650
INTERMEDIATE_DAYS: Final = 1_825
DEVICE_DAYS: Final = 825
"""Of a bench's device, which has nobody to renew it."""
LEAF_DAYS: Final = 30
"""Of a device that was enrolled, and renews itself."""
SERVER_DAYS: Final = 825
BROKER_DAYS: Final = 825
CRL_DAYS: Final = 30
"""A broker refuses every device once its revocation list is older than this."""
ROOT_CRL_DAYS: Final = CA_DAYS
"""The root's key is offline, so its list, of intermediates, is signed for as long as the root is."""
RSA_BITS_MIN: Final = 2_048
CURVES: Final = (ec.SECP256R1, ec.SECP384R1)

DeviceKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
"""What a device may have."""


class CaError(ValueError):
    """What was given is no CA of this kind; nothing was signed."""


class KeyUnreachableError(CaError):
    """The key is in a token that cannot be used now; says what to do. Nothing was signed."""


class WeakKeyError(CaError):
    """A key that can be broken, or of a sort that a broker need not know."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key (PKCS #8, not encrypted), both PEM.

    Of an authority whose key is in a token there is its ``pkcs11:`` URI instead of the key.
    """

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ca:
    """A certificate that may sign others, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    """May stand for one in a token: only ``sign`` and ``public_key`` are ever asked of it."""

    @property
    def certificate_pem(self) -> bytes:
        """Of its certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    @classmethod
    def load(cls, issued: Issued) -> "Ca":
        """Read what :func:`new_ca` made.

        Raises:
            CaError: not PEM, not a CA, not an elliptic-curve key, or a key that is not the certificate's.
        """
        try:
            key = load_pem_private_key(issued.key_pem, password=None)
        except (ValueError, TypeError) as error:
            raise CaError(f"CA: expected a CA certificate and its key as PEM: {error}") from error
        return cls.of(issued.certificate_pem, key)

    @classmethod
    def of(cls, certificate_pem: bytes, key: object) -> "Ca":
        """As :meth:`load`, for a key that is at hand already, or stands for one in a token."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, x509.ExtensionNotFound) as error:
            raise CaError(f"CA: expected a CA certificate as PEM: {error}") from error
        if not constraints.ca:
            raise CaError(f"CA: {certificate.subject.rfc4514_string()} may not sign certificates")
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CaError("CA: the key is not the certificate's")
        return cls(certificate, key)


class Former(NamedTuple):
    """An authority that signed devices once. ``ca``: None if its key is gone, so that it revokes nobody any more."""

    certificate: x509.Certificate
    ca: Ca | None


class Keys(Protocol):
    """Where the authority's key is: in a file, or in a token (PKCS #11) that never gives it away.

    Any thread may call. Trusted: whoever can sign here can be any device.
    """

    def authority(self) -> Ca:
        """The one that signs devices now. Raises CaError: it cannot be had."""

    def chain(self) -> tuple[x509.Certificate, ...]:
        """What stands above a device: the authority first, the root last."""

    def former(self) -> tuple[Former, ...]:
        """Those whose devices still count: they connect, renew, and are revoked. Until each is retired."""


def authorities(keys: Keys) -> tuple[Ca, ...]:
    """All that can sign a list of the revoked, who signs devices now first. Raises CaError."""
    return (keys.authority(), *(each.ca for each in keys.former() if each.ca is not None))


def vouching(keys: Keys) -> tuple[x509.Certificate, ...]:
    """All whose devices may renew."""
    return (*keys.chain(), *(each.certificate for each in keys.former()))


def new_root(common_name: str, *, now: datetime, days: int = CA_DAYS) -> Issued:
    """Make a self-signed CA that may sign one level of others; its key is then put away."""
    key = _new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    not_after = now + timedelta(days=days)
    builder = _authority(_builder(name, name, key.public_key(), now=now, not_after=not_after), path_length=1)
    return _issued(builder.sign(key, hashes.SHA256()), key)


def new_intermediate(root: Issued, common_name: str, *, now: datetime, days: int = INTERMEDIATE_DAYS) -> Issued:
    """Make a CA that *root* vouches for, and that may sign end certificates only.

    Raises:
        CaError: *root* is none.
    """
    key = _new_key()
    return _issued(sign_intermediate(Ca.load(root), common_name, key.public_key(), now=now, days=days), key)


def sign_intermediate(
    root: Ca, common_name: str, key: ec.EllipticCurvePublicKey, *, now: datetime, days: int = INTERMEDIATE_DAYS
) -> x509.Certificate:
    """As :func:`new_intermediate`, for a key that was made elsewhere."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    not_after = min(now + timedelta(days=days), root.certificate.not_valid_after_utc)
    builder = _builder(name, root.certificate.subject, key, now=now, not_after=not_after)
    unsigned = _authority(builder, path_length=0).add_extension(_issuer_key(root), critical=False)
    return unsigned.sign(root.key, hashes.SHA256())


def new_ca(common_name: str, *, now: datetime, days: int = CA_DAYS) -> Issued:
    """Make a self-signed CA that may sign end certificates only. *now* is aware of its time zone."""
    key = _new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    not_after = now + timedelta(days=days)
    builder = _authority(_builder(name, name, key.public_key(), now=now, not_after=not_after), path_length=0)
    return _issued(builder.sign(key, hashes.SHA256()), key)


def issue_device(ca: Issued | Ca, device: DeviceId, *, now: datetime, days: int = DEVICE_DAYS) -> Issued:
    """Sign a device: its common name is its id, which is all that the broker knows of it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    return _issue(ca, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now=now, days=days)


def sign_device(
    ca: Ca, device: str, key: DeviceKey, *, now: datetime, life: timedelta = timedelta(days=LEAF_DAYS)
) -> x509.Certificate:
    """A leaf for a key that was made elsewhere, named *device*; see :func:`checked_key`."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    return _end(ca, subject, ExtendedKeyUsageOID.CLIENT_AUTH, key, now=now, life=life, names=None)


def new_device(ca: Ca, device: str, *, now: datetime, life: timedelta) -> Issued:
    """As :func:`sign_device`, for a key that is made here."""
    key = _new_key()
    return _issued(sign_device(ca, device, key.public_key(), now=now, life=life), key)


def with_issuer(leaf: Issued, issuer: x509.Certificate) -> Issued:
    """As a device shows it: its authority behind it, so that a broker needs to know the root alone."""
    return Issued(leaf.certificate_pem + issuer.public_bytes(Encoding.PEM), leaf.key_pem)


def checked_key(key: object) -> DeviceKey:
    """*key* if a device may have it.

    Raises:
        WeakKeyError: neither P-256, P-384, nor RSA of 2,048 bits or more.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, CURVES):
            return key
        raise WeakKeyError(f"key: expected P-256, P-384, or RSA of {RSA_BITS_MIN} bits, got {key.curve.name}")
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size >= RSA_BITS_MIN:
            return key
        raise WeakKeyError(f"key: expected RSA of {RSA_BITS_MIN} bits or more, got {key.key_size}")
    raise WeakKeyError(f"key: expected P-256, P-384, or RSA of {RSA_BITS_MIN} bits, got another sort")


def issue_server(ca: Issued, site: SiteId, *, now: datetime, days: int = SERVER_DAYS) -> Issued:
    """Sign the fleet server's client certificate; its subject is :func:`broker_config.ids.server_user`."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, SERVER_COMMON_NAME),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SERVER_ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, site),
        ]
    )
    return _issue(ca, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now=now, days=days)


def issue_broker(ca: Issued, hosts: Sequence[str], *, now: datetime, days: int = BROKER_DAYS) -> Issued:
    """Sign the broker's own certificate for *hosts*: DNS names and IP addresses that clients connect to.

    Raises:
        CaError: *hosts* is empty: no client would accept the certificate.
    """
    if not hosts:
        raise CaError("broker certificate: expected at least one host name or address, got none")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fieldfleet broker")])
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    return _issue(ca, subject, ExtendedKeyUsageOID.SERVER_AUTH, now=now, days=days, names=names)


class Revoked(NamedTuple):
    """One entry of a revocation list."""

    serial: int
    at: datetime


def revocation_list(ca: Issued, revoked: Iterable[x509.Certificate], *, now: datetime, days: int = CRL_DAYS) -> bytes:
    """Sign the list of certificates that the broker must refuse, PEM; an empty list is a list too."""
    entries = [Revoked(certificate.serial_number, now) for certificate in revoked]
    return sign_revocations(Ca.load(ca), entries, updated=now - BACKDATED, until=now + timedelta(days=days))


def sign_revocations(ca: Ca, revoked: Iterable[Revoked], *, updated: datetime, until: datetime) -> bytes:
    """The list, PEM. Of two lists a broker believes the one that was *updated* last, to the second."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(updated)
        .next_update(until)
        .add_extension(_issuer_key(ca), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.at).build()
        )
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _issue(
    ca: Issued | Ca,
    subject: x509.Name,
    usage: x509.ObjectIdentifier,
    *,
    now: datetime,
    days: int,
    names: x509.SubjectAlternativeName | None = None,
) -> Issued:
    key = _new_key()
    life = timedelta(days=days)
    authority = Ca.load(ca) if isinstance(ca, Issued) else ca
    return _issued(_end(authority, subject, usage, key.public_key(), now=now, life=life, names=names), key)


def _end(
    ca: Ca,
    subject: x509.Name,
    usage: x509.ObjectIdentifier,
    key: DeviceKey,
    *,
    now: datetime,
    life: timedelta,
    names: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    # A certificate that outlives its CA fails on a day that nobody has in the calendar.
    not_after = min(now + life, ca.certificate.not_valid_after_utc)
    builder = (
        _builder(subject, ca.certificate.subject, key, now=now, not_after=not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_issuer_key(ca), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(ca.key, hashes.SHA256())


def _authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=path_length), critical=True
    ).add_extension(_key_usage(signs_certificates=True), critical=True)


def _issuer_key(ca: Ca) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: DeviceKey, *, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(secrets.randbits(SERIAL_BITS) or 1)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def certificate_of(issued: Issued) -> x509.Certificate:
    """As the library has it. Raises ValueError: not PEM."""
    return x509.load_pem_x509_certificate(issued.certificate_pem)


def common_name_of(certificate: x509.Certificate) -> str:
    """Of its subject; empty if it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
