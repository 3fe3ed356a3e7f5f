"""Checks signatures: ``python -m edge_agent.verify`` reads one request on stdin, answers one line, and ends.

A process of its own, because the library that checks takes a quarter of what the whole agent may; and because what it
reads was written by a stranger. It has no file, no socket and no key that is secret, and its memory and time are
bounded. Whatever goes wrong, there is no answer, and no answer is no.
"""

import sys
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from broker_config.limits import KIB
from broker_config.signing import ED25519, ENVELOPE_BYTES_MAX, SIGNATURES_MAX
from firmware_bridge.bounded import bound_myself

MEMORY_BYTES_MAX: Final = 256 * KIB * KIB
"""Of address space: the library maps far more than it touches."""
CPU_S_MAX: Final = 5
FILES_MAX: Final = 16
REQUEST_BYTES_MAX: Final = 2 * ENVELOPE_BYTES_MAX
"""The signed bytes as base64, and a few keys and signatures."""


class Check(Struct, frozen=True):
    """One signature; ``public`` and ``sig`` are base64 in JSON."""

    keyid: str
    algorithm: str
    public: bytes
    sig: bytes


class Request(Struct, frozen=True):
    """``signed``: the bytes that every signature covers."""

    signed: bytes
    checks: Annotated[tuple[Check, ...], Meta(max_length=SIGNATURES_MAX)]


class Answer(Struct, frozen=True):
    """``verified``: the key ids whose signatures are right."""

    verified: tuple[str, ...]


def verified(request: Request) -> tuple[str, ...]:
    """See :class:`Answer`."""
    return tuple(check.keyid for check in request.checks if _right(check, request.signed))


def _right(check: Check, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # nobody may have it by importing this
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    if check.algorithm != ED25519:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(check.public).verify(check.sig, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _bound() -> None:
    bound_myself(memory_bytes=MEMORY_BYTES_MAX, cpu_s=CPU_S_MAX, files=FILES_MAX)


def main() -> int:
    """Exit codes: 0 answered, 1 the request is none."""
    _bound()
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(REQUEST_BYTES_MAX), type=Request)
    except (msgspec.MsgspecError, RecursionError):
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(Answer(verified(request))) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
