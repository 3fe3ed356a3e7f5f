"""Decides what is signed: the port of the signer, the port of its key, and the signer's own policy.

Whoever faces the broker asks for a signature and gets an envelope; the claims are the signer's: the site, the counter
and the times are never taken from who asks. Rule: a counter is durable before it is used (``reserve``), so that a
signer that died never uses one twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta, Raw, Struct

from broker_config import signing
from broker_config.ids import ContractError, DeviceId, SiteId
from broker_config.limits import KIB
from broker_config.signing import (
    LIFETIME_MS_MAX,
    PAYLOAD_TYPE,
    BadEnvelopeError,
    Claims,
    Command,
    Envelope,
    Kind,
    Signature,
    Target,
)
from broker_config.text import shown

BODY_BYTES_MAX: Final = 64 * KIB
"""As base64 in an envelope it stays well below what a device takes."""
RESERVED: Final = 10_000
"""Counters that one write to the disk makes usable: ten seconds of the clock, or so many signatures."""
ONLINE_KINDS: Final = frozenset({Kind.TWIN, Kind.COMMAND, Kind.EVIDENCE_RECEIPT})
"""What a key that is at hand may sign. Firmware is signed where no network reaches."""
BURST_MAX: Final = 20_000
"""Signatures in a row: a new configuration for the largest fleet."""
PER_S_MAX: Final = 500
"""Signatures a second after a burst."""


class SignerError(Exception):
    """No signature: the signer cannot be reached or cannot do it. Nothing was ordered."""


class RefusedError(SignerError):
    """The signer's policy says no."""


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """What to sign: an order of *kind* for one device. ``lifetime_ms``: from now until it is worth nothing."""

    kind: Kind
    target: Target
    lifetime_ms: Annotated[int, Meta(ge=1, le=LIFETIME_MS_MAX)]
    body: Raw


class Signer(Protocol):
    """Signs orders. May be called from any thread.

    Trusted: whoever can call it can make any device do anything that its kinds allow.
    """

    def sign(self, request: Request) -> bytes:
        """The envelope, as it goes to the device; its counter is higher than any before.

        Raises:
            RefusedError: policy.
            SignerError: it cannot.
        """


class BatchSigner(Signer, Protocol):
    """Signs many at once, at less cost for each."""

    def sign_all(self, requests: Sequence[Request]) -> Iterator[bytes]:
        """As :meth:`sign`, each as it is taken; what it raises ends it, and those before are good."""


class SigningKey(Protocol):
    """A private key that cannot be read out: a file's, or a hardware module's."""

    @property
    def algorithm(self) -> str:
        """As ``signers.json`` names it."""

    @property
    def public(self) -> bytes:
        """The public key, in the algorithm's own form."""

    def sign(self, data: bytes) -> bytes:
        """A signature of *data*. Raises SignerError."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the signer never does, whoever asks."""

    site: SiteId
    kinds: frozenset[Kind] = ONLINE_KINDS
    lifetime_ms_max: int = LIFETIME_MS_MAX
    burst_max: int = BURST_MAX
    per_s_max: int = PER_S_MAX


@dataclass(frozen=True, slots=True)
class State:
    """``last``: the highest counter ever used; one count for all devices and kinds, so that it grows for each.
    ``level``: signatures that may be made at once, as of ``at_ms`` of the monotonic clock.
    """

    last: int
    level: float
    at_ms: int


def decide(request: Request, state: State, policy: Policy, *, now_ms: int, mono_ms: int) -> tuple[Claims, State]:
    """The claims to sign, and the state after it.

    Raises:
        RefusedError: it is not signed, and the state is as it was.
    """
    if request.kind not in policy.kinds:
        raise RefusedError(f"kind: expected one of {', '.join(sorted(policy.kinds))}, got {request.kind}")
    if request.lifetime_ms > policy.lifetime_ms_max:
        raise RefusedError(f"lifetime: expected at most {policy.lifetime_ms_max} ms, got {request.lifetime_ms}")
    if len(bytes(request.body)) > BODY_BYTES_MAX:
        raise RefusedError(f"body: expected at most {BODY_BYTES_MAX} bytes, got {len(bytes(request.body))}")
    level = min(policy.burst_max, state.level + max(0, mono_ms - state.at_ms) * policy.per_s_max / 1000)
    if level < 1:
        raise RefusedError(f"rate: expected at most {policy.per_s_max} signatures a second")
    counter = max(state.last + 1, now_ms)
    expires_ms = now_ms + request.lifetime_ms
    claims = Claims(1, request.kind, policy.site, request.target, counter, now_ms, expires_ms, request.body)
    _checked(claims)
    return claims, State(counter, level - 1, mono_ms)


def _checked(claims: Claims) -> None:
    """What a device would not even read is not signed."""
    try:
        signing.decode_claims(Envelope(signing.encode(claims), PAYLOAD_TYPE, ()))
        if claims.kind is Kind.COMMAND:
            signing.decode_command(claims)
    except BadEnvelopeError as error:
        raise RefusedError(f"body: {error}") from error


class Issuer:
    """The signer itself. One caller at a time.

    ``reserve``: makes a counter durable, so that :attr:`last` begins there after a restart. Raises OSError.
    """

    def __init__(
        self,
        key: SigningKey,
        policy: Policy,
        *,
        last: int,
        reserve: Callable[[int], None],
    ) -> None:
        self._key = key
        self._policy = policy
        self._state = State(last, policy.burst_max, 0)
        self._reserved = last
        self._reserve = reserve
        self.keyid = signing.key_id(key.algorithm, key.public)

    def sign(self, request: Request, *, now_ms: int, mono_ms: int) -> Envelope:
        """See :meth:`Signer.sign`."""
        claims, state = decide(request, self._state, self._policy, now_ms=now_ms, mono_ms=mono_ms)
        if claims.counter > self._reserved:
            reserved = claims.counter + RESERVED
            try:
                self._reserve(reserved)
            except OSError as error:
                raise SignerError(f"the counter cannot be kept: {error.strerror}") from error
            self._reserved = reserved
        self._state = state
        payload = signing.encode(claims)
        signature = self._key.sign(signing.pre_authentication(PAYLOAD_TYPE, payload))
        return Envelope(payload, PAYLOAD_TYPE, (Signature(self.keyid, signature),))


def command_request(device: DeviceId, command: Command, *, lifetime_ms: int) -> Request:
    """What to ask of the signer for a command. Raises RefusedError: no lifetime that an order may have."""
    if not 1 <= lifetime_ms <= LIFETIME_MS_MAX:
        raise RefusedError(f"lifetime: expected 1 to {LIFETIME_MS_MAX} ms, got {lifetime_ms}")
    return Request(Kind.COMMAND, device, lifetime_ms, Raw(signing.encode(command)))


def read_request(data: bytes) -> Request:
    """A request as it goes over the socket. Raises RefusedError."""
    try:
        return msgspec.json.decode(data, type=Request)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ContractError) as error:
        raise RefusedError(f"not a request: {shown(error)}") from error
