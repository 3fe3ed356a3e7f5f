"""Claims and certificates of devices, and whether a request may have one. Pure: values, the time as an argument.

A claim is an operator's word that whoever knows its code is a certain device, once. From a request for a certificate
only the key counts, and the proof that it is held: every name in it is ignored. A renewal is proved by the old key.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broker_config.ids import ContractError
from broker_config.text import shown
from fleet_server.access.ca import RSA_BITS_MIN, DeviceKey, WeakKeyError, checked_key
from fleet_server.access.states import Reason, State

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
CLAIM_LIFE_MS: Final = HOUR_MS
CLAIM_LIFE_MS_MAX: Final = DAY_MS
CLAIMS_OPEN_MAX: Final = 20_000
"""That are good at once: a whole fleet may be unpacked in a day."""
NONCE_LIFE_MS: Final = 300_000
CURVE_NAMES: Final = {"secp256r1": "P-256", "secp384r1": "P-384"}
KEY_KINDS: Final = frozenset({*CURVE_NAMES.values(), "RSA"})
"""Keys that a device may have."""
CANARY: Final = "_canary"
"""Whom a certificate names that is made to be revoked; no device can be called so."""

_NONCE_TIME_CHARS: Final = 12
_NONCE_RANDOM_CHARS: Final = 16
_NONCE_MAC_CHARS: Final = 32


class EnrolmentError(ContractError):
    """No certificate for this; nothing has changed. The message says what would be taken."""


class BadRequestError(EnrolmentError):
    """Not a request for a certificate, or one whose key is not held by who asks."""


class ClaimError(EnrolmentError):
    """No such claim, or it is not good any more."""


class TooManyClaimsError(EnrolmentError):
    """More than CLAIMS_OPEN_MAX would be good at once."""


class SharedKeyError(EnrolmentError):
    """The key has a certificate already: each is made for one certificate of one device."""


class RenewalError(EnrolmentError):
    """The old certificate is not one that renews."""


class UnregisteredError(EnrolmentError):
    """The device is not, or no longer, registered."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Never its code. ``serial``: of the certificate that it was redeemed for. Times are ms since the epoch."""

    claim: str
    device: str
    made_by: str
    created_ms: int
    expires_ms: int
    redeemed_ms: int | None = None
    withdrawn_ms: int | None = None
    serial: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that was issued. ``serial``: 32 hex digits; ``fingerprint`` and ``key_digest``: SHA-256 of the certificate
    and of its key, whose sort is ``key_kind``. ``connected_ms``: when it was first seen in use, by a renewal that it
    proved.
    """

    serial: str
    device: str
    fingerprint: str
    key_digest: str
    issued_ms: int
    not_after_ms: int
    state: State = State.ACTIVE
    connected_ms: int | None = None
    revoked_ms: int | None = None
    reason: Reason | None = None
    key_kind: str = ""


def claim_digest(code: str) -> bytes:
    """What is kept of a code; 160 random bits need no slow hash."""
    return hashlib.sha256(code.encode("ascii", "replace")).digest()


def why_not(claim: Claim | None, *, now_ms: int) -> str | None:
    """Why a claim is not good now; None if it is."""
    if claim is None:
        return "there is no such claim"
    if claim.redeemed_ms is not None:
        return "the claim was used already"
    if claim.withdrawn_ms is not None:
        return "the claim was withdrawn"
    if claim.expires_ms <= now_ms:
        return "the claim has expired"
    return None


def read_csr(pem: str) -> DeviceKey:
    """The key that a certificate is asked for.

    Raises:
        BadRequestError: not a PKCS #10 request as PEM, or not signed by the key in it.
        WeakKeyError: see :func:`fleet_server.access.ca.checked_key`.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        held = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature, WeakKeyError) as error:
        raise BadRequestError(f"csr: expected a PKCS #10 request as PEM: {shown(error)}") from error
    except Exception as error:
        # an algorithm that the library does not know has an exception of its own
        raise BadRequestError(f"csr: expected a key of a known sort: {shown(error)}") from error
    checked = checked_key(key)
    if not held:
        raise BadRequestError("csr: expected the signature of the key that is in it")
    return checked


def described(leaf: x509.Certificate, device: str, *, now_ms: int) -> Certificate:
    """What is kept of a certificate."""
    return Certificate(
        serial=serial_text(leaf.serial_number),
        device=device,
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        key_digest=key_digest(leaf.public_key()),
        key_kind=key_kind(leaf.public_key()),
        issued_ms=now_ms,
        not_after_ms=int(leaf.not_valid_after_utc.timestamp() * 1000),
    )


def key_digest(key: object) -> str:
    """SHA-256 of a public key's DER, hex."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return hashlib.sha256(spki).hexdigest()


def key_kind(key: object) -> str:
    """One of KEY_KINDS, or what it is instead."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return CURVE_NAMES.get(key.curve.name, key.curve.name)
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA" if key.key_size >= RSA_BITS_MIN else f"RSA-{key.key_size}"
    return type(key).__name__


def serial_text(serial: int) -> str:
    """As it is kept and shown: 32 hex digits."""
    return f"{serial:032x}"


def read_leaf(pem: str, authorities: tuple[x509.Certificate, ...]) -> x509.Certificate:
    """A certificate that one of *authorities* signed.

    Raises:
        RenewalError: none.
    """
    try:
        leaf = x509.load_pem_x509_certificate(pem.encode("ascii"))
    except (ValueError, TypeError) as error:
        raise RenewalError("certificate: expected one as PEM") from error
    for authority in authorities:
        try:
            leaf.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return leaf
    raise RenewalError("certificate: expected one of this site's authority")


def name_of(leaf: x509.Certificate) -> str:
    """The device; empty if there is not exactly one."""
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def check_proof(leaf: x509.Certificate, proof: bytes, signature: bytes) -> None:
    """Raises RenewalError: not signed by the key of *leaf*."""
    if not signed_by(leaf, proof, signature):
        raise RenewalError("signature: expected the certificate's key over what is asked")


def signed_by(leaf: x509.Certificate, data: bytes, signature: bytes) -> bool:
    """Whether the key of *leaf* signed *data*: ECDSA (DER) or RSA (PKCS #1 v1.5), with SHA-256."""
    try:
        key = checked_key(leaf.public_key())
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, WeakKeyError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def check_renewal(kept: Certificate | None, leaf: x509.Certificate, *, now_ms: int, grace_ms: int) -> Certificate:
    """The old certificate as it is kept, if it may be followed by another.

    Raises:
        RenewalError: it is not known, superseded, revoked, or has been expired for longer than the grace.
    """
    again = "; have an operator make a claim, then: edge-agent enroll --again"
    if kept is None or kept.fingerprint != leaf.fingerprint(hashes.SHA256()).hex() or kept.device != name_of(leaf):
        raise RenewalError(f"certificate: this server did not issue it{again}")
    if kept.state is not State.ACTIVE:
        raise RenewalError(f"certificate: it is {kept.state}{again}")
    if now_ms >= kept.not_after_ms + grace_ms:
        ended = datetime.fromtimestamp(kept.not_after_ms / 1000, UTC)
        raise RenewalError(f"certificate: it expired on {ended:%Y-%m-%d}, too long ago{again}")
    return kept


def new_nonce(secret: bytes, randomness: bytes, *, now_ms: int) -> str:
    """What a renewal is signed over: the time, 64 random bits, and our MAC of both; nothing is stored."""
    head = f"{now_ms:012x}{randomness.hex()[:_NONCE_RANDOM_CHARS]:0>16}"
    return head + _nonce_mac(secret, head)


def check_nonce(secret: bytes, nonce: str, *, now_ms: int) -> None:
    """Raises RenewalError: not one of ours, or too old."""
    head, mac = nonce[:-_NONCE_MAC_CHARS], nonce[-_NONCE_MAC_CHARS:]
    genuine = len(head) == _NONCE_TIME_CHARS + _NONCE_RANDOM_CHARS and hmac.compare_digest(
        mac.encode("ascii", "replace"), _nonce_mac(secret, head).encode("ascii")
    )
    if not genuine or not 0 <= now_ms - int(head[:_NONCE_TIME_CHARS], 16) <= NONCE_LIFE_MS:
        raise RenewalError("nonce: expected one that this server gave in the last five minutes")


def _nonce_mac(secret: bytes, head: str) -> str:
    return hmac.new(secret, head.encode("ascii", "replace"), hashlib.sha256).hexdigest()[:_NONCE_MAC_CHARS]
