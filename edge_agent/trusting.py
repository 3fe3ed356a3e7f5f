"""Whom the device obeys, and the keys of its receipts, brought up to date: part of the renewal's child.

What the listener says of the signers counts for nothing: each step is checked against the version that the device has
(:mod:`broker_config.trust`). The file takes the place of the one before it in one step, and is never followed by a
lower version, so neither a power cut nor a server takes a device back. The MAC keys are the listener's word, as at
enrolment.
"""

import msgspec

from broker_config import trust
from broker_config.enrolment import MacKeys, TrustRequest, trust_proof
from broker_config.signing import BadEnvelopeError, Roots
from broker_config.trust import ROTATIONS_MAX, STEPS_MAX
from edge_agent.adapters import files, x509
from edge_agent.adapters.enrolment import EnrolmentError, Listener
from edge_agent.config import Settings
from edge_agent.identity import PUBLIC, SECRET, Pair, Write
from edge_agent.verify import Check, Request, verified


def refresh(settings: Settings, listener: Listener, own: Pair) -> bool:
    """Ask until there is nothing newer; whether anything has changed. The identity is held by who calls.

    Raises:
        EnrolmentError: no answer, or a step that does not follow; the steps before it count.
        OSError, BadKeysError, BadIdentityError: a file cannot be read or written.
    """
    changed = False
    for _ in range(ROTATIONS_MAX):
        roots = None if settings.signers_file is None else files.read_signers(settings.signers_file)
        kid = files.read_keys(settings.mac_file).receipt.kid
        version, nonce = 0 if roots is None else roots.version, listener.nonce()
        proof = x509.prove(own.key_file.read_bytes(), trust_proof(nonce, version, kid))
        certificate = own.cert_file.read_text(encoding="ascii")
        answer = listener.trust(TrustRequest(certificate, nonce, proof, version, kid))
        if answer is None:
            return changed
        newer = answer.mac is not None and answer.mac.kid != kid
        if answer.mac is not None and newer:
            files.carry_out(keys_file(settings, answer.mac))
        if roots is not None:
            for data in answer.steps[:STEPS_MAX]:
                roots = _follow(settings, roots, data.encode())
        changed |= newer or (roots is not None and roots.version != version)
        if roots is None or roots.version == version:
            break
    return changed


def keys_file(settings: Settings, mac: MacKeys) -> Write:
    """The device's ``mac.json``."""
    return Write(settings.mac_file, msgspec.json.encode(mac) + b"\n", SECRET)


def _follow(settings: Settings, roots: Roots, data: bytes) -> Roots:
    """Take one step; durable once it returns."""
    assert settings.signers_file is not None
    try:
        step = trust.read_step(data)
        checks = tuple(Check(*each) for each in trust.candidates(step, roots))
        after = trust.check_step(roots, step, frozenset(verified(Request(step.signed, checks))))
    except BadEnvelopeError as error:
        raise EnrolmentError(f"the server's signers are refused: {error}") from error
    files.carry_out(Write(settings.signers_file, step.data, PUBLIC))
    return after
