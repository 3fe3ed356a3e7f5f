"""Arrivals of files that devices made, and a store of their contents: a folder."""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from broker_config import limits, manifest
from broker_config.ids import DeviceId
from broker_config.manifest import JournalRange, Manifest, Moment, Segment
from broker_config.merkle import leaf_hash, root_of
from broker_config.signing import Envelope, Signature
from fleet_server.evidence.arrival import Arrival
from fleet_server.evidence.content import ContentError, MissingContentError

T0: Final = 1_767_254_400_000
DAY_MS: Final = 86_400_000
CAMERA: Final = DeviceId("cam-7")
_numbers = itertools.count()


class Folder:
    """A file for each content."""

    def __init__(self, directory: Path, name: str = "store") -> None:
        directory.mkdir(exist_ok=True)
        self.name = name
        self._directory = directory
        self.down = False

    def path(self, sha256: str) -> Path:
        return self._directory / sha256

    def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.path(sha256).write_bytes(data)
        return sha256

    def open(self, sha256: str) -> BinaryIO:
        self._check()
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError as error:
            raise MissingContentError(f"{sha256} is not there") from error

    def exists(self, sha256: str) -> bool:
        self._check()
        return self.path(sha256).exists()

    def remove(self, sha256: str) -> None:
        self._check()
        self.path(sha256).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        self._check()
        return iter(sorted(each.name for each in self._directory.iterdir()))

    def _check(self) -> None:
        if self.down:
            raise ContentError("input/output error")


def arrival(content: Folder | None = None, data: bytes | None = None, **fields: Any) -> Arrival:
    """A file that is in *content*. *fields*: of the manifest, and ``verified_ms``, ``via``, ``segment``."""
    made = f"content {next(_numbers)}".encode() if data is None else data
    sha256 = hashlib.sha256(made).hexdigest() if content is None else content.put(made)
    verified_ms = fields.pop("verified_ms", T0 + 60_000)
    via = fields.pop("via", "mqtt")
    at: dict[str, Any] = {"unc_ms": 40, "src": "ntp", "boot": "5c1d7a90be2f4436"}
    said = Manifest(
        **{
            "v": 1,
            "device": CAMERA,
            "file_class": "recordings",
            "name": "segment-1.mp4",
            "media_type": "video/mp4",
            "size": len(made),
            "sha256": sha256,
            "chunk_bytes": limits.CHUNK_BYTES_MIN,
            "root": root_of([leaf_hash(made)]).hex(),
            "begin": Moment(T0, mono=1_000, **at),
            "end": Moment(T0 + 30_000, mono=31_000, **at),
            "journal": JournalRange("9f0c2b1a77d3e458", 4, 5),
            **fields,
        }
    )
    payload = manifest.encode(said)
    envelope = Envelope(payload, manifest.PAYLOAD_TYPE, (Signature("k", b"s" * 64),))
    return Arrival(
        manifest.upload_id(payload),
        said,
        msgspec.json.encode(envelope),
        "-----BEGIN CERTIFICATE-----\n",
        verified_ms - 5_000,
        verified_ms,
        via,
    )


def segment(recording: str, number: int, *, last: bool = False) -> Segment:
    """Of a recording; its chain is not what is tested here."""
    return Segment(recording, number, manifest.GENESIS, last)
