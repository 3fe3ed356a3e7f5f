"""What a backup says of itself: ``manifest.json``, the last file that is written, so that what has none is no backup.

ROOT/20260503T020000Z/         one backup
  manifest.json                this
  stores/uploads.db            what was under way
  stores/operators.db          what operators said, custody and the audit log; or operators.pgdump
  stores/telemetry.db          what devices sent
  site/...                     files below the site's directory that anybody may read
  outside/...                  the same of files that the configuration names elsewhere
  keys.sealed                  every other file, sealed
  evidence.list                a line each: SHA-256, size
ROOT/sha256/ab/cd/SHA256       contents of evidence, once for all backups that name them
"""

import re
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct

from broker_config.ids import HEX64_PATTERN, exact
from broker_config.text import shown

VERSION: Final = 1
MANIFEST: Final = "manifest.json"
KEYS: Final = "keys.sealed"
EVIDENCE_LIST: Final = "evidence.list"
UPLOADS: Final = "stores/uploads.db"
OPERATORS: Final = "stores/operators.db"
OPERATORS_DUMP: Final = "stores/operators.pgdump"
TELEMETRY: Final = "stores/telemetry.db"
SITE: Final = "site"
OUTSIDE: Final = "outside"
FILES_MAX: Final = 20_000
MANIFEST_BYTES_MAX: Final = 16 * 1024 * 1024
NAMED_MAX: Final = 1_000
"""Contents that are missing or damaged are named up to so many, and counted beyond."""

_NAME: Final = re.compile(r"\d{8}T\d{6}Z\Z")
_SHA256: Final = re.compile(exact(HEX64_PATTERN))


class BackupError(Exception):
    """There is no such backup, it is damaged, or it cannot be made or put back; what was there is as it was."""


class Keys(StrEnum):
    """How the secrets are in it."""

    PASSPHRASE = "passphrase"  # noqa: S105 - a word
    RECIPIENT = "recipient"
    LEFT_OUT = "left_out"


class Mode(StrEnum):
    """What is done with contents of evidence. ``reference``: named only, because they are kept elsewhere."""

    COPY = "copy"
    REFERENCE = "reference"


class Entry(Struct, frozen=True):
    """A file of the backup; ``name`` is its path there."""

    name: str
    sha256: Annotated[str, Meta(pattern=exact(HEX64_PATTERN))]
    size: Annotated[int, Meta(ge=0)]


class Contents(Struct, frozen=True):
    """Of the evidence. ``missing``: what the index names and the site itself had not; ``damaged``: what was not what
    its name says. Of both at most ``NAMED_MAX`` are named.
    """

    mode: Mode
    count: int
    size: int
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """All of ``manifest.json``. ``begun_ms``: what happened later need not be in it. ``config``: below ``base``,
    where the site's directory was. ``signer_counter``: None if the signer's was not there to be read.
    ``left_out``: what is not in it and has to be kept elsewhere, in words.
    """

    version: int
    program: str
    site_id: str
    begun_ms: int
    ended_ms: int
    base: str
    config: str
    store_epoch: int
    keys: Keys
    evidence: Contents
    files: Annotated[tuple[Entry, ...], Meta(max_length=FILES_MAX)]
    signer_counter: int | None = None
    left_out: tuple[str, ...] = ()

    def entry(self, name: str) -> Entry | None:
        """What it says of that file; None: it has none."""
        return next((each for each in self.files if each.name == name), None)


class Content(NamedTuple):
    """A line of ``evidence.list``."""

    sha256: str
    size: int


def encode(manifest: Manifest) -> bytes:
    """As the file has it."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest:
    """Raises BackupError: no manifest, of another version, or of files that are not below the backup."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise BackupError(f"{MANIFEST}: expected at most {MANIFEST_BYTES_MAX} bytes, got {len(data)}")
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise BackupError(f"{MANIFEST}: {error}") from error
    if found.version != VERSION:
        raise BackupError(f"{MANIFEST}: expected version {VERSION}, got {found.version}")
    for name in (found.config, *(each.name for each in found.files)):
        if not is_below(name):
            raise BackupError(f"{MANIFEST}: expected a path below the backup, got {shown(name)!r}")
    return found


def is_below(name: str) -> bool:
    """Whether it is a plain relative path that leads nowhere else."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and str(path) == name and "\0" not in name


def encode_contents(contents: Sequence[Content]) -> bytes:
    """``evidence.list``, in the order of the hashes."""
    return b"".join(b"%s %d\n" % (each.sha256.encode(), each.size) for each in sorted(contents))


def read_contents(lines: Iterator[bytes]) -> Iterator[Content]:
    """Raises BackupError: a line is none of those."""
    for line in lines:
        sha256, _, size = line.decode("ascii", "replace").rstrip("\n").partition(" ")
        if not _SHA256.match(sha256) or not size.isdigit():
            raise BackupError(f"{EVIDENCE_LIST}: expected a SHA-256 and a size, got {shown(line)!r}")
        yield Content(sha256, int(size))


def is_sha256(name: str) -> bool:
    """Whether it is the name of a content."""
    return bool(_SHA256.match(name))


def is_name(name: str) -> bool:
    """Whether a directory of that name may be a backup."""
    return bool(_NAME.match(name))


def to_remove(names: Collection[str], keep: int) -> list[str]:
    """Those beyond the newest *keep*, oldest first."""
    return sorted(names)[: max(0, len(names) - keep)]
