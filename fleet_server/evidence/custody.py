"""What happens to evidence, as entries of the audit log. Values only; there is no second log.

Every subject, a piece (its id), a physical item (``item:ID``), an evidence class (``class:NAME``) or the ``store``,
has a chain of events of its own in the log: ``number`` from 0 without holes, ``prev`` the SHA-256 of the subject's
event before (GENESIS for the first). So whoever has some of them knows whether one between was left out, and the last
one names how many there are.

Rule: an event holds hashes, ids and who did it; no name, no reason, no place in clear. What people wrote is in the
index, and the log has SHA-256 over a random salt, NUL and the text (``note_sha256``): it can be proved, and erased.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from fleet_server.access.audit import GENESIS, AuditError, Draft, Entry, Phase, bounded, digest, read
from fleet_server.evidence.arrival import Arrival

SALT_BYTES: Final = 16
NOTE_CHARS_MAX: Final = 500
EVENTS_READ: Final = 500
"""Of one subject, in memory at once."""
NUMBER: Final = "number"
PREV: Final = "prev"
NOTE: Final = "note_sha256"
ITEM: Final = "item:"
CLASS: Final = "class:"
STORE: Final = "store"
"""What a scrub is of."""
SERVER: Final = "server"

Note = Annotated[str, Meta(max_length=NOTE_CHARS_MAX)]
NOTHING: Final[Mapping[str, str]] = {}


class Event(StrEnum):
    """What can happen; the action of its entry."""

    RECEIVED = "evidence.received"
    VERIFIED = "evidence.verified"
    VIEWED = "evidence.viewed"
    EXPORTED = "evidence.exported"
    CLASSIFIED = "evidence.classified"
    HELD = "evidence.held"
    RELEASED = "evidence.released"
    DELETION_ASKED = "evidence.deletion_asked"
    DELETION_APPROVED = "evidence.deletion_approved"
    DELETION_WITHDRAWN = "evidence.deletion_withdrawn"
    DELETED = "evidence.deleted"
    NOTES_ERASED = "evidence.notes_erased"
    DAMAGED = "evidence.damaged"
    SOUND = "evidence.sound"
    RETENTION_PROPOSED = "retention.proposed"
    RETENTION_APPROVED = "retention.approved"
    RETENTION_WITHDRAWN = "retention.withdrawn"
    SCRUBBED = "evidence.scrubbed"
    ITEM_TAKEN_IN = "item.taken_in"
    ITEM_STORED = "item.stored"
    ITEM_LENT = "item.lent"
    ITEM_RETURNED = "item.returned"
    ITEM_HANDED_OVER = "item.handed_over"
    DISPATCH_EXPLAINED = "dispatch.explained"


ACTIONS: Final = tuple(event.value for event in Event)


class Act(NamedTuple):
    """What is to be entered; ``note``: what somebody wrote, empty if nothing."""

    event: Event
    subject: str
    actor: str
    at_ms: int
    data: Mapping[str, str] = NOTHING
    note: str = ""


class Last(NamedTuple):
    """The end of a subject's chain: how many events it has, and the SHA-256 of the last one's entry."""

    events: int = 0
    digest: str = GENESIS


class Entered(Struct, frozen=True):
    """An event as it is kept: ``raw`` is the log's entry, ``note`` None if there was none, or it was erased."""

    log: int
    entry: int
    number: int
    raw: bytes
    salt: str
    note: str | None


def drafted(act: Act, last: Last, *, salt: str) -> Draft:
    """The entry of *act* behind *last*. *salt*: random, hex; not used if there is no note."""
    data = {**act.data, NUMBER: str(last.events), PREV: last.digest}
    if act.note:
        data[NOTE] = note_digest(salt, act.note)
    return Draft(
        phase=Phase.FACT,
        at_ms=act.at_ms,
        actor=bounded(act.actor),
        source="",
        action=act.event.value,
        subject=act.subject,
        data=data,
    )


def last_of(raw: bytes) -> Last:
    """The end of a chain whose last event's entry is *raw*. Raises AuditError: it is none."""
    number = read(raw).data.get(NUMBER, "")
    if not (number.isascii() and number.isdigit()):
        raise AuditError("entry: no event of custody")
    return Last(int(number) + 1, digest(raw))


def follows(entry: Entry, found: Entered, subject: str, number: int, prev: str) -> bool:
    """Whether an entry is event *number* of *subject*, and the index finds it where it is."""
    where = (entry.log, entry.index, entry.subject) == (found.log, found.entry, subject)
    return where and found.number == number and (entry.data.get(NUMBER), entry.data.get(PREV)) == (str(number), prev)


def note_digest(salt: str, note: str) -> str:
    """What the log has of a note; *salt* in hex."""
    return hashlib.sha256(f"{salt}\0{note}".encode()).hexdigest()


def arrived(arrival: Arrival) -> tuple[Act, Act]:
    """The first two events of every piece. *arrival* must be of a file that was read again."""
    manifest = arrival.manifest
    what = {
        "device": manifest.device,
        "sha256": manifest.sha256,
        "size": str(manifest.size),
        "envelope_sha256": hashlib.sha256(arrival.envelope).hexdigest(),
        "certificate_sha256": hashlib.sha256(arrival.certificate.encode()).hexdigest(),
        **({"doubts": bounded(",".join(arrival.doubts))} if arrival.doubts else {}),
    }
    received = Act(Event.RECEIVED, arrival.upload, SERVER, arrival.offered_ms, {**what, "via": arrival.via})
    seen = {"sha256": manifest.sha256, "root": manifest.root, "size": str(manifest.size)}
    return received, Act(Event.VERIFIED, arrival.upload, SERVER, arrival.verified_ms, seen)
