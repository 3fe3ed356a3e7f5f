"""Evidence as somebody sees it who may only act at some nodes: what was elsewhere when it arrived is not there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from fleet_server.access.roles import Scope
from fleet_server.evidence.custody import Entered, Event
from fleet_server.evidence.items import Doing, Item, Items, ItemState
from fleet_server.evidence.pieces import (
    BEGINNING,
    After,
    Hold,
    Piece,
    PieceFilter,
    Pieces,
    RefusedError,
    Totals,
    UnknownPieceError,
)
from fleet_server.evidence.retention import Deletion
from fleet_server.evidence.store import Deletions, Keeping

ROWS_A_READ: Final = 500


class ScopedPieces:
    """A :class:`fleet_server.evidence.pieces.Pieces`; *scope* is asked at each call."""

    def __init__(self, inner: Pieces, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._scope = scope

    def piece(self, piece: str) -> Piece | None:
        """See the port."""
        found = self._inner.piece(piece)
        return found if found is not None and self._scope().covers(found.path) else None

    def pieces(self, wanted: PieceFilter, *, after: After = BEGINNING, rows_max: int) -> Sequence[Piece]:
        """See the port."""
        return self._inner.pieces(self._within(wanted), after=after, rows_max=rows_max)

    def newest(self, wanted: PieceFilter, *, before: After | None, rows_max: int) -> Sequence[Piece]:
        """See the port."""
        return self._inner.newest(self._within(wanted), before=before, rows_max=rows_max)

    def _within(self, wanted: PieceFilter) -> PieceFilter:
        scope = self._scope()
        return replace(wanted, within=None if scope.everywhere else scope.paths)

    def totals(self) -> Totals:
        """Nobody's who is let in by a token."""
        raise NotImplementedError

    def check(self, piece: str) -> None:
        """Raises UnknownPieceError."""
        if self.piece(piece) is None:
            raise UnknownPieceError("piece", piece)


class ScopedKeeping:
    """A :class:`fleet_server.evidence.store.Keeping`."""

    def __init__(self, inner: Keeping, pieces: ScopedPieces) -> None:
        self._inner = inner
        self._pieces = pieces

    def history(self, piece: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """See the port."""
        self._pieces.check(piece)
        return self._inner.history(piece, from_number=from_number, rows_max=rows_max)

    def record(self, piece: str, event: Event, *, by: str, data: Mapping[str, str], now_ms: int) -> Piece:
        """See the port."""
        self._pieces.check(piece)
        return self._inner.record(piece, event, by=by, data=data, now_ms=now_ms)

    def classify(self, piece: str, *, add: Sequence[str], remove: Sequence[str], by: str, now_ms: int) -> Piece:
        """See the port."""
        self._pieces.check(piece)
        return self._inner.classify(piece, add=add, remove=remove, by=by, now_ms=now_ms)

    def hold(self, piece: str, hold: str, reason: str, *, by: str, now_ms: int) -> Piece:
        """See the port."""
        self._pieces.check(piece)
        return self._inner.hold(piece, hold, reason, by=by, now_ms=now_ms)

    def release(self, piece: str, hold: str, reason: str, *, by: str, now_ms: int) -> Piece:
        """See the port."""
        self._pieces.check(piece)
        return self._inner.release(piece, hold, reason, by=by, now_ms=now_ms)

    def erase_notes(self, piece: str, *, by: str, now_ms: int) -> int:
        """See the port."""
        self._pieces.check(piece)
        return self._inner.erase_notes(piece, by=by, now_ms=now_ms)

    def holds(self, *, hold: str | None, piece: str | None, after: tuple[str, str], rows_max: int) -> Sequence[Hold]:
        """See the port."""
        found: list[Hold] = []
        while len(found) < rows_max:
            rows = self._inner.holds(hold=hold, piece=piece, after=after, rows_max=ROWS_A_READ)
            found += [row for row in rows if self._pieces.piece(row.piece) is not None]
            if len(rows) < ROWS_A_READ:
                break
            after = rows[-1].hold, rows[-1].piece
        return found[:rows_max]


class ScopedDeletions:
    """A :class:`fleet_server.evidence.store.Deletions`."""

    def __init__(self, inner: Deletions, pieces: ScopedPieces, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._pieces = pieces
        self._scope = scope

    def ask(self, piece: str, reason: str, *, by: str, now_ms: int) -> Deletion:
        """See the port."""
        self._pieces.check(piece)
        return self._inner.ask(piece, reason, by=by, now_ms=now_ms)

    def approve(self, deletion: str, *, by: str, now_ms: int) -> Deletion:
        """See the port."""
        self._check(deletion)
        return self._inner.approve(deletion, by=by, now_ms=now_ms)

    def withdraw(self, deletion: str, reason: str, *, by: str, now_ms: int) -> Deletion:
        """See the port."""
        self._check(deletion)
        return self._inner.withdraw(deletion, reason, by=by, now_ms=now_ms)

    def deletions(
        self, *, open_only: bool, after: tuple[int, str], rows_max: int
    ) -> Sequence[tuple[Deletion, Piece]]:
        """See the port."""
        found: list[tuple[Deletion, Piece]] = []
        while len(found) < rows_max:
            rows = self._inner.deletions(open_only=open_only, after=after, rows_max=ROWS_A_READ)
            found += [row for row in rows if self._scope().covers(row[1].path)]
            if len(rows) < ROWS_A_READ:
                break
            after = rows[-1][0].asked_ms, rows[-1][0].deletion
        return found[:rows_max]

    def deletion(self, deletion: str) -> tuple[Deletion, Piece] | None:
        """See the port."""
        found = self._inner.deletion(deletion)
        return found if found is not None and self._scope().covers(found[1].path) else None

    def _check(self, deletion: str) -> None:
        if self.deletion(deletion) is None:
            raise UnknownPieceError("deletion", deletion)


class ScopedItems:
    """A :class:`fleet_server.evidence.items.Items`."""

    def __init__(self, inner: Items, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._scope = scope

    def item(self, item: str) -> Item | None:
        """See the port."""
        found = self._inner.item(item)
        return found if found is not None and self._scope().covers(found.path) else None

    def items(
        self,
        *,
        state: ItemState | None,
        case_name: str | None,
        within: Sequence[str] | None,
        after: str,
        rows_max: int,
    ) -> Sequence[Item]:
        """See the port; within what they may see."""
        scope = self._scope()
        mine = within if scope.everywhere else scope.paths
        return self._inner.items(state=state, case_name=case_name, within=mine, after=after, rows_max=rows_max)

    def take_in(
        self, item: str, *, path: str, description: str, case_name: str, note: str, by: str, now_ms: int
    ) -> Item:
        """See the port. Raises RefusedError too: it would be where they may not act."""
        if not self._scope().covers(path):
            raise RefusedError(f"{path}: not a place of yours")
        return self._inner.take_in(
            item, path=path, description=description, case_name=case_name, note=note, by=by, now_ms=now_ms
        )

    def do(self, item: str, doing: Doing, *, by: str, now_ms: int) -> Item:
        """See the port."""
        self._check(item)
        return self._inner.do(item, doing, by=by, now_ms=now_ms)

    def history(self, item: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """See the port."""
        self._check(item)
        return self._inner.history(item, from_number=from_number, rows_max=rows_max)

    def _check(self, item: str) -> None:
        if self.item(item) is None:
            raise UnknownPieceError("item", item)
