"""What people and the server do with evidence: the ports; ``adapters.sql`` has them in the operators' database.

Any thread may call. Each act is one transaction with its event in the audit log, durable once it returns; after an
error nothing has changed. Every method raises StoreError, those that change something BrokenLogError too. ``by``: who
acts, as the audit log names them; what people write is bounded by NOTE_CHARS_MAX, and not in the log.

Raised by acts: UnknownPieceError; RefusedError (a rule stands against it), SecondPersonError (it must be another).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from fleet_server.evidence.content import Content
from fleet_server.evidence.custody import Entered, Event
from fleet_server.evidence.pieces import Hold, Piece
from fleet_server.evidence.retention import Change, Deletion, Due, Rules


class Keeping(Protocol):
    """Acts on a piece that is kept."""

    def history(self, piece: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """Its events, by number. Raises UnknownPieceError."""

    def record(self, piece: str, event: Event, *, by: str, data: Mapping[str, str], now_ms: int) -> Piece:
        """Enter VIEWED or EXPORTED; before the first byte goes out."""

    def classify(self, piece: str, *, add: Sequence[str], remove: Sequence[str], by: str, now_ms: int) -> Piece:
        """Give it classes, and take others away. Raises RefusedError: a class nobody has set, or too many."""

    def hold(self, piece: str, hold: str, reason: str, *, by: str, now_ms: int) -> Piece:
        """Keep it whatever its retention is, until this hold is released; again: no change."""

    def release(self, piece: str, hold: str, reason: str, *, by: str, now_ms: int) -> Piece:
        """Release one hold. Raises UnknownPieceError: this one does not hold it."""

    def erase_notes(self, piece: str, *, by: str, now_ms: int) -> int:
        """Take away what people wrote of it, its reasons too; the log keeps the hashes. How many notes there were. Of
        a deleted piece as well.
        """

    def holds(self, *, hold: str | None, piece: str | None, after: tuple[str, str], rows_max: int) -> Sequence[Hold]:
        """Holds that were placed, released or not, by name and piece, behind *after*."""


class Doing(NamedTuple):
    """What the carrying out of a deletion came to; ``why_not``: empty, it was done."""

    deletion: Deletion
    why_not: str


class Deletions(Protocol):
    """Deletions: asked, agreed to by a second person, delayed, done; and each of these is in the log."""

    def ask(self, piece: str, reason: str, *, by: str, now_ms: int) -> Deletion:
        """Ask for one. Raises RefusedError: held, kept for ever, below the floor, or asked already."""

    def approve(self, deletion: str, *, by: str, now_ms: int) -> Deletion:
        """Agree. Raises SecondPersonError; RefusedError: not open, or held meanwhile."""

    def withdraw(self, deletion: str, reason: str, *, by: str, now_ms: int) -> Deletion:
        """Take it back, by anybody who may ask, until it is done."""

    def deletions(
        self, *, open_only: bool, after: tuple[int, str], rows_max: int
    ) -> Sequence[tuple[Deletion, Piece]]:
        """By when they were asked, behind *after*."""

    def deletion(self, deletion: str) -> tuple[Deletion, Piece] | None:
        """One of them."""


class Carrying(Deletions, Protocol):
    """What the server does of it by itself."""

    def ask_due(self, piece: str, *, now_ms: int) -> Deletion:
        """Ask for the deletion of what the retention is over of, as the server. Raises as :meth:`ask`."""

    def approved(self, *, now_ms: int, rows_max: int) -> Sequence[str]:
        """Those that somebody agreed to and whose delay is over, the oldest first."""

    def carry_out(self, deletion: str, *, now_ms: int) -> Doing:
        """Delete the piece, if all that must be so is so in this very transaction; its content is not touched."""

    def unfinished(self, *, rows_max: int) -> Sequence[str]:
        """Deletions that are done, and whose content may still be there."""

    def remove_content(self, deletion: str, copies: Sequence[Content], *, now_ms: int) -> bool:
        """Take a deleted piece's content from every copy, unless another piece has the same; whether it was removed.

        May be repeated. Raises ContentError: of some copy it is not known; it is to be tried again.
        """


class Effect(NamedTuple):
    """What a change of retention would do to one piece."""

    piece: Piece
    before: Due
    after: Due


class Effects(NamedTuple):
    """What it would do to all. ``pieces``: that have the class; ``changed``: whose date it moves; ``due_now``: whose
    retention is then over; ``held``: of those, what holds keep; ``first``: some of the changed.
    """

    pieces: int
    changed: int
    due_now: int
    held: int
    first: tuple[Effect, ...]


class Retention(Protocol):
    """How long each class is kept."""

    def changes(self) -> Sequence[Change]:
        """All that were ever proposed, the oldest first."""

    def rules(self, *, now_ms: int) -> Rules:
        """What counts."""

    def effects(self, evidence_class: str, keep_d: int | None, *, now_ms: int) -> Effects:
        """What a change would do now; nothing is changed."""

    def propose(self, evidence_class: str, keep_d: int | None, reason: str, *, by: str, now_ms: int) -> Change:
        """Raises RefusedError: too many classes, or one waits for this class."""

    def approve(self, change: str, *, by: str, now_ms: int) -> Change:
        """It counts from CHANGE_DELAY_D on. Raises SecondPersonError, RefusedError."""

    def withdraw(self, change: str, *, by: str, now_ms: int) -> Change:
        """Take it back until it counts. Raises RefusedError."""
