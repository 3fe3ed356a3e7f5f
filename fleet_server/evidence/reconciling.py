"""Reads what the ledger stands on: a device's journal, its pieces, and who had it, over a time with bounds."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from fleet_server.evidence import dispatches, interviews, journal, ledger
from fleet_server.evidence.dispatches import Dispatch, Judged
from fleet_server.evidence.interviews import Interview
from fleet_server.evidence.journal import Note
from fleet_server.evidence.ledger import DAY_MS, Row, Span
from fleet_server.evidence.pieces import BEGINNING, After, Piece, PieceFilter, Pieces
from fleet_server.registry.assignment_store import AssignmentFilter, Holders
from fleet_server.registry.assignments import Assignment
from fleet_server.telemetry.store import EventFact

MARGIN_MS: Final = DAY_MS
"""Before and behind the time that is asked for: a recording that began in it is closed, and one that ends began."""
EVENTS_MAX: Final = 50_000
PIECES_MAX: Final = 20_000
PIECES_A_READ: Final = 1_000
HELD_MAX: Final = 1_000
"""Assignments of a device or an officer."""
DEVICES_MAX: Final = 8
"""Of one officer, that are looked at."""


class TooMuchError(Exception):
    """A device has more in that time than is read at once; a shorter time has less."""


class Journals(Protocol):
    """What is asked of telemetry; see :class:`fleet_server.telemetry.view.TelemetryView`."""

    def events(self, device: str, *, from_ms: int, to_ms: int, rows_max: int) -> list[EventFact]:
        """Oldest first."""


class Read(NamedTuple):
    """Of one device and time: notes oldest first, pieces in the order of their arrival."""

    notes: list[Note]
    pieces: list[Piece]


class Books:
    """Any thread may call; every method raises StoreError and TooMuchError."""

    def __init__(self, journals: Journals, pieces: Pieces, holders: Holders) -> None:
        self._journals = journals
        self._pieces = pieces
        self._holders = holders

    def read(self, device: str, span: Span) -> Read:
        """What there is of that time and MARGIN_MS on either side."""
        from_ms, to_ms = span.from_ms - MARGIN_MS, span.to_ms + MARGIN_MS
        facts = self._journals.events(device, from_ms=from_ms, to_ms=to_ms, rows_max=EVENTS_MAX + 1)
        if len(facts) > EVENTS_MAX:
            raise TooMuchError(f"{device}: more than {EVENTS_MAX} events of its journal")
        return Read(journal.read(facts), self._all(PieceFilter(device=device, from_ms=from_ms, to_ms=to_ms)))

    def rows(self, device: str, span: Span, *, now_ms: int) -> list[Row]:
        """Recordings that began in that time."""
        read = self.read(device, span)
        held = self._held(AssignmentFilter(device=device, from_ms=span.from_ms - MARGIN_MS, to_ms=span.to_ms))
        return list(ledger.within(ledger.rows(read.notes, read.pieces, now_ms=now_ms, held=held), span))

    def devices_of(self, holder: str, span: Span) -> Sequence[str]:
        """Of which manifests or the book of assignments say that this officer had them about that time, DEVICES_MAX
        at most.
        """
        wanted = PieceFilter(holder=holder, from_ms=span.from_ms - MARGIN_MS, to_ms=span.to_ms + MARGIN_MS)
        held = self._held(AssignmentFilter(officer=holder, from_ms=span.from_ms, to_ms=span.to_ms))
        found = {piece.device for piece in self._all(wanted)} | {each.device for each in held}
        return sorted(found)[:DEVICES_MAX]

    def _held(self, wanted: AssignmentFilter) -> Sequence[Assignment]:
        found = self._holders.assignments(wanted, rows_max=HELD_MAX + 1)
        if len(found) > HELD_MAX:
            raise TooMuchError(f"{wanted.device or wanted.officer}: more than {HELD_MAX} assignments")
        return found

    def _all(self, wanted: PieceFilter) -> list[Piece]:
        found: list[Piece] = []
        after: After = BEGINNING
        while True:
            some = self._pieces.pieces(wanted, after=after, rows_max=PIECES_A_READ)
            found += some
            if len(some) < PIECES_A_READ:
                return found
            if len(found) > PIECES_MAX:
                raise TooMuchError(f"{wanted.device or wanted.holder}: more than {PIECES_MAX} pieces")
            after = After(some[-1].received_ms, some[-1].piece)

    def judge(self, dispatch: Dispatch, *, now_ms: int) -> Judged:
        """A dispatch against the recordings of its device, or else of all that its officer had."""
        span = dispatches.reach(dispatch, now_ms=now_ms)
        devices = [dispatch.device] if dispatch.device else self.devices_of(dispatch.holder, span)
        found = ((device, row) for device in devices for row in self.rows(device, span, now_ms=now_ms))
        return dispatches.judge(dispatch, found, now_ms=now_ms)

    def interviews(self, device: str, span: Span, *, now_ms: int) -> list[Interview]:
        """Those that began in that time."""
        read = self.read(device, span)
        found = interviews.interviews(read.notes, read.pieces, now_ms=now_ms)
        return [each for each in found if span.from_ms <= each.begin.at_ms < span.to_ms]
