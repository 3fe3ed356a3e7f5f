"""Has the signature of an image checked in a child process, so that the library that checks is not in this one."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from broker_config.text import shown
from firmware_bridge.firmware.images import Fault, Image, RefusedError
from firmware_bridge.firmware.signatures import KEYS_MAX, SIGNATURES_MAX, Answer, Request, Signature

SECONDS_MAX: Final = 30.0


def check_signature(image: Image, keys: Sequence[str]) -> int:
    """Which of *keys* (PEM) signed *image*. Takes the time of a child: not for the thread of a loop.

    Raises:
        RefusedError: (wrongly signed) none of them did, or nobody could find out.
    """
    if not image.signatures:
        raise _wrongly("expected a signature of a pinned key, got an image without one")
    if not keys or len(keys) > KEYS_MAX or len(image.signatures) > SIGNATURES_MAX:
        raise _wrongly(f"expected 1 to {KEYS_MAX} pinned keys and as many signatures, got {len(keys)}")
    signatures = tuple(Signature(kind.name, sig) for kind, sig in image.signatures)
    request = msgspec.json.encode(Request(image.tlv_hash, tuple(keys), signatures))
    command = (sys.executable, "-I", "-m", "firmware_bridge.firmware.signatures")
    try:
        done = subprocess.run(  # noqa: S603  # our own module
            command, input=request, capture_output=True, timeout=SECONDS_MAX, check=True
        )
        answer = msgspec.json.decode(done.stdout, type=Answer)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        raise _wrongly(f"the signature could not be checked: {shown(error)}") from error
    if answer.by is None:
        unusable = f"; of these {len(answer.unusable)} are not public keys" if answer.unusable else ""
        kinds = ", ".join(signature.kind for signature in signatures)
        raise _wrongly(f"expected a signature of one of {len(keys)} pinned keys, got {kinds} of none{unusable}")
    return answer.by


def _wrongly(why: str) -> RefusedError:
    return RefusedError(Fault.WRONGLY_SIGNED, why)
