"""The second person: whose key is trusted besides the signer's, and what a second signature is put under.

The order stays as the signer made it, down to the byte; a signature is added. Rule: nobody signs what they cannot
read, what is worth nothing any more, or what the first signer did not sign.
"""

import base64
import binascii
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker_config import signing
from broker_config.signing import (
    ED25519,
    PAYLOAD_TYPE,
    SIGNATURES_MAX,
    BadEnvelopeError,
    Claims,
    Command,
    Envelope,
    Kind,
    Roots,
    Signature,
)
from broker_config.text import shown
from fleet_server.access.signing import RefusedError, SigningKey

ED25519_BYTES: Final = 32
PUBLIC_PREFIX: Final = f"{ED25519}:"
"""Before the base64 of a public key, as people send it to each other."""


class Order(NamedTuple):
    """An order that counts. ``command``: None of every other kind. ``keyids``: whose signatures are right."""

    claims: Claims
    command: Command | None
    keyids: tuple[str, ...]


def public_text(public: bytes) -> str:
    """``ed25519:`` and the base64 of its 32 bytes."""
    return PUBLIC_PREFIX + base64.b64encode(public).decode("ascii")


def read_public(text: str) -> bytes:
    """The reverse of :func:`public_text`. Raises RefusedError."""
    try:
        public = base64.b64decode(text.removeprefix(PUBLIC_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        public = b""
    if not text.startswith(PUBLIC_PREFIX) or len(public) != ED25519_BYTES:
        expected = f"{PUBLIC_PREFIX}, then {ED25519_BYTES} bytes in base64"
        raise RefusedError(f"public key: expected {expected}, got {shown(text)!r}")
    return public


def read(envelope: Envelope, roots: Roots, *, now_ms: int) -> Order:
    """What is ordered, for a person to look at.

    Raises:
        RefusedError: it is no order of this site, it has expired, or none of *roots* signed it.
    """
    try:
        claims = signing.decode_claims(envelope)
        command = signing.decode_command(claims) if claims.kind is Kind.COMMAND else None
    except BadEnvelopeError as error:
        raise RefusedError(f"order: {error}") from error
    if claims.site != roots.site:
        raise RefusedError(f"site: expected {roots.site[:8]}, got {claims.site[:8]}")
    if now_ms >= claims.expires_ms:
        raise RefusedError(f"order: expired {now_ms - claims.expires_ms} ms ago; have it signed anew")
    signed = signing.pre_authentication(PAYLOAD_TYPE, envelope.payload)
    found = signing.candidates(envelope, roots, claims.kind)
    keyids = tuple(each.keyid for each in found if verifies(each.public, each.sig, signed))
    if not keyids:
        raise RefusedError("order: expected a signature of a signer of this site, got none that is right")
    return Order(claims, command, keyids)


def countersign(envelope: Envelope, roots: Roots, key: SigningKey, *, now_ms: int) -> Envelope:
    """*envelope* with *key*'s signature after those that are right; the others are left out.

    Raises:
        RefusedError: as :func:`read`; *key* may not sign this, or has.
    """
    order = read(envelope, roots, now_ms=now_ms)
    keyid = signing.key_id(key.algorithm, key.public)
    signer = next((each for each in roots.signers if each.keyid == keyid), None)
    if signer is None:
        raise RefusedError(f"key {keyid}: is no signer of version {roots.version}; fleet-server add-signer adds it")
    if order.claims.kind.value not in signer.kinds:
        raise RefusedError(f"key {keyid}: may sign {', '.join(signer.kinds)}, not {order.claims.kind}")
    if keyid in order.keyids:
        raise RefusedError(f"key {keyid}: has signed this; another person has to")
    if len(order.keyids) >= SIGNATURES_MAX:
        raise RefusedError(f"signatures: expected at most {SIGNATURES_MAX}")
    signature = Signature(keyid, key.sign(signing.pre_authentication(PAYLOAD_TYPE, envelope.payload)))
    right = _first_of_each(envelope, order.keyids)
    return Envelope(envelope.payload, PAYLOAD_TYPE, (*right, signature))


def _first_of_each(envelope: Envelope, keyids: tuple[str, ...]) -> tuple[Signature, ...]:
    # the first is the one that was looked at
    return tuple(next(each for each in envelope.signatures if each.keyid == keyid) for keyid in keyids)


def verifies(public: bytes, sig: bytes, signed: bytes) -> bool:
    """Whether an Ed25519 signature is right."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(sig, signed)
    except (InvalidSignature, ValueError):
        return False
    return True
