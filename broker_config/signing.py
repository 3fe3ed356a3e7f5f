"""What a device obeys: signed envelopes, the claims inside them, and whose signatures count.

An order is a DSSE envelope (https://github.com/secure-systems-lab/dsse, protocol version 1) around the JSON of
:class:`Claims`. A signature covers :func:`pre_authentication` of the payload's type and bytes, so nothing that is
signed needs a canonical form to be checked. No signature is made or checked here: that takes a library which a
running agent has no room for.

Rule 1: what is inside the signed bytes is refused if a field is unknown; outside them it is ignored, as everywhere.
Rule 2: the signers are the device's own file, never a message's word; so is what a command can do to people.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from broker_config import limits
from broker_config.device_classes import CommandName, SafetyClass
from broker_config.ids import DEVICE_ID_PATTERN, HEX64_PATTERN, ContractError, DeviceId, SiteId, exact
from broker_config.telemetry import Hex, Stream, Text, Value
from broker_config.text import shown

PAYLOAD_TYPE: Final = "application/vnd.fieldfleet.claims.v1+json"
"""Of every envelope; another one is another protocol's, whoever signed it."""
ED25519: Final = "ed25519"
"""RFC 8032, over the pre-authentication bytes themselves; the public key is its 32 bytes."""
KEY_ID_CHARS: Final = 16
CHANGE_SIGNERS: Final = "signers"
"""Among a signer's kinds: it may change the signers themselves (:mod:`broker_config.trust`). No order is of it."""

ENVELOPE_BYTES_MAX: Final = 128 * limits.KIB
ROOTS_BYTES_MAX: Final = 64 * limits.KIB
SIGNATURES_MAX: Final = 8
SIGNATURE_BYTES_MAX: Final = 512
SIGNERS_MAX: Final = 32
PUBLIC_BYTES_MAX: Final = 1024
PARAMETERS_MAX: Final = 32
LIFETIME_MS_MAX: Final = 604_800_000
"""From issue to expiry: the longest that any command of a device class may wait."""
COUNTER_AHEAD_MS_MAX: Final = limits.CLOCK_AHEAD_MS_MAX
"""A counter follows the clock; one further ahead of it would lock out every later order."""
ISSUED_AHEAD_MS_MAX: Final = 30_000
"""Two clocks that are both set may differ by so much."""

KeyId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Whole: TypeAlias = Annotated[int, Meta(ge=-limits.SEQ_MAX, le=limits.SEQ_MAX)]
Counter: TypeAlias = Annotated[int, Meta(ge=1, le=limits.SEQ_MAX)]
At: TypeAlias = Annotated[int, Meta(ge=0, le=limits.TIME_MS_MAX)]
Target: TypeAlias = Annotated[DeviceId, Meta(pattern=exact(DEVICE_ID_PATTERN))]
Site: TypeAlias = Annotated[SiteId, Meta(pattern=exact(HEX64_PATTERN))]


class BadEnvelopeError(ContractError):
    """Not an envelope, claims, a command or signers of this contract, or outside their bounds."""


class TooLargeError(BadEnvelopeError):
    """More bytes than any order may have; nothing of it was read."""


class Kind(StrEnum):
    """What is ordered; each counts for itself."""

    TWIN = "twin"
    COMMAND = "command"
    FIRMWARE = "firmware"
    EVIDENCE_RECEIPT = "evidence_receipt"


class Refusal(StrEnum):
    """Why a device does not do it. Everything that is not known to be right is one of these."""

    BAD_SIGNATURE = "bad_signature"
    BUSY = "busy"
    CLOCK_NOT_SET = "clock_not_set"
    EXPIRED = "expired"
    MALFORMED = "malformed"
    NOT_FOR_THIS_DEVICE = "not_for_this_device"
    NOT_KEPT = "not_kept"
    """What was obeyed before is not known, or the counter cannot be written down: obeying might happen twice."""
    NOT_YET = "not_yet"
    REPLAYED = "replayed"
    TOO_FEW_SIGNERS = "too_few_signers"
    TOO_LARGE = "too_large"
    UNCHECKED = "unchecked"
    """The check itself could not be carried out."""
    UNKNOWN_KEY = "unknown_key"
    UNSUPPORTED = "unsupported"
    """Nothing that this device can do, whoever signed it."""
    WRONG_KIND = "wrong_kind"
    WRONG_SITE = "wrong_site"


# The envelope -------------------------------------------------------------------------------------------------------


class Signature(Struct, frozen=True):
    """``sig``: base64 in JSON. ``keyid`` only tells which key to try."""

    keyid: KeyId
    sig: Annotated[bytes, Meta(min_length=1, max_length=SIGNATURE_BYTES_MAX)]


class Envelope(Struct, frozen=True, rename={"payload_type": "payloadType"}):
    """``payload``: base64 in JSON."""

    payload: bytes
    payload_type: Annotated[str, Meta(max_length=128)]
    signatures: Annotated[tuple[Signature, ...], Meta(min_length=1, max_length=SIGNATURES_MAX)]


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's PAE, with lengths in bytes as decimal digits."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


# The claims ---------------------------------------------------------------------------------------------------------


class Claims(Struct, frozen=True, forbid_unknown_fields=True, tag_field="t", tag="claims"):
    """What is ordered, of whom, and until when it counts.

    ``counter``: ``max(last + 1, unix_ms)`` of who signs; a device obeys each kind in growing order only. ``body``:
    JSON of the kind, as the signer wrote it.
    """

    v: Literal[1]
    kind: Kind
    site: Site
    target: Target
    counter: Counter
    issued_ms: At
    expires_ms: At
    body: Raw


class Command(Struct, frozen=True, forbid_unknown_fields=True, tag_field="t", tag="command"):
    """The body of a ``command``. ``id``: what its status is told under."""

    v: Literal[1]
    id: Hex
    name: CommandName
    parameters: Annotated[dict[Stream, bool | Whole | Value | Text], Meta(max_length=PARAMETERS_MAX)] = {}


# Whose signatures count ---------------------------------------------------------------------------------------------


class Signer(Struct, frozen=True, forbid_unknown_fields=True):
    """A key that may sign orders of ``kinds``. ``public``: base64 in JSON. An ``algorithm`` that the device does not
    know makes no signature; a kind that it does not know is nothing to it.
    """

    keyid: KeyId
    algorithm: Annotated[str, Meta(min_length=1, max_length=32)]
    public: Annotated[bytes, Meta(min_length=1, max_length=PUBLIC_BYTES_MAX)]
    kinds: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=16)]


class Thresholds(Struct, frozen=True, forbid_unknown_fields=True):
    """How many different signers an order needs, by what it can do. ``signers``: how many of those that may change
    the signers a change needs; left out where nobody may.
    """

    harmless: Annotated[int, Meta(ge=1, le=SIGNATURES_MAX)] = 1
    disruptive: Annotated[int, Meta(ge=1, le=SIGNATURES_MAX)] = 1
    hazardous: Annotated[int, Meta(ge=2, le=SIGNATURES_MAX)] = 2
    signers: Annotated[int, Meta(ge=1, le=SIGNATURES_MAX)] | UnsetType = UNSET

    def of(self, safety_class: SafetyClass) -> int:
        """For one class."""
        match safety_class:
            case SafetyClass.HARMLESS:
                return self.harmless
            case SafetyClass.DISRUPTIVE:
                return self.disruptive
            case SafetyClass.HAZARDOUS:
                return self.hazardous


class Roots(Struct, frozen=True, forbid_unknown_fields=True, tag_field="t", tag="signers"):
    """``signers.json``: all that a device trusts to order it about. ``version`` grows with each change of it."""

    v: Literal[1]
    version: Annotated[int, Meta(ge=1, le=limits.SEQ_MAX)]
    site: Site
    signers: Annotated[tuple[Signer, ...], Meta(max_length=SIGNERS_MAX)]
    thresholds: Thresholds = Thresholds()

    def __post_init__(self) -> None:
        """One key under two names would count twice towards a threshold."""
        for signer in self.signers:
            if signer.keyid != key_id(signer.algorithm, signer.public):
                raise ValueError(f"signer {shown(signer.keyid)}: expected {key_id(signer.algorithm, signer.public)}")
        if len({signer.public for signer in self.signers}) < len(self.signers):
            raise ValueError("signers: a key is there twice")
        needed = self.changed_by
        if needed > len(self.holders(CHANGE_SIGNERS)):
            raise ValueError(f"thresholds: a change needs {needed} signers, more than may change anything")

    @property
    def changed_by(self) -> int:
        """How many signers a change of this needs; 0 if nobody may change it: the device has to enrol again."""
        return 0 if self.thresholds.signers is UNSET else self.thresholds.signers

    def holders(self, kind: str) -> dict[str, Signer]:
        """Key id -> whoever may sign *kind*, with an algorithm that we know."""
        return {each.keyid: each for each in self.signers if each.algorithm == ED25519 and kind in each.kinds}


def key_id(algorithm: str, public: bytes) -> str:
    """A key's name: the first hex digits of SHA-256 over algorithm, NUL, public key."""
    return sha256(b"%b\0%b" % (algorithm.encode(), public)).hexdigest()[:KEY_ID_CHARS]


class Candidate(NamedTuple):
    """A signature that is worth checking: its key is one of ours, and may sign this kind."""

    keyid: str
    algorithm: str
    public: bytes
    sig: bytes


def candidates(envelope: Envelope, roots: Roots, kind: Kind) -> tuple[Candidate, ...]:
    """At most one for each key: the first."""
    return among(envelope, roots.holders(kind))


def among(envelope: Envelope, holders: Mapping[str, Signer]) -> tuple[Candidate, ...]:
    """At most one signature for each of *holders* (key id -> signer): the first."""
    found: dict[str, Candidate] = {}
    for signature in envelope.signatures:
        signer = holders.get(signature.keyid)
        if signer is not None and signer.keyid not in found:
            found[signer.keyid] = Candidate(signer.keyid, signer.algorithm, signer.public, signature.sig)
    return tuple(found.values())


# The codec ----------------------------------------------------------------------------------------------------------

T = TypeVar("T")

_ENCODER: Final = msgspec.json.Encoder()
_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_CLAIMS: Final = msgspec.json.Decoder(Claims)
_COMMAND: Final = msgspec.json.Decoder(Command)
_ROOTS: Final = msgspec.json.Decoder(Roots)


def encode(value: Envelope | Claims | Command | Roots) -> bytes:
    """Its JSON; fields in the order of their declaration."""
    return _ENCODER.encode(value)


def decode_envelope(data: bytes) -> Envelope:
    """Read an envelope. Raises TooLargeError, BadEnvelopeError."""
    if len(data) > ENVELOPE_BYTES_MAX:
        raise TooLargeError(f"expected at most {ENVELOPE_BYTES_MAX} bytes, got {len(data)}")
    return _read(_ENVELOPE, data)


def decode_claims(envelope: Envelope) -> Claims:
    """Read what is inside.

    Raises:
        BadEnvelopeError: another payload type, no claims, or bytes that :func:`encode` would not have written: a name
            that is there twice may mean one thing to who signs and another to who obeys.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BadEnvelopeError(f"payload type: expected {PAYLOAD_TYPE}, got {shown(envelope.payload_type)!r}")
    claims = _read(_CLAIMS, envelope.payload)
    if encode(claims) != envelope.payload:
        raise BadEnvelopeError("claims: expected each name once, in the contract's order and without blanks")
    if not 0 < claims.expires_ms - claims.issued_ms <= LIFETIME_MS_MAX:
        raise BadEnvelopeError(f"claims: expected to expire within {LIFETIME_MS_MAX} ms of the issue")
    return claims


def decode_command(claims: Claims) -> Command:
    """Read the body of a command. Raises BadEnvelopeError."""
    return _read(_COMMAND, bytes(claims.body))


def decode_roots(data: bytes) -> Roots:
    """Read ``signers.json``. Raises TooLargeError, BadEnvelopeError."""
    if len(data) > ROOTS_BYTES_MAX:
        raise TooLargeError(f"expected at most {ROOTS_BYTES_MAX} bytes, got {len(data)}")
    return _read(_ROOTS, data)


def _read(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        if not data.isascii():
            data.decode()  # the decoder skips what it does not know without a look
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadEnvelopeError(shown(error)) from error


def safety_of(command: Command | None, commands: Mapping[str, SafetyClass]) -> SafetyClass:
    """What the order can do; *command* None: it is of another kind. *commands*: name -> class, as the device's own
    device class says; what it does not say is hazardous.
    """
    if command is None:
        return SafetyClass.DISRUPTIVE
    return commands.get(command.name, SafetyClass.HAZARDOUS)
