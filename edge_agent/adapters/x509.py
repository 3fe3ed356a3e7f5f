"""Keys and requests for certificates. Loads ``cryptography``: for commands and short-lived children, and never in the
agent that runs.
"""

import base64
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class NewKey(NamedTuple):
    """A private key, and the request that proves it; both PEM."""

    key_pem: bytes
    csr_pem: str


class Life(NamedTuple):
    """Of a certificate; seconds since the epoch."""

    serial: int
    not_before_s: float
    not_after_s: float


class BadIdentityError(Exception):
    """A file is no certificate or no key that we know."""


def new_key() -> NewKey:
    """P-256, which every broker knows. The request names nobody: the server knows who it is for."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return NewKey(pem, csr.public_bytes(Encoding.PEM).decode("ascii"))


def life(cert_pem: bytes) -> Life:
    """Raises BadIdentityError."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
    except ValueError as error:
        raise BadIdentityError(f"not a certificate: {error}") from error
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Life(certificate.serial_number, begin.timestamp(), end.timestamp())


def presented(certificate: str, chain: str) -> bytes:
    """A certificate file as a broker is shown it: *certificate*, then what of *chain* stands below the root. So an
    authority that is new to the broker counts there by the root that it knows.

    Raises BadIdentityError.
    """
    try:
        above = x509.load_pem_x509_certificates(chain.encode("ascii"))
    except ValueError as error:
        raise BadIdentityError(f"not a chain of certificates: {error}") from error
    between = [each.public_bytes(Encoding.PEM) for each in above if each.issuer != each.subject]
    return b"".join([certificate.encode("ascii"), *between])


def first(cert_pem: bytes) -> str:
    """The certificate itself, of a file that has its issuer behind it. Raises BadIdentityError."""
    try:
        return x509.load_pem_x509_certificate(cert_pem).public_bytes(Encoding.PEM).decode("ascii")
    except ValueError as error:
        raise BadIdentityError(f"not a certificate: {error}") from error


def is_pair(cert_pem: bytes, key_pem: bytes) -> bool:
    """Whether the certificate is the key's."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
        return load_pem_private_key(key_pem, None).public_key() == certificate.public_key()
    except (ValueError, TypeError):
        return False


def prove(key_pem: bytes, proof: bytes) -> str:
    """What the enrolment listener checks with the certificate, base64. Raises BadIdentityError."""
    return base64.b64encode(sign(key_pem, proof)).decode("ascii")


def sign(key_pem: bytes, data: bytes) -> bytes:
    """SHA-256 with what the key is: ECDSA (DER) or RSA (PKCS #1 v1.5). Raises BadIdentityError."""
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise BadIdentityError(f"not a key: {error}") from error
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    raise BadIdentityError("expected an elliptic-curve or RSA key")
