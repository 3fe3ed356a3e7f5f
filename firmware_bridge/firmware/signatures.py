"""Checks the signature of an image: ``python -m firmware_bridge.firmware.signatures`` reads one request on stdin,
answers one line, and ends.

A process of its own, as ``edge_agent.verify`` is and for the same reasons: its library is large, and what it reads
was written by a stranger. Whatever goes wrong, there is no answer, and no answer is no.
"""

import sys
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from firmware_bridge.bounded import bound_myself

KEYS_MAX: Final = 16
SIGNATURES_MAX: Final = 16
KIB: Final = 1024
REQUEST_BYTES_MAX: Final = 256 * KIB
MEMORY_BYTES_MAX: Final = 256 * KIB * KIB
CPU_S_MAX: Final = 5
FILES_MAX: Final = 16
PSS_SALT_BYTES: Final = 32
"""What MCUboot expects."""


class Signature(Struct, frozen=True):
    """``kind``: ``ECDSA`` (P-256), ``ED25519`` or ``RSA2048`` (PSS); ``sig`` is base64 in JSON."""

    kind: str
    sig: bytes


class Request(Struct, frozen=True):
    """``digest``: the SHA-256 that is signed. ``keys``: public keys as PEM."""

    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    keys: Annotated[tuple[str, ...], Meta(max_length=KEYS_MAX)]
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=SIGNATURES_MAX)]


class Answer(Struct, frozen=True):
    """``by``: which of the keys signed; None: none of them did. ``unusable``: keys that are none, by their place."""

    by: int | None
    unusable: tuple[int, ...]


def answer(request: Request) -> Answer:
    """See :class:`Answer`."""
    unusable: list[int] = []
    for place, pem in enumerate(request.keys):
        try:
            if any(_right(pem, each, request.digest) for each in request.signatures):
                return Answer(place, tuple(unusable))
        except ValueError:
            unusable.append(place)
    return Answer(None, tuple(unusable))


def _right(pem: str, signature: Signature, digest: bytes) -> bool:
    """Raises ValueError: *pem* is not a public key."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    sig = signature.sig
    try:
        match signature.kind, key:
            case "ECDSA", ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
                # imgtool may pad it; DER says how long it is
                sig = sig[: sig[1] + 2] if len(sig) > 1 else sig
                key.verify(sig, digest, ec.ECDSA(Prehashed(SHA256())))
            case "ED25519", ed25519.Ed25519PublicKey():
                key.verify(sig, digest)
            case "RSA2048", rsa.RSAPublicKey(key_size=2048):
                key.verify(sig, digest, padding.PSS(padding.MGF1(SHA256()), PSS_SALT_BYTES), Prehashed(SHA256()))
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def main() -> int:
    """Exit codes: 0 answered, 1 the request is none."""
    bound_myself(memory_bytes=MEMORY_BYTES_MAX, cpu_s=CPU_S_MAX, files=FILES_MAX)
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(REQUEST_BYTES_MAX), type=Request)
    except (msgspec.MsgspecError, RecursionError):
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(answer(request)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
