"""A piece of evidence as it is kept and found, and the port of the index. Values only.

A piece is one file that a device made: named by its upload's id, placed where the device was when it arrived. What a
device said of it stays as the device signed it; what people say of it (classes, holds) is beside that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from broker_config.device_classes import FileKind
from broker_config.manifest import UPLOAD_PATTERN

PIECE_PATTERN: Final = UPLOAD_PATTERN
CLASSES_MAX: Final = 8
"""Of one piece."""
UNCLASSIFIED: Final = "unclassified"
"""What a piece without a class is called; it is never deleted."""


class EvidenceError(Exception):
    """It cannot be done; nothing was changed."""


class UnknownPieceError(EvidenceError):
    """There is no such piece, item, class, hold, deletion or change."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there is no {what} {name}")
        self.what = what


class RefusedError(EvidenceError):
    """A rule stands against it."""


class SecondPersonError(RefusedError):
    """The second person must be another one."""


class State(StrEnum):
    """``deleted``: what is left is this row, the tombstone, and the log."""

    KEPT = "kept"
    DELETED = "deleted"


class Damage(StrEnum):
    """What a scrub found of a piece; of several copies the first that is not sound."""

    NONE = ""
    MISSING = "missing"
    ALTERED = "altered"
    UNREADABLE = "unreadable"
    UNLIKE_LOG = "unlike_log"
    """The index does not say what the log says."""


class HolderBy(StrEnum):
    """Who says whose the device was: its signed manifest, its journal, or, by the server's clock, the book of
    assignments. What the device says goes before.
    """

    MANIFEST = "manifest"
    JOURNAL = "journal"
    ASSIGNMENT = "assignment"


class Hold(NamedTuple):
    """A reason to keep a piece whatever its retention is; ``hold``: its name, such as a case's."""

    hold: str
    piece: str
    reason: str
    placed_by: str
    placed_ms: int
    released_by: str | None = None
    released_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One file that is kept, or was.

    ``device`` to ``journal_last`` are the device's own words, signed (``envelope``: the JSON of the DSSE envelope,
    ``certificate``: PEM); ``segment`` 0: it is no part of a recording. ``kind``: None if the device's class does not
    know the folder. ``path``: of the organisation node as at arrival, empty without one. Times are ms since the
    epoch, ``begin_ms`` and ``end_ms`` by the device's clock (``clock``: its source), the others by the server's.
    ``holds``: names of those that hold it. ``log``, ``entry``: of ``evidence.verified``. ``assigned``: the officer
    who had the device when it began, by the book of assignments as it is now; beside the piece, and not kept with it.
    """

    piece: str
    device: str
    device_class: str
    path: str
    file_class: str
    kind: FileKind | None
    name: str
    media_type: str
    size: int
    sha256: str
    manifest_sha256: str
    recording: str
    segment: int
    last: bool
    begin_ms: int
    begin_unc_ms: int
    end_ms: int
    end_unc_ms: int
    clock: str
    holder: str
    journal_life: str
    journal_first: int
    journal_last: int
    envelope: bytes
    certificate: str
    via: str
    offered_ms: int
    received_ms: int
    state: State
    damage: Damage
    log: int
    entry: int
    classes: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    assigned: str = ""

    @property
    def holder_by(self) -> HolderBy | None:
        """Who says who had the device; None: nobody."""
        if self.holder:
            return HolderBy.MANIFEST
        return HolderBy.ASSIGNMENT if self.assigned else None


@dataclass(frozen=True, slots=True)
class PieceFilter:
    """Which pieces; None is any. ``holder``: by the manifest, or if that names nobody, by assignment. ``path``: at
    that node and below. ``from_ms``, ``to_ms``: whose recording, by the device's clock, touches that time.
    ``within``: at one of these nodes or below, beside all else; empty is nowhere. ``evidence_class``: UNCLASSIFIED is
    those without one.
    """

    device: str | None = None
    holder: str | None = None
    path: str | None = None
    recording: str | None = None
    file_class: str | None = None
    evidence_class: str | None = None
    hold: str | None = None
    sha256: str | None = None
    state: State | None = None
    damaged: bool | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    received_from_ms: int | None = None
    received_to_ms: int | None = None
    within: tuple[str, ...] | None = None


class After(NamedTuple):
    """A place in the order of lists: by arrival, then by name."""

    received_ms: int
    piece: str


BEGINNING: Final = After(-1, "")


class Totals(NamedTuple):
    """Of pieces that are kept; ``bytes_held``: a content that two pieces share counts twice."""

    pieces: int
    bytes_held: int
    damaged: int
    deleted: int


class CustodyFacts(NamedTuple):
    """How what is kept was at the last look. ``scrub_ms``: when the last scrub ended, 0: there was none;
    ``scrub_found``: what it found; ``deletions_waiting``: that may still be done.
    """

    totals: Totals
    scrub_ms: int
    scrub_found: int
    deletions_waiting: int


class Pieces(Protocol):
    """The index. Any thread may call. Every method raises StoreError."""

    def piece(self, piece: str) -> Piece | None:
        """One of them, deleted or not."""

    def pieces(self, wanted: PieceFilter, *, after: After = BEGINNING, rows_max: int) -> Sequence[Piece]:
        """Those meant, in the order of their arrival, behind *after*."""

    def newest(self, wanted: PieceFilter, *, before: After | None, rows_max: int) -> Sequence[Piece]:
        """Those meant, the last to arrive first, before *before*."""

    def totals(self) -> Totals:
        """How many there are."""
