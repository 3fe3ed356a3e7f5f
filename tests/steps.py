"""Changes of the signers as whoever may makes them, and as somebody makes them who may not."""

from typing import Final

import msgspec

from broker_config import signing
from broker_config.signing import CHANGE_SIGNERS, ED25519, Envelope, Roots, Signer, Thresholds
from broker_config.trust import STEP_TYPE
from tests.orders import SECOND, SERVER, SITE, Key, signer

ROOT: Final = Key.of(4)
OTHER_ROOT: Final = Key.of(5)


def changer(key: Key) -> Signer:
    """Whoever may change the signers, and order nothing."""
    return Signer(key.keyid, ED25519, key.public, (CHANGE_SIGNERS,))


ROOTS: Final = Roots(1, 1, SITE, (signer(SERVER), changer(ROOT)), Thresholds(signers=1))
"""What a device has that has just enrolled."""


def after(roots: Roots, *signers: Signer, **changes: object) -> Roots:
    """The next version, with *signers* beside those that are there, but for *changes*."""
    good = {"version": roots.version + 1, "signers": (*roots.signers, *signers), **changes}
    return msgspec.structs.replace(roots, **good)


def step(roots: Roots, *keys: Key, payload_type: str = STEP_TYPE) -> bytes:
    """To *roots*, signed by *keys*."""
    payload = signing.encode(roots)
    return signing.encode(
        Envelope(payload, payload_type, tuple(key.signature(payload, payload_type) for key in keys))
    )


TWO: Final = after(ROOTS, signer(SECOND))
"""Version 2: another person may order."""
THREE: Final = after(TWO, changer(OTHER_ROOT), thresholds=Thresholds(signers=2))
"""Version 3: a change needs two."""
