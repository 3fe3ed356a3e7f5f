"""What becomes of a sealed file: values, and the rules by which it may be deleted or must be kept.

Rule 1: a file is deleted only against a receipt whose signature was right, of the class that its folder asks for, and
after its time; sooner only while the disk is short, and only if the custody log has it.
Rule 2: what has no receipt is never deleted, however full the disk is. Then what is least urgent is not to be
recorded any more.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from broker_config.device_classes import Priority
from broker_config.transfer import StorageClass

HOUR_MS: Final = 3_600_000
_CLASSES: Final = tuple(StorageClass)


class OutboxError(Exception):
    """It could not be done; what is stored is as it was."""


class Kept(StrEnum):
    """``changed``: it is not what was sealed, or not there; ``deleting``: it has been decided and told."""

    SEALED = "sealed"
    RECEIPTED = "receipted"
    CHANGED = "changed"
    DELETING = "deleting"


class Sealed(NamedTuple):
    """A file with its manifest. ``crcs``: CRC-32 of each chunk, 4 bytes big-endian each."""

    upload: str
    file_class: str
    name: str
    inode: int
    size: int
    mtime_ns: int
    sha256: str
    chunk_bytes: int
    priority: Priority
    envelope: bytes
    certificate: str
    crcs: bytes
    recording: str = ""
    number: int = 0


class Row(NamedTuple):
    """A sealed file without what only the offer needs."""

    upload: str
    file_class: str
    name: str
    inode: int
    size: int
    mtime_ns: int
    sha256: str
    chunk_bytes: int
    priority: Priority
    recording: str
    number: int
    kept: Kept
    storage_class: StorageClass | None
    receipted_ms: int


def pulled(priority: Priority) -> Priority:
    """What a file's priority becomes when somebody asks for it: an alarm stays one."""
    return priority if priority is Priority.ALARM else Priority.FLAGGED


def enough(wanted: StorageClass) -> tuple[StorageClass, ...]:
    """The classes that are at least *wanted*."""
    return _CLASSES[_CLASSES.index(wanted) :]


def suffices(storage_class: StorageClass | None, wanted: StorageClass) -> bool:
    """Whether one class is at least another."""
    return storage_class in enough(wanted)


def deletable(row: Row, wanted: StorageClass, *, now_ms: int | None, hold_ms: int, short: bool) -> bool:
    """*now_ms*: None if nobody vouches for the time; *short*: whether the disk is."""
    if row.kept is not Kept.RECEIPTED or not suffices(row.storage_class, wanted):
        return False
    if short and row.storage_class is StorageClass.LOGGED:
        return True
    return now_ms is not None and now_ms - row.receipted_ms >= hold_ms


# A full device ------------------------------------------------------------------------------------------------------

STOPPED_BELOW: Final[Mapping[Priority, float]] = {
    Priority.LOG: 1.0,
    Priority.ROUTINE: 0.5,
    Priority.FLAGGED: 0.25,
    Priority.ALARM: 0.0,
}
"""Of the reserve: with less room than this, nothing of the priority is to be written any more."""
AGAIN_ABOVE: Final = 1.25
"""Times that much room, and it may be written again."""


def stopped(room_bytes: int, reserve_bytes: int, before: Iterable[Priority]) -> frozenset[Priority]:
    """Of which priorities nothing is to be written. *before*: as it was decided last."""
    held = frozenset(before)
    return frozenset(
        priority
        for priority, share in STOPPED_BELOW.items()
        if room_bytes < share * reserve_bytes * (AGAIN_ABOVE if priority in held else 1.0) or room_bytes <= 0
    )
