"""Seals files: ``python -m edge_agent.sealing`` reads one request on stdin, answers a line for each file, and ends.

A process of its own, because the library that signs takes a quarter of what the whole agent may, and because reading
a file takes longer than a reading may wait. What it did not answer is not sealed, and is begun again.
"""

import os
import sys
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from broker_config import limits, manifest, merkle
from broker_config.ids import DeviceId
from broker_config.limits import KIB
from broker_config.manifest import CHAIN_BYTES_MAX, JournalRange, Manifest, Moment, Segment
from broker_config.signing import Envelope, Signature, encode, pre_authentication
from edge_agent.adapters import folder
from edge_agent.adapters.files import sync
from edge_agent.adapters.folder import Stat
from firmware_bridge.bounded import bound_myself

MEMORY_BYTES_MAX: Final = 256 * KIB * KIB
FILES_MAX: Final = 32
JOBS_MAX: Final = 16
REQUEST_BYTES_MAX: Final = 64 * KIB
CHUNKS_MAX: Final = limits.UPLOAD_BYTES_MAX // limits.CHUNK_BYTES_MAX
"""Of one file; a larger one has larger chunks."""


class SealJob(Struct, frozen=True):
    """A file, and what only the agent knows of it. ``segment.prev``: of a recording's first job in the request; those
    after it are chained here.
    """

    folder: str
    file: str
    inode: int
    size: int
    mtime_ns: int
    file_class: str
    name: str
    media_type: str
    begin: Moment
    end: Moment
    journal: JournalRange
    segment: Segment | None = None


class SealRequest(Struct, frozen=True):
    """What of the device is the same for all."""

    device: DeviceId
    cert_file: str
    key_file: str
    chunk_bytes: int
    jobs: Annotated[tuple[SealJob, ...], Meta(min_length=1, max_length=JOBS_MAX)]
    holder: str = ""


class SealAnswer(Struct, frozen=True):
    """``error`` or the rest. ``envelope``: the JSON of the signed manifest; bytes are base64 in JSON."""

    file: str
    error: str = ""
    upload: str = ""
    sha256: str = ""
    chunk_bytes: int = 0
    envelope: bytes = b""
    certificate: str = ""
    crcs: bytes = b""
    digest: str = ""


class SealError(Exception):
    """A file is not what the agent saw."""


class _Read(Struct):
    sha256: str
    root: str
    crcs: bytes


def _read(descriptor: int, job: SealJob, chunk_bytes: int) -> _Read:
    """The whole file once: everything that is computed of it."""
    whole, crcs, size = sha256(), bytearray(), 0

    def leaves() -> Iterator[bytes]:
        nonlocal size
        while data := folder.part(descriptor, size, chunk_bytes):
            whole.update(data)
            crcs.extend(zlib.crc32(data).to_bytes(4, "big"))
            size += len(data)
            if size > job.size:
                raise SealError("it grows")
            yield merkle.leaf_hash(data)

    root = merkle.root_of(leaves())
    return _Read(whole.hexdigest(), root.hex(), bytes(crcs))


def _as_seen(job: SealJob) -> Stat:
    return Stat(job.inode, job.size, job.mtime_ns)


def _seal(job: SealJob, request: SealRequest, key: bytes, certificate: bytes, prev: dict[str, str]) -> SealAnswer:
    from edge_agent.adapters import x509  # noqa: PLC0415  # nobody may have the library by importing this

    chunk_bytes = request.chunk_bytes
    while chunk_bytes * CHUNKS_MAX < job.size:
        chunk_bytes *= 2
    where = Path(job.folder)
    with folder.opened(where, job.file) as descriptor:
        if folder.stat_of(descriptor) != _as_seen(job):
            raise SealError("it is not as it was seen")
        os.fsync(descriptor)
        found = _read(descriptor, job, chunk_bytes)
        if folder.stat_of(descriptor) != _as_seen(job):
            raise SealError("it changed while it was read")
    sync(where)
    segment = job.segment
    if segment is not None and segment.recording in prev:
        segment = msgspec.structs.replace(segment, prev=prev[segment.recording])
    payload = manifest.encode(
        Manifest(
            v=1,
            device=request.device,
            file_class=job.file_class,
            name=job.name,
            media_type=job.media_type,
            size=job.size,
            sha256=found.sha256,
            chunk_bytes=chunk_bytes,
            root=found.root,
            begin=job.begin,
            end=job.end,
            journal=job.journal,
            segment=segment,
            holder=request.holder,
        )
    )
    signature = x509.sign(key, pre_authentication(manifest.PAYLOAD_TYPE, payload))
    keyid = f"{x509.life(certificate).serial:032x}"
    envelope = Envelope(payload, manifest.PAYLOAD_TYPE, (Signature(keyid, signature),))
    manifest.decode(envelope)  # what the server would refuse is not offered
    digest = manifest.digest(payload)
    if segment is not None:
        prev[segment.recording] = digest
    return SealAnswer(
        job.file,
        "",
        manifest.upload_id(payload),
        found.sha256,
        chunk_bytes,
        encode(envelope),
        certificate.decode("ascii"),
        found.crcs,
        digest,
    )


def sealed(request: SealRequest) -> Iterator[SealAnswer]:
    """An answer for each job, in their order; after one that failed, the others of its recording are left."""
    with Path(request.key_file).open("rb") as file:
        key = file.read(CHAIN_BYTES_MAX)
    with Path(request.cert_file).open("rb") as file:
        certificate = file.read(CHAIN_BYTES_MAX + 1)
    if len(certificate) > CHAIN_BYTES_MAX:
        raise SealError(f"certificate: expected at most {CHAIN_BYTES_MAX} bytes")
    prev: dict[str, str] = {}
    broken: set[str] = set()
    for job in request.jobs:
        recording = "" if job.segment is None else job.segment.recording
        if recording and recording in broken:
            continue
        try:
            yield _seal(job, request, key, certificate, prev)
        except (SealError, OSError, ValueError) as error:
            broken.add(recording)
            yield SealAnswer(job.file, f"{type(error).__name__}: {error}"[:200])


def main() -> int:
    """Exit codes: 0 answered, 1 the request is none, 2 there is no key to sign with."""
    from edge_agent.adapters.x509 import BadIdentityError  # noqa: PLC0415  # as above

    bound_myself(memory_bytes=MEMORY_BYTES_MAX, files=FILES_MAX)
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(REQUEST_BYTES_MAX), type=SealRequest)
    except (msgspec.MsgspecError, RecursionError):
        return 1
    try:
        for answer in sealed(request):
            sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
            sys.stdout.buffer.flush()
    except (OSError, SealError, BadIdentityError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
