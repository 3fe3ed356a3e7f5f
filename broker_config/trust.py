"""How whom a device obeys is changed: a chain of signed versions of ``signers.json``, as TUF's root.

A step is a DSSE envelope of a payload type of its own, so that it can never be taken for an order, around the next
``signers.json``, byte for byte. It counts only if enough of those sign it who may change the version before it, and
enough of those who may change the new one: who loses the keys cannot be locked out by who steals one, and a key that
comes in has to be held by somebody. Expiry is none: a device may have been in a drawer for years.

Source: https://theupdateframework.github.io/specification/latest/#update-root
"""

from typing import Final, NamedTuple

from broker_config import signing
from broker_config.limits import KIB
from broker_config.signing import CHANGE_SIGNERS, BadEnvelopeError, Candidate, Envelope, Roots
from broker_config.text import shown

STEP_TYPE: Final = "application/vnd.fieldfleet.signers.v1+json"
STEP_BYTES_MAX: Final = 64 * KIB
"""Of an envelope as JSON: 32 signers of Ed25519 take 10 KiB."""
STEPS_MAX: Final = 32
"""In one answer."""
ROTATIONS_MAX: Final = 256
"""Steps that a device takes in one go; as python-tuf's ``max_root_rotations``."""


class StepError(BadEnvelopeError):
    """Not the step that follows; nothing has changed."""


class Step(NamedTuple):
    """A step that could be read; whether it counts is another question. ``data``: the new ``signers.json``."""

    envelope: Envelope
    roots: Roots
    data: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that a signature covers."""
        return signing.pre_authentication(STEP_TYPE, self.data)


def read_step(data: bytes) -> Step:
    """Take a step apart.

    Raises:
        BadEnvelopeError: too large, another payload type, no signers, or bytes that :func:`signing.encode` would not
            have written: a name that is there twice may mean two things.
    """
    if len(data) > STEP_BYTES_MAX:
        raise StepError(f"expected at most {STEP_BYTES_MAX} bytes, got {len(data)}")
    return step_of(signing.decode_envelope(data))


def step_of(envelope: Envelope) -> Step:
    """What is inside, however many have signed it. Raises BadEnvelopeError: as :func:`read_step`."""
    if envelope.payload_type != STEP_TYPE:
        raise StepError(f"payload type: expected {STEP_TYPE}, got {shown(envelope.payload_type)!r}")
    roots = signing.decode_roots(envelope.payload)
    if signing.encode(roots) != envelope.payload:
        raise StepError("signers: expected each name once, in the contract's order and without blanks")
    return Step(envelope, roots, envelope.payload)


def candidates(step: Step, before: Roots) -> tuple[Candidate, ...]:
    """The signatures that are worth checking: of whoever may change *before*, or the new version."""
    return signing.among(step.envelope, {**step.roots.holders(CHANGE_SIGNERS), **before.holders(CHANGE_SIGNERS)})


def check_step(before: Roots, step: Step, verified: frozenset[str]) -> Roots:
    """The new version, if it follows *before*. *verified*: the keys whose signatures are right.

    Raises:
        StepError: it does not; says why.
    """
    check_follows(before, step.roots)
    for missing, roots in ((lacking(before, verified), before), (lacking(step.roots, verified), step.roots)):
        if missing:
            have = roots.changed_by - missing
            raise StepError(
                f"signers {step.roots.version}: expected {roots.changed_by} signatures of those who may change "
                f"version {roots.version}, got {have}"
            )
    return step.roots


def check_follows(before: Roots, after: Roots) -> None:
    """Whether *after* can be the version behind *before*, whoever signs it. Raises StepError."""
    if before.changed_by == 0:
        raise StepError(f"signers {before.version}: nobody may change them; the device has to enrol again")
    if after.changed_by == 0:
        raise StepError(f"signers {after.version}: nobody could change them any more")
    if after.site != before.site:
        raise StepError(f"site: expected {before.site[:8]}, got {after.site[:8]}")
    if after.version != before.version + 1:
        raise StepError(f"signers: expected version {before.version + 1}, got {after.version}")


def lacking(roots: Roots, verified: frozenset[str]) -> int:
    """How many signatures more a change by *roots* needs."""
    return max(0, roots.changed_by - len(roots.holders(CHANGE_SIGNERS).keys() & verified))
