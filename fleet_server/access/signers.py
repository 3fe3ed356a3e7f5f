"""The next version of whom devices obey: made here, signed by who may change it, one person after the other.

A proposal is a step (:mod:`broker_config.trust`) that has too few signatures yet. Rule: whoever signs, signs what
would follow the version that is in place; a proposal that another change has overtaken is made anew.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from broker_config import signing, trust
from broker_config.signing import (
    CHANGE_SIGNERS,
    ED25519,
    SIGNERS_MAX,
    BadEnvelopeError,
    Envelope,
    Kind,
    Roots,
    Signature,
)
from broker_config.text import shown
from broker_config.trust import STEP_TYPE, Step
from fleet_server.access.countersigning import verifies
from fleet_server.access.signing import RefusedError, SigningKey

KINDS: Final = frozenset({*(kind.value for kind in Kind), CHANGE_SIGNERS})
"""What a key can be let sign."""


def with_signer(roots: Roots, public: bytes, kinds: Iterable[str]) -> Roots:
    """The next version, where *public* may sign *kinds* too.

    Raises:
        RefusedError: it is there already, there is no room, or no kind that there is.
    """
    kinds = frozenset(kinds)
    keyid = signing.key_id(ED25519, public)
    if not kinds or kinds - KINDS:
        raise RefusedError(f"kinds: expected some of {', '.join(sorted(KINDS))}, got {shown(sorted(kinds))}")
    if any(signer.keyid == keyid for signer in roots.signers):
        raise RefusedError(f"signer {keyid}: is there already")
    if len(roots.signers) >= SIGNERS_MAX:
        raise RefusedError(f"signers: expected at most {SIGNERS_MAX}")
    added = signing.Signer(keyid, ED25519, public, tuple(sorted(kinds)))
    thresholds = roots.thresholds
    if CHANGE_SIGNERS in kinds and not roots.changed_by:
        thresholds = msgspec.structs.replace(thresholds, signers=1)
    return _next(roots, signers=(*roots.signers, added), thresholds=thresholds)


def without_signer(roots: Roots, keyid: str) -> Roots:
    """The next version, where *keyid* signs nothing. Raises RefusedError: it is none, or without it nobody could."""
    if all(signer.keyid != keyid for signer in roots.signers):
        known = ", ".join(signer.keyid for signer in roots.signers)
        raise RefusedError(f"signer: expected one of {known}, got {shown(keyid)!r}")
    return _next(roots, signers=tuple(signer for signer in roots.signers if signer.keyid != keyid))


def with_thresholds(roots: Roots, **needed: int) -> Roots:
    """The next version, where an order, or a change of the ``signers``, needs so many. Raises RefusedError."""
    try:
        thresholds = msgspec.convert({**msgspec.to_builtins(roots.thresholds), **needed}, signing.Thresholds)
    except msgspec.ValidationError as error:
        raise RefusedError(f"thresholds: {shown(error)}") from error
    return _next(roots, thresholds=thresholds)


def propose(before: Roots, after: Roots) -> Envelope:
    """*after* as nobody has signed it yet. Raises RefusedError: it cannot follow *before*."""
    try:
        trust.check_follows(before, after)
    except trust.StepError as error:
        raise RefusedError(str(error)) from error
    return Envelope(signing.encode(after), STEP_TYPE, ())


def sign(before: Roots, proposal: Envelope, key: SigningKey) -> Envelope:
    """*proposal* with *key*'s signature after those that are right; the others are left out.

    Raises:
        RefusedError: *key* may change neither version, or has signed already; it does not follow *before*.
    """
    step = _read(before, proposal)
    keyid = signing.key_id(key.algorithm, key.public)
    if keyid not in {**before.holders(CHANGE_SIGNERS), **step.roots.holders(CHANGE_SIGNERS)}:
        raise RefusedError(f"key {keyid}: may change neither version {before.version} nor {step.roots.version}")
    right = signed_by(before, step)
    if keyid in right:
        raise RefusedError(f"key {keyid}: has signed this; another person has to")
    kept = tuple(each for each in trust.candidates(step, before) if each.keyid in right)
    signatures = (*(Signature(each.keyid, each.sig) for each in kept), Signature(keyid, key.sign(step.signed)))
    return Envelope(proposal.payload, STEP_TYPE, signatures)


def missing(before: Roots, proposal: Envelope) -> int:
    """How many signatures it needs still. Raises RefusedError: it does not follow *before*."""
    step = _read(before, proposal)
    right = signed_by(before, step)
    return max(trust.lacking(before, right), trust.lacking(step.roots, right))


def signed_by(before: Roots, step: Step) -> frozenset[str]:
    """The key ids whose signatures are right, of those that may change either version."""
    found = trust.candidates(step, before)
    return frozenset(each.keyid for each in found if verifies(each.public, each.sig, step.signed))


def follow(before: Roots, data: bytes) -> Roots:
    """The version behind *before*, as a device takes it. Raises RefusedError."""
    try:
        step = trust.read_step(data)
        return trust.check_step(before, step, signed_by(before, step))
    except BadEnvelopeError as error:
        raise RefusedError(str(error)) from error


def _read(before: Roots, proposal: Envelope) -> Step:
    try:
        step = trust.step_of(proposal)
        trust.check_follows(before, step.roots)
    except BadEnvelopeError as error:
        raise RefusedError(f"proposal: {error}") from error
    return step


def _next(roots: Roots, **changes: object) -> Roots:
    try:
        # through the codec, so that what is not to be is refused
        made = msgspec.structs.replace(roots, version=roots.version + 1, **changes)
        return signing.decode_roots(signing.encode(made))
    except (ValueError, BadEnvelopeError) as error:
        raise RefusedError(f"signers: {shown(error)}") from error
