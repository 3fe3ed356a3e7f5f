"""What a device and the server say to each other while the device gets, or renews, its identity: JSON over HTTPS.

The listener shows the site's server certificate; the device proves itself by a claim, later by its old key. All of it
is PEM, hex or base64 in JSON, so that an agent in another language needs an HTTP client and nothing of ours.
"""

import base64
import re
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from broker_config import limits
from broker_config.ids import DEVICE_ID_PATTERN, ContractError, exact
from broker_config.trust import STEP_BYTES_MAX, STEPS_MAX

ENROLL_PATH: Final = "/enroll"
NONCE_PATH: Final = "/nonce"
RENEW_PATH: Final = "/renew"
TRUST_PATH: Final = "/trust"
UPLOADS_PATH: Final = "/uploads"
SESSION_PATH: Final = "/uploads/session"
PUT_BYTES_MAX: Final = 4_194_304
"""Chunks in one request."""
REQUEST_BYTES_MAX: Final = 16_384
ANSWER_BYTES_MAX: Final = 131_072
TRUST_ANSWER_BYTES_MAX: Final = 2 * STEP_BYTES_MAX
"""A few steps, or the largest one, whose quotes are escaped once more, and the keys beside them."""
CLAIM_PREFIX: Final = "ffc_"
"""So that a leaked code is found by its beginning."""
CLAIM_BYTES: Final = 20
PROOF_CONTEXT: Final = b"fieldfleet renew 1\0"
SESSION_CONTEXT: Final = b"fieldfleet uploads 1\0"
TRUST_CONTEXT: Final = b"fieldfleet trust 1\0"

_CLAIM_PATTERN: Final = r"^ffc_[a-z2-7]{32}\Z"
_CLAIM: Final = re.compile(_CLAIM_PATTERN)

Pem = Annotated[str, Meta(min_length=1, max_length=8_192)]
Nonce = Annotated[str, Meta(pattern=r"^[0-9a-f]{16,128}\Z")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class EnrollRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /enroll``. Of the request for a certificate only the key and the proof that it is held count."""

    claim: Annotated[str, Meta(pattern=_CLAIM_PATTERN)]
    csr: Pem


class NonceAnswer(Struct, frozen=True):
    """``GET /nonce``: what a renewal's proof has in it, good for some minutes."""

    nonce: Nonce


class RenewRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /renew``. ``signature``: by the old certificate's key over :func:`renewal_proof`, SHA-256, base64; ECDSA
    or PKCS #1 v1.5.
    """

    certificate: Pem
    csr: Pem
    nonce: Nonce
    signature: Annotated[str, Meta(min_length=1, max_length=1_024)]


class TrustRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /trust``. ``signature``: by the certificate's key over :func:`trust_proof`, as a renewal's. ``version``:
    of the ``signers.json`` that the device has, 0 if none; ``kid``: of its MAC keys.
    """

    certificate: Pem
    nonce: Nonce
    signature: Annotated[str, Meta(min_length=1, max_length=1_024)]
    version: Annotated[int, Meta(ge=0, le=limits.SEQ_MAX)]
    kid: Annotated[str, Meta(max_length=64)]


class SessionRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /uploads/session``. ``signature``: by the certificate's key over :func:`session_proof`, as before."""

    certificate: Pem
    nonce: Nonce
    signature: Annotated[str, Meta(min_length=1, max_length=1_024)]


class SessionAnswer(Struct, frozen=True):
    """``session``: a bearer's token for uploads and releases, for so long."""

    session: Annotated[str, Meta(min_length=1, max_length=256)]
    expires_s: Annotated[int, Meta(ge=1)]


R = TypeVar("R", EnrollRequest, RenewRequest, TrustRequest, SessionRequest)


class BrokerPlace(Struct, frozen=True):
    """Where the broker is."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)]


class MacKeys(Struct, frozen=True):
    """The device's ``mac.json``."""

    kid: Annotated[str, Meta(min_length=1, max_length=64)]
    receipt: Hex32
    time: Hex32

    def __repr__(self) -> str:
        return f"MacKeys(kid={self.kid!r})"


class Enrolled(Struct, frozen=True, omit_defaults=True):
    """The answer to a claim and to a renewal.

    ``chain``: what stands above ``certificate``, the root last. ``server_ca``: who vouches for the broker.
    ``signers``: the ``signers.json`` of the site, whose signatures the device obeys; empty if it has none.
    ``release_root``: TUF's root, whose signatures of releases count; empty if nobody releases.
    """

    device: Annotated[str, Meta(pattern=exact(DEVICE_ID_PATTERN))]
    device_class: str
    profile: str
    certificate: Pem
    chain: Annotated[str, Meta(max_length=32_768)]
    server_ca: Annotated[str, Meta(max_length=32_768)]
    broker: BrokerPlace
    mac: MacKeys
    signers: Annotated[str, Meta(max_length=65_536)] = ""
    release_root: Annotated[str, Meta(max_length=limits.RELEASE_ROOT_BYTES_MAX)] = ""


class TrustAnswer(Struct, frozen=True, omit_defaults=True):
    """What the device lacks. ``steps``: signed changes of the signers (:mod:`broker_config.trust`), each the JSON of
    its envelope, from ``version`` + 1 on without holes; as many as fit, so ask again until there are none. ``mac``:
    left out if the device has the current keys.
    """

    steps: Annotated[tuple[Annotated[str, Meta(max_length=STEP_BYTES_MAX)], ...], Meta(max_length=STEPS_MAX)] = ()
    mac: MacKeys | None = None


def claim_text(secret: bytes) -> str:
    """160 bits as people may have to type them."""
    assert len(secret) == CLAIM_BYTES
    return CLAIM_PREFIX + base64.b32encode(secret).decode("ascii").lower()


def is_claim(text: str) -> bool:
    """Whether *text* can be one."""
    return _CLAIM.match(text) is not None


def claim_link(url: str, claim: str) -> str:
    """What a QR code says: where to go and with what. What follows ``#`` is never sent to a server by a browser."""
    return f"{url}{ENROLL_PATH}#{claim}"


def renewal_proof(nonce: str, csr: str) -> bytes:
    """The bytes that the old key signs."""
    return PROOF_CONTEXT + nonce.encode("ascii") + b"\0" + csr.encode("ascii", "replace")


def trust_proof(nonce: str, version: int, kid: str) -> bytes:
    """The bytes that the device's key signs."""
    return TRUST_CONTEXT + b"%b\0%d\0%b" % (nonce.encode("ascii"), version, kid.encode())


def session_proof(nonce: str) -> bytes:
    """The bytes that the device's key signs."""
    return SESSION_CONTEXT + nonce.encode("ascii")


def decode_signature(text: str) -> bytes:
    """Raises ContractError: not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ContractError("signature: expected base64") from error


def decode_request(body: bytes, kind: type[R]) -> R:
    """Raises ContractError: not what was expected."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ContractError(str(error)) from error
