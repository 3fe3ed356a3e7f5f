"""The audit log's entries, and what a log of them may be told to be. Values only; nothing here knows of HTTP.

An entry's canonical bytes are its JSON with sorted names: they are what is hashed, kept and exported, and nothing is
ever read from anywhere else. Each holds the SHA-256 of the one before, and is a leaf of the log's tree (:mod:`tlog`).

A change leaves two entries with one ``request``: an *intent*, durable before anything is done, and an *outcome*. An
intent without an outcome says that the server died in between, and that nobody can know from here. All else is a
*fact*.

A log has a number, the time when it began: after a restore from a backup, or when its store was found to be another
than what was signed, a new one begins, and the old one stays as it is.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Struct

from broker_config.ids import SiteId
from broker_config.text import shown

VERSION: Final = 1
TEXT_CHARS_MAX: Final = 256
DATA_NAMES_MAX: Final = 16
ENTRY_BYTES_MAX: Final = 16 * 1024
INDEX_MAX: Final = 2**53
GENESIS: Final = "0" * 64
"""``prev`` of the first entry."""

Text: TypeAlias = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
Digest: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
MaybeDigest: TypeAlias = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=INDEX_MAX)]
_ACTION: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")


class AuditError(ValueError):
    """Not an entry of an audit log."""


class Phase(StrEnum):
    """See the module's docstring."""

    INTENT = "intent"
    OUTCOME = "outcome"
    FACT = "fact"


class Draft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be recorded; the log gives it its place.

    ``actor``: a token's name, a person, ``server``; ``subject``: what it was done to; ``outcome``: such as a status,
    empty of an intent; ``count``: how many alike are meant; ``data``: what else this action tells, never a secret.
    """

    phase: Phase
    at_ms: Annotated[int, Meta(ge=0, le=INDEX_MAX)]
    actor: Text
    source: Text
    action: Text
    subject: Text = ""
    outcome: Text = ""
    request: Text = ""
    body_sha256: MaybeDigest = ""
    count: Count = 1
    data: Annotated[dict[Text, Text], Meta(max_length=DATA_NAMES_MAX)] = {}


class Entry(Draft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A draft in its place: ``prev`` is the SHA-256 of entry ``index - 1``'s bytes, GENESIS for the first."""

    v: int
    log: Count
    index: Count
    prev: Digest


class Head(NamedTuple):
    """The end of a log: how many entries it has, and ``prev`` of the next."""

    log: int
    size: int
    prev: str


class Wanted(NamedTuple):
    """Which entries are meant; None is any. ``from_ms <= at_ms < to_ms``."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


def bounded(text: str) -> str:
    """Text of the other side as a log takes it: one printable line of at most TEXT_CHARS_MAX characters."""
    return shown(text.encode("utf-8", "backslashreplace"), TEXT_CHARS_MAX)


def entered(draft: Draft, head: Head) -> tuple[bytes, Head]:
    """The entry's bytes at *head*, and the head behind it.

    Raises:
        AuditError: a field is longer than it may be, or the action is no name.
    """
    raw = _encode({**_fields(draft), "v": VERSION, "log": head.log, "index": head.size, "prev": head.prev})
    read(raw)
    return raw, Head(head.log, head.size + 1, digest(raw))


def read(raw: bytes) -> Entry:
    """Read an entry's canonical bytes.

    Raises:
        AuditError: they are none: too long, other fields, another order of names, or space between.
    """
    if len(raw) > ENTRY_BYTES_MAX:
        raise AuditError(f"entry: expected at most {ENTRY_BYTES_MAX} bytes, got {len(raw)}")
    try:
        entry = msgspec.json.decode(raw, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AuditError(f"entry: {shown(error)}") from error
    if entry.v != VERSION or not _ACTION.match(entry.action):
        raise AuditError(f"entry: expected version {VERSION} and an action such as device.register")
    if _encode(_fields(entry)) != raw:
        raise AuditError("entry: not in the canonical form")
    return entry


def digest(raw: bytes) -> str:
    """Of an entry's bytes, for the next one's ``prev``."""
    return hashlib.sha256(raw).hexdigest()


def origin(site: SiteId, log: int) -> str:
    """The first line of a log's checkpoints."""
    return f"{key_name(site)}/{log}"


def log_number(origin_: str) -> int:
    """The number of a checkpoint's log; 0 if its origin does not say."""
    number = origin_.rpartition("/")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) <= len(str(INDEX_MAX)) else 0


def key_name(site: SiteId) -> str:
    """Of the key that signs all logs of a site."""
    return f"fieldfleet/{site}/audit"


def _fields(draft: Draft) -> Mapping[str, object]:
    return msgspec.structs.asdict(draft)


def _encode(fields: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(fields, order="sorted")
